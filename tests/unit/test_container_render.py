"""What is written for the container's programs. That they take it, and what they do with it, is in
the tests with the real ones."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bridge import settings as bridge_settings
from bridge.errors import ConfigurationError
from container import sources
from container.limits import connections, memory, queue_bytes, queue_messages
from container.ports import Ports
from container.render import render
from container.settings import Security, Settings
from tests.support.security import SITE, material

GIB = 1024**3
NOTHING_SET = Settings.model_validate({})
NAME = "projects/p/secrets/users/versions/3"


class Rendered:
    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory / "run"
        self.environ = {"MOSQUITTO_DATA": str(directory / "data"), **environ}
        self.answer = render(self.environ, self.directory)

    def lines(self, name: str) -> list[str]:
        return (self.directory / name).read_text().splitlines()


@pytest.fixture
def rendered(tmp_path: Path) -> Rendered:
    return Rendered(tmp_path)


def test_the_settings_are_those_of_mosquitto_conf_without_its_listener(rendered: Rendered) -> None:
    lines = rendered.lines("mosquitto.conf")
    assert "persistence true" in lines
    assert "max_inflight_messages 65534" in lines
    assert "max_packet_size 9437184" in lines
    assert [line for line in lines if line.startswith("listener")] == [
        "listener 11883 127.0.0.1",
        "listener 21883 127.0.0.1",
    ]


def test_each_option_is_said_once(rendered: Rendered) -> None:
    options = [line.split()[0] for line in rendered.lines("mosquitto.conf") if line[:1].isalpha()]
    often = {"listener", "log_type"}
    once = [option for option in options if option not in often]
    assert len(once) == len(set(once))


def test_limits_that_are_given_are_taken(tmp_path: Path) -> None:
    limits = {
        "MQTT_QUEUE_MESSAGES": "7",
        "MQTT_QUEUE_BYTES": "8000",
        "MQTT_MAX_PACKET_BYTES": "99000",
    }
    lines = Rendered(tmp_path, **limits).lines("mosquitto.conf")
    assert {"max_queued_messages 7", "max_queued_bytes 8000", "max_packet_size 99000"} <= set(lines)


def test_everything_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    made = material("mtls", tmp_path)
    rendered = Rendered(tmp_path, **made.environ)
    assert stat.S_IMODE(rendered.directory.stat().st_mode) == 0o700
    files = list(rendered.directory.iterdir())
    assert {file.name for file in files} == {
        *("mosquitto.conf", "haproxy.cfg", "acl", "passwd", "bridge-password"),
        *("server.crt", "server.key", "client-ca.crt"),
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_second_time_overwrites_and_makes_another_password_for_the_same_name(
    tmp_path: Path,
) -> None:
    first = Rendered(tmp_path)
    password = first.lines("bridge-password")
    second = Rendered(tmp_path, MQTT_MAX_PACKET_BYTES="99000")
    assert "max_packet_size 99000" in second.lines("mosquitto.conf")
    assert second.lines("bridge-password") != password
    assert second.answer == first.answer


def test_the_bridge_takes_the_answer_for_its_settings(tmp_path: Path) -> None:
    before = {"MQTT_BROKER": "elsewhere", "MQTT_PASSWORD": "another", "MQTT_TLS": "true"}
    rendered = Rendered(tmp_path, **before)
    settings = bridge_settings.load({**rendered.environ, **rendered.answer})
    assert (settings.mqtt_broker, settings.mqtt_port) == ("127.0.0.1", 11883)
    assert settings.password == rendered.lines("bridge-password")[0]
    assert not settings.mqtt_tls


def test_the_bridges_name_and_client_id_cannot_be_guessed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = Rendered(tmp_path).answer, Rendered(tmp_path / "other").answer
    assert one["MQTT_USERNAME"] != other["MQTT_USERNAME"]
    assert one["MQTT_CLIENT_ID"] == one["MQTT_USERNAME"]


def test_a_client_id_that_is_given_is_kept(tmp_path: Path) -> None:
    assert Rendered(tmp_path, MQTT_CLIENT_ID="mine").answer["MQTT_CLIENT_ID"] == "mine"


def test_a_damaged_identity_is_made_anew(tmp_path: Path) -> None:
    first = Rendered(tmp_path).answer["MQTT_USERNAME"]
    (tmp_path / "data" / "bridge-identity").write_bytes(b"fcts-bridge-\xff\nuser x")
    assert Rendered(tmp_path).answer["MQTT_USERNAME"] not in (first, "")


def test_the_bridge_may_read_the_configured_filter(tmp_path: Path) -> None:
    assert "topic read FCTS/FAE/#" in Rendered(tmp_path, MQTT_TOPIC="FCTS/FAE/#").lines("acl")


def test_the_way_in_leads_to_the_sensors_listeners_only(tmp_path: Path) -> None:
    ports = Ports()
    doors: list[tuple[Security, int]] = [("password", ports.mqtt), ("tls", ports.mqtts)]
    for security, public in doors:
        made = material(security, tmp_path)
        rendered = Rendered(tmp_path, MQTT_WEBSOCKETS="true", **made.environ)
        words = [line.split() for line in rendered.lines("haproxy.cfg")]
        binds = [line[1] for line in words if line[:1] == ["bind"]]
        servers = [line[2] for line in words if line[:1] == ["server"]]
        assert binds == [f"0.0.0.0:{public}", "0.0.0.0:9001"]
        assert servers == ["127.0.0.1:21883", "127.0.0.1:29001"]


def test_without_websockets_there_is_no_such_listener(rendered: Rendered) -> None:
    assert "protocol websockets" not in rendered.lines("mosquitto.conf")
    assert "backend websockets" not in rendered.lines("haproxy.cfg")


def test_a_secret_may_be_in_secret_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = material("password", tmp_path)
    asked = []

    def fetch(variable: str, version: str) -> str:
        asked.append((variable, version))
        return made.environ["MQTT_USERS"]

    monkeypatch.setattr(sources, "fetch", fetch)
    rendered = Rendered(tmp_path, MQTT_SECURITY="password", MQTT_USERS_SECRET=NAME)
    assert asked == [("MQTT_USERS_SECRET", NAME)]
    assert rendered.lines("passwd")[1].startswith(f"{SITE}:$7$")


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    material("password", tmp_path)
    users = str(tmp_path / "users")
    rendered = Rendered(tmp_path, MQTT_SECURITY="password", MQTT_USERS_FILE=users)
    assert rendered.lines("passwd")[1].startswith(f"{SITE}:$7$")


def test_a_directory_that_cannot_be_written_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"MOSQUITTO_DATA='.*Remedy: name a directory"):
        Rendered(tmp_path)
    (tmp_path / "data").unlink()
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"run: .*Remedy: let the container's user write"):
        Rendered(tmp_path)


# --- what fits into the machine -------------------------------------------------------------------


def machine(root: Path, total: int, **limits: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal:  {total // 1024} kB\nMemFree: 1 kB\n")
    (root / "sys/fs/cgroup/memory").mkdir(parents=True)
    for name, text in limits.items():
        path = {"v1": "memory/memory.limit_in_bytes", "v2": "memory.max"}[name]
        (root / "sys/fs/cgroup" / path).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8 * GIB),
        ({"v2": "max"}, 8 * GIB),
        ({"v2": str(2 * GIB)}, 2 * GIB),
        ({"v1": str(GIB)}, GIB),
        ({"v1": "9223372036854771712"}, 8 * GIB),
    ],
)
def test_the_memory_is_what_the_container_may_use(
    tmp_path: Path, limits: dict[str, str], expected: int
) -> None:
    assert memory(machine(tmp_path, 8 * GIB, **limits)) == expected


def test_two_gibibytes_of_memory_give_about_the_numbers_of_mosquitto_conf() -> None:
    assert queue_messages(NOTHING_SET, 2 * GIB) == 1_073_741
    assert queue_bytes(NOTHING_SET, 2 * GIB) == 536_870_912


def test_a_limit_of_the_queue_is_never_0() -> None:
    assert queue_messages(NOTHING_SET, 1) == queue_bytes(NOTHING_SET, 1) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [((2**20, 2**20), 10_000), ((4096, 4096), 1948), ((1024, 2**20), 824), ((-1, -1), 10_000)],
)
def test_as_many_may_connect_as_there_are_files_for(files: tuple[int, int], expected: int) -> None:
    assert connections(NOTHING_SET, files) == expected


def test_more_connections_than_there_are_files_for_are_refused() -> None:
    settings = Settings.model_validate({"mqtt_max_connections": 1949})
    with pytest.raises(ConfigurationError, match=r"room for 1948\. Remedy: .* to 4098"):
        connections(settings, (4096, 4096))
    assert connections(settings, (4098, 4098)) == 1949
