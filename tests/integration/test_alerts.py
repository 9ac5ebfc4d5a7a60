"""The alert rules: on metrics that exist, documented, and firing when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from bridge.snapshot import HandoffState
from tests.support import cloud_sdk
from tests.unit.test_web_metrics import busy_daemon, scrape

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "alerts"
GROUP = YAML(typ="safe").load(ALERTS / "bridge.rules.yml")["groups"][0]
RULES = {rule["alert"]: rule for rule in GROUP["rules"]}
POLICIES = sorted((ALERTS / "cloud-monitoring").glob("*.json"))


def headings() -> list[str]:
    return re.findall(r"(?m)^## (Bridge\w+)$", (ROOT / "docs" / "alerts.md").read_text())


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert headings() == list(RULES)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_uses_only_metrics_that_the_daemon_exports(name: str) -> None:
    daemon = busy_daemon()
    daemon.now = replace(daemon.now, handoff=HandoffState(12, 3.5, 2))
    exported = {metric for metric, _ in scrape(daemon)}
    used = set(re.findall(r"\b(?:bridge|process)_\w+", RULES[name]["expr"]))
    assert used
    assert used <= exported


def test_the_policies_of_cloud_monitoring_are_made_from_the_rules(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ALERTS / "policies.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in POLICIES}
    assert len(made) == len(RULES)


PARSE = """
import json, sys
from apitools.base.py import encoding
from googlecloudsdk.api_lib.util import apis
policy = apis.GetMessagesModule("monitoring", "v3").AlertPolicy
for text in json.load(sys.stdin):
    parsed = encoding.JsonToMessage(policy, text)
    unknown = [parsed] + [c.conditionPrometheusQueryLanguage for c in parsed.conditions]
    print(json.dumps([parsed.displayName, sum(len(m.all_unrecognized_fields()) for m in unknown)]))
"""


def test_the_policies_have_only_fields_that_cloud_monitoring_knows(tmp_path: Path) -> None:
    texts = [path.read_text() for path in POLICIES]
    result = cloud_sdk.run(PARSE, tmp_path, json.dumps([*texts, '{"displayName": "x", "sev": 1}']))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [*([path.stem, 0] for path in POLICIES), ["x", 1]]


# --- Prometheus' own judgement --------------------------------------------------------------------


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: it comes with Debian's package prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def test_prometheus_takes_the_rules() -> None:
    result = promtool("check", "rules", ALERTS / "bridge.rules.yml")
    assert result.returncode == 0, result.stderr
    assert f"{len(RULES)} rules found" in result.stdout


def test_prometheus_takes_the_way_to_scrape(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    shutil.copy(ALERTS / "bridge.rules.yml", tmp_path)
    text = (ALERTS / "scrape.yml").read_text()
    (tmp_path / "scrape.yml").write_text(
        text.replace("/etc/prometheus/fcts-http-token", str(token))
    )
    result = promtool("check", "config", tmp_path / "scrape.yml")
    assert result.returncode == 0, result.stderr


class Case(NamedTuple):
    """Series, as promtool writes values: `start+step x times`, a minute each, for eight hours."""

    series: str
    trouble: str
    calm: str
    labels: dict[str, str] = {}  # noqa: RUF012 - never changed


STILL = "3+0x480"
ONE_MORE = "3+0x470 4+0x9"
RECEIVED = 'bridge_readings_received_total{site="MOR"}'
CASES = {
    "BridgeDown": Case("bridge_mqtt_connected", "1+0x460", "1+0x480"),
    "BridgeDisconnected": Case("bridge_mqtt_connected", "0+0x480", "1+0x480"),
    "BridgeRestarting": Case(
        'process_start_time_seconds{job="fcts-bridge"}',
        "1+0x470 2+0x2 3+0x2 4+0x2",
        "1+0x470 2+0x9",
        {"job": "fcts-bridge"},
    ),
    "BridgeSilent": Case(RECEIVED, "0+100x440 44000+0x39", "0+100x480"),
    "BridgeSiteSilent": Case(
        RECEIVED, "0+100x440 44000+0x39", "0+100x470 47000+0x9", {"site": "MOR"}
    ),
    "BridgeSinkHeld": Case(
        'bridge_sink_held{sink="pubsub"}', "1+0x480", "0+0x480", {"sink": "pubsub"}
    ),
    "BridgeSinkBehind": Case(
        'bridge_sink_oldest_pending_seconds{sink="bigquery"}',
        "0+1x480",
        "0+0x470 0+60x9",
        {"sink": "bigquery"},
    ),
    "BridgeJournalFilling": Case("bridge_journal_seconds_until_full", "3000+0x480", "Inf+0x480"),
    "BridgeJournalDamaged": Case("bridge_journal_loss", "1+0x480", "0+0x480"),
    "BridgeHandoffBehind": Case("bridge_handoff_unshipped_seconds", "0+1x480", "5+0x480"),
    "BridgeSessionLost": Case("bridge_mqtt_sessions_lost_total", ONE_MORE, STILL),
    "BridgeBrokerDropping": Case("bridge_broker_dropped_messages", ONE_MORE, STILL),
    "BridgeQos0Dropped": Case("bridge_qos0_dropped_total", ONE_MORE, STILL),
    "BridgeRejecting": Case(
        'bridge_readings_rejected_total{reason="field_missing"}',
        ONE_MORE,
        STILL,
        {"reason": "field_missing"},
    ),
    "BridgeDeadLettered": Case(
        'bridge_sink_dead_lettered_total{sink="bigquery"}', ONE_MORE, STILL, {"sink": "bigquery"}
    ),
}


def verdict(name: str, case: Case, values: str, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": case.series, "values": values}],
        "alert_rule_test": [{"eval_time": "8h", "alertname": name, "exp_alerts": expected}],
    }


@pytest.mark.parametrize("name", RULES)
def test_an_alert_fires_in_trouble_and_only_then(name: str, tmp_path: Path) -> None:
    case, rule = CASES[name], RULES[name]
    alert = {"exp_labels": rule["labels"] | case.labels, "exp_annotations": rule["annotations"]}
    tests = [verdict(name, case, case.trouble, [alert]), verdict(name, case, case.calm, [])]
    document = {"rule_files": [str(ALERTS / "bridge.rules.yml")], "tests": tests}
    (tmp_path / "cases.yml").write_text(json.dumps(document))
    result = promtool("test", "rules", tmp_path / "cases.yml")
    assert result.returncode == 0, result.stdout + result.stderr
