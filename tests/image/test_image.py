"""The image, run as it is meant to be run: read-only, with memory for what is written at the start
and a volume for what has to stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bridge.cli.processes import free_ports, listens
from chaos.services import Services
from tests.support.container_plant import DEV, Cloud, load_on, wait_for_readings
from tests.support.engine import (
    IMAGE,
    LOCAL_SERVICES,
    NETWORK,
    Container,
    call,
    inspect,
    must,
    require_images,
)
from tests.support.poll import eventually

READ_ONLY = ("--read-only", "--tmpfs", "/run/fcts:mode=1777")
UID = "10001"
APP_ENGINE_SECONDS = 30
# Where the services are for those in the same network namespace.
BESIDE = {
    "PUBSUB_EMULATOR_HOST": "127.0.0.1:8085",
    "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:9050",
    "BIGQUERY_STORAGE_EMULATOR_HOST": "127.0.0.1:9060",
}

pytestmark = pytest.mark.usefixtures("images")


@pytest.fixture(scope="module")
def images() -> None:
    require_images()


class Published(Services):
    """The services in a container, by their ports on this machine."""

    def __init__(self, pubsub: int, bigquery: int, storage: int, control: int) -> None:
        self._control = f"http://127.0.0.1:{control}"
        self.environment = {
            "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{pubsub}",
            "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{bigquery}",
            "BIGQUERY_STORAGE_EMULATOR_HOST": f"127.0.0.1:{storage}",
        }


class Site:
    """The bridge's container and the one with the services, in one network namespace."""

    def __init__(self, google: Container, cloud: Cloud, mqtt: int) -> None:
        self.cloud = cloud
        self.mqtt = mqtt
        self._beside = ("--network", f"container:{google.id}")

    @contextmanager
    def bridge(self, *options: str) -> Iterator[Container]:
        """Started, with the way in open."""
        environ = environment({**DEV, **BESIDE})
        with Container(IMAGE, *READ_ONLY, *self._beside, *environ, *options) as container:
            eventually(lambda: opened(container), "the way in is open", 60)
            yield container


def environment(variables: dict[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in variables.items()]


def opened(container: Container) -> bool:
    return container.run("test", "-e", "/run/fcts/opened").returncode == 0


def kill(container: Container, program: str) -> None:
    """SIGKILL; returns when it was started anew."""
    killed = pid(container, program)
    assert container.run("sh", "-c", f"kill -9 {killed}").returncode == 0
    eventually(lambda: pid(container, program) != killed, f"{program} is started again")


def pid(container: Container, program: str) -> str:
    spawned: list[str] = re.findall(rf"spawned: '{program}' with pid (\d+)", container.output)
    return spawned[-1]


@pytest.fixture
def site() -> Iterator[Site]:
    ports = dict(zip((8085, 9050, 9060, 9070, 1883), free_ports(5), strict=True))
    options = [f"--publish=127.0.0.1:{port}:{inside}" for inside, port in ports.items()]
    with Container(LOCAL_SERVICES, *NETWORK, *options) as google:
        *services, mqtt = ports.values()
        eventually(lambda: '"control"' in google.output, "the services are up", 60)
        eventually(lambda: all(map(listens, services)), "their ports are published", 60)
        yield Site(google, Cloud(Published(*services)), mqtt)


@pytest.fixture
def on_volume() -> Iterator[str]:
    """The option that keeps the data of several containers in one place."""
    volume = must("volume", "create")
    yield f"--volume={volume}:/data"
    call("volume", "rm", volume)


def test_the_image_says_how_it_is_run() -> None:
    config = inspect(IMAGE)
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["tini", "--"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert set(config["ExposedPorts"]) == {"1883/tcp", "8080/tcp", "8883/tcp", "9001/tcp"}
    assert set(config["Volumes"]) == {"/data"}
    assert config["Labels"]["org.opencontainers.image.title"] == "fcts-bridge"


def test_a_bad_variable_ends_the_container_with_78_and_says_which() -> None:
    with Container(IMAGE, *READ_ONLY, *NETWORK, "--env=APP_ENV=TEST") as container:
        assert container.finish() == 78
        assert "APP_ENV='TEST': " in container.errors


def test_it_works_read_only_as_an_ordinary_user_and_is_found_healthy(site: Site) -> None:
    with site.bridge() as container:
        assert container.run("id", "-u").stdout.strip() == UID
        assert container.run("cat", "/proc/1/comm").stdout.strip() == "tini"
        assert "Read-only file system" in container.run("touch", "/app/x").stderr
        kind, *command = inspect(IMAGE)["Healthcheck"]["Test"]
        assert kind == "CMD"
        assert container.run(*command).returncode == 0
        assert container.stop(APP_ENGINE_SECONDS) == 0


def test_what_is_acknowledged_before_a_stop_is_in_the_cloud_when_it_is_over(
    site: Site, on_volume: str
) -> None:
    with ExitStack() as later:
        with load_on(site.mqtt) as load:
            with site.bridge(on_volume) as container:
                wait_for_readings(load, 500)
                assert container.stop(APP_ENGINE_SECONDS) == 0
                site.cloud.require_all(load)
            later.enter_context(site.bridge(on_volume))
            wait_for_readings(load, 100)
        site.cloud.wait_for_all(load)


def test_every_program_is_started_again_after_a_kill_and_nothing_is_lost(site: Site) -> None:
    with site.bridge() as container:
        with load_on(site.mqtt) as load:
            for program in ("bridge", "sensors", "broker"):
                wait_for_readings(load, 100)
                kill(container, program)
            wait_for_readings(load, 100)
        site.cloud.wait_for_all(load)
        assert container.stop(APP_ENGINE_SECONDS) == 0
        assert "New client connected from" in container.output  # the broker is heard as well


def test_what_a_killed_container_had_not_sent_is_sent_by_the_next_one_on_its_volume(
    site: Site, on_volume: str
) -> None:
    with ExitStack() as later:
        with load_on(site.mqtt) as load:
            with site.bridge(on_volume) as container:
                wait_for_readings(load, 500)
                must("kill", container.id)
            later.enter_context(site.bridge(on_volume))
            wait_for_readings(load, 100)
        site.cloud.wait_for_all(load)


def test_a_program_that_cannot_be_kept_running_ends_the_container(site: Site) -> None:
    with site.bridge("--env=DRAIN_SECONDS=1") as container:
        broker = pid(container, "broker")
        breaking = f"echo no_such_option > /run/fcts/mosquitto.conf; kill -9 {broker}"
        assert container.run("sh", "-c", breaking).returncode == 0
        assert container.finish() == 70
        assert "broker ended again and again at its start" in container.output
