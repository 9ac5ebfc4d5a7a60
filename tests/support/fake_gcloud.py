"""A `gcloud` for dry runs: it records what it is asked, and plays an App Engine with versions.

It is installed as a program of that name. Its state is a JSON file (FAKE_GCLOUD_STATE):

    versions   id → {"status", "traffic", "image"}
    images     what the registry holds: tag or digest → digest
    records    the DNS zone
    findings   lines of a scan
    broken     beginnings of commands that fail
    stuck      versions that go on serving after they were stopped
    calls      everything it was asked, in order
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

State = dict[str, Any]
HOST = "your-project.example"
ADDRESS = "10.0.0.7"


def main() -> int:
    path = Path(os.environ["FAKE_GCLOUD_STATE"])
    state: State = json.loads(path.read_text())
    words = sys.argv[1:]
    state["calls"].append(words)
    try:
        answer = play(state, words)
    finally:
        path.write_text(json.dumps(state))
    if answer is None:
        print(f"ERROR: (gcloud) {' '.join(words[:4])}: refused", file=sys.stderr)
        return 1
    if answer:
        print(answer)
    return 0


def play(state: State, words: list[str]) -> str | None:
    """What it prints; None: it fails."""
    line = " ".join(words)
    if any(line.startswith(broken) for broken in state["broken"]):
        return None
    for beginning, do in COMMANDS.items():
        if line.startswith(beginning):
            return do(state, words[len(beginning.split()) :])
    return None


def option(words: list[str], name: str) -> str:
    return next((w.split("=", 1)[1] for w in words if w.startswith(f"--{name}=")), "")


def _deploy(state: State, words: list[str]) -> str:
    image = state.get("deployed_image") or option(words, "image-url")
    version = {"status": "SERVING", "traffic": 0.0, "image": image}
    if "--no-promote" not in words or not state["versions"]:
        version["traffic"] = 1.0
    state["versions"][option(words, "version")] = version
    return ""


def _list(state: State, words: list[str]) -> str:
    only = "SERVING" if "SERVING" in option(words, "filter") else ""
    whole = "traffic" in option(words, "format")
    return "\n".join(
        f"{name} {v['status']} {v['traffic']:.1f}" if whole else name
        for name, v in state["versions"].items()
        if only in v["status"]
    )


def _describe(state: State, words: list[str]) -> str | None:
    version = state["versions"].get(words[0])
    if version is None:
        return None
    url = f"https://{words[0]}-dot-{HOST}"
    return url if "versionUrl" in option(words, "format") else str(version["image"])


def _set_status(state: State, names: list[str], status: str) -> str:
    for name in names:
        if not name.startswith("--") and name not in state["stuck"]:
            state["versions"][name]["status"] = status
    return ""


def _traffic(state: State, words: list[str]) -> str:
    target = option(words, "splits").removesuffix("=1")
    for name, version in state["versions"].items():
        version["traffic"] = 1.0 if name == target else 0.0
    return ""


def _submit(state: State, words: list[str]) -> str:
    tag = option(words, "substitutions").split(",")[0].removeprefix("_IMAGE=")
    digest = f"sha256:{'ab' * 32}"
    state["images"] |= {tag: digest, f"{tag.rpartition(':')[0]}@{digest}": digest}
    return ""


def _record(state: State, words: list[str]) -> str:
    state["records"][words[0]] = option(words, "rrdatas")
    return ""


def _configuration(state: State, words: list[str]) -> str:
    Path(option(words, "output-file")).write_text("{}")
    return ""


COMMANDS: dict[str, Callable[[State, list[str]], str | None]] = {
    "app deploy": _deploy,
    "app versions list": _list,
    "app versions describe": _describe,
    "app versions start": lambda state, words: _set_status(state, words, "SERVING"),
    "app versions stop": lambda state, words: _set_status(state, words, "STOPPED"),
    "app services set-traffic": _traffic,
    "app instances list": lambda state, words: ADDRESS,
    "app describe": lambda state, words: HOST,
    "artifacts docker images describe": lambda state, words: state["images"].get(words[0]),
    "artifacts docker images scan": lambda state, words: "projects/p/locations/us/scans/s",
    "artifacts docker images list-vulnerabilities": lambda state, words: state["findings"],
    "builds submit": _submit,
    "dns record-sets describe": lambda state, words: state["records"].get(words[0]),
    "dns record-sets create": _record,
    "dns record-sets update": _record,
    "iam workload-identity-pools create-cred-config": _configuration,
    "auth login": lambda state, words: "",
    "config set": lambda state, words: "",
}

if __name__ == "__main__":
    sys.exit(main())
