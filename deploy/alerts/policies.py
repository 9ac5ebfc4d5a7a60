"""Make Cloud Monitoring's alerting policies from the rules for Prometheus.

    python deploy/alerts/policies.py [DIRECTORY]

writes one JSON file an alert, into cloud-monitoring/ beside this file unless told otherwise. The
queries are the same: Cloud Monitoring takes PromQL.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).parent
SECONDS = {"s": 1, "m": 60, "h": 3600}


def main(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for group in YAML(typ="safe").load(HERE / "bridge.rules.yml")["groups"]:
        for rule in group["rules"]:
            text = json.dumps(policy(group, rule), indent=2, ensure_ascii=False)
            (directory / f"{rule['alert']}.json").write_text(f"{text}\n", encoding="utf-8")


def policy(group: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """An AlertPolicy of the Cloud Monitoring API, as JSON has it."""
    name, severity = rule["alert"], rule["labels"]["severity"]
    condition = {
        "query": rule["expr"],
        "duration": duration(rule.get("for", "0s")),
        "evaluationInterval": duration(group["interval"]),
        "ruleGroup": group["name"],
        "alertRule": name,
    }
    summary = rule["annotations"]["summary"]
    return {
        "displayName": name,
        "severity": severity.upper(),
        "userLabels": {"app": "fcts-bridge"},
        "documentation": {
            "mimeType": "text/markdown",
            "content": f"{summary}\n\nWhat to do: docs/alerts.md, section {name}.",
        },
        "combiner": "OR",
        "conditions": [{"displayName": name, "conditionPrometheusQueryLanguage": condition}],
    }


def duration(text: str) -> str:
    """`5m` as Google's APIs write it: `300s`."""
    match = re.fullmatch(r"(\d+)([smh])", text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a whole number and s, m or h")
    return f"{int(match[1]) * SECONDS[match[2]]}s"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "cloud-monitoring")
