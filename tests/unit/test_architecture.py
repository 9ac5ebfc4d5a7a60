"""What imports what: the data flows one way, and each SDK stays where it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "bridge").rglob("*.py"))

# Each SDK, and the files that may import it.
SDKS = {
    "paho": {
        *(f"bridge/mqtt_{name}.py" for name in ("client", "setup", "version")),
        "bridge/subscriber.py",
        "bridge/cli/publishing.py",
        "bridge/cli/probe.py",
    },
    "google.pubsub_v1": {
        "bridge/sinks/connect.py",
        "bridge/sinks/pubsub.py",
        "bridge/sinks/pubsub_admin.py",
    },
    "google.cloud.bigquery": {
        "bridge/sinks/connect.py",
        "bridge/sinks/bigquery_table.py",
        "bridge/sinks/bigquery_admin.py",
        "bridge/sinks/bigquery_sums.py",
    },
    "google.cloud.bigquery_storage_v1": {
        "bridge/sinks/connect.py",
        "bridge/sinks/bigquery.py",
        "bridge/sinks/append_stream.py",
    },
    "google.cloud.secretmanager_v1": {"bridge/secrets.py"},
    "google.cloud.storage": {"bridge/sinks/connect.py"},
    "flask": {"bridge/web/app.py"},
    "waitress": {"bridge/web/server.py"},
    "prometheus_client": {"bridge/web/metrics.py"},
    "sqlite3": {
        *(
            f"bridge/journal/{name}.py"
            for name in ("counts", "file", "handover", "journal", "letters", "letter_pages")
        ),
        *(f"bridge/journal/{name}.py" for name in ("retention", "salvage", "sink_side", "store")),
        *(f"bridge/journal/{name}.py" for name in ("days", "account", "orders", "bulk")),
        *(f"bridge/statistics/{name}.py" for name in ("collector", "file", "tags")),
        *(f"bridge/cli/{name}.py" for name in ("dead_letters", "dead_letters_acting", "ordering")),
        "bridge/cli/replay.py",
        "bridge/replay.py",
    },
}

# A layer imports itself and those before it.
LAYERS = [
    {"errors", "clock", "times", "snapshot", "histogram", "parsing", "version"},
    {"environment", "reading", "log_output", "watch"},
    {"settings"},
    {"budget", "logs", "policy", "secrets", "journal", "link", "announcement"},
    {"mqtt_client", "mqtt_version", "mqtt_setup"},
    {"sinks", "intake", "lanes", "forwarder", "reports", "handoff", "broker_session"},
    {"loading", "subscriber", "audit", "statistics"},
    {"delivery", "web", "replay"},
    {"service", "wiring"},
    {"cli"},
]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_is_imported_only_where_it_belongs(sdk: str) -> None:
    found = {
        name(path)
        for path in MODULES
        if any(module == sdk or module.startswith(f"{sdk}.") for module in imports(path))
    }
    assert found <= SDKS[sdk]
    assert found


def layer(part: str) -> int:
    (index,) = [index for index, parts in enumerate(LAYERS) if part in parts]
    return index


def part_of(path: Path) -> str:
    inside = path.relative_to(ROOT / "bridge")
    return inside.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_its_own_layer_and_those_before_it(path: Path) -> None:
    if part_of(path) == "__init__":
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "bridge" and len(parts) > 1:
            assert layer(parts[1]) <= layer(part_of(path)), f"{name(path)} imports {module}"


def test_no_modules_of_the_bridge_import_each_other_in_a_circle() -> None:
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    graph = {
        module: {found for found in imports(path) if found in known}
        for module, path in known.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(
    ("package", "unknown"),
    [
        ("bridge", {"container", "localgcp", "chaos", "bench", "tests"}),
        ("container", {"localgcp", "chaos", "bench", "tests"}),
        ("localgcp", {"bridge", "container", "chaos", "bench", "tests"}),
        # The services are a process to these.
        ("chaos", {"container", "localgcp", "bench", "tests"}),
        ("bench", {"container", "localgcp", "tests"}),
    ],
)
def test_a_package_does_not_know_those_that_try_it_out(package: str, unknown: set[str]) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        tops = {module.split(".")[0] for module in imports(path)}
        assert not tops & unknown, name(path)


def test_the_container_knows_only_what_the_bridge_is_configured_with() -> None:
    known = {"errors", "environment", "settings", "secrets"}
    for path in sorted((ROOT / "container").rglob("*.py")):
        for module in imports(path):
            parts = module.split(".")
            assert parts[0] != "bridge" or len(parts) == 1 or parts[1] in known, name(path)


def test_only_the_charts_need_the_charts_packages() -> None:
    found = {
        name(path)
        for path in sorted((ROOT / "bench").rglob("*.py"))
        if any(module.split(".")[0] == "matplotlib" for module in imports(path))
    }
    assert found == {"bench/chart.py"}


def test_the_wiring_of_local_imports_no_google_module() -> None:
    code = (
        "import sys; from random import Random; from pathlib import Path; import tempfile;"
        "from bridge import wiring, settings; from bridge.clock import SystemClock;"
        "from bridge.journal import Journal;"
        "s = settings.load({'APP_ENV': 'LOCAL',"
        " 'JOURNAL_PATH': tempfile.mkdtemp() + '/j.db'});"
        "j = Journal(s.journal_path, wiring.journal_limits(s), SystemClock()); j.open();"
        "j.activate(wiring.destinations(s));"
        "wiring.deliveries(s, j, None, SystemClock(), Random());"
        "wiring.subscriber(s, j, SystemClock(), Random()); j.close();"
        "print([m for m in sys.modules if m.split('.')[0] in ('google', 'grpc')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
