"""Runs jobs of project-ci.yml as a runner with the shell executor would, with a `gcloud` and a
`curl` that only play."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "project-ci.yml"
IMAGE_NAME = "us-central1-docker.pkg.dev/plant-build-1/fcts/bridge"
DIGEST = f"sha256:{'ab' * 32}"
OLDER = f"sha256:{'0d' * 32}"
TOKEN = "correct-horse-battery"
POOL = "locations/global/workloadIdentityPools/gitlab"
GITLAB_TOKEN = "header.claims.signature"

Job = dict[str, Any]
Completed = subprocess.CompletedProcess[str]


@functools.cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(PIPELINE)
    return loaded


def jobs() -> dict[str, Job]:
    """The jobs that can run, with what they extend."""
    loaded = document()
    words = {"stages", "workflow"}
    names = [name for name in loaded if name not in words and not name.startswith(".")]
    return {name: _extended(loaded, name) for name in names}


def _extended(loaded: dict[str, Any], name: str) -> Job:
    own = dict(loaded[name])
    parents = own.pop("extends", [])
    whole: Job = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        whole |= _extended(loaded, parent)
    return whole | own


class DryRun:
    """One pipeline of one commit: a checkout with an operator's names in it, and what is played."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        self._bin = directory / "bin"
        self._state = {name: directory / f"{name}.json" for name in ("gcloud", "curl")}
        self._reported: dict[str, str] = {}
        self.commit = "c0ffee" + "0" * 34
        self._check_out()
        self._install()
        versions: dict[str, Any] = {}
        images = {f"{IMAGE_NAME}@{OLDER}": OLDER}
        self.gcloud: dict[str, Any] = {
            "versions": versions,
            "images": images,
            "records": {},
            "calls": [],
        }
        self.gcloud |= {"findings": "", "broken": [], "stuck": []}
        balanced = '{"balanced":true,"sites":{}}'
        self.curl: dict[str, Any] = {"unready": [], "ledger": balanced, "calls": []}

    def _check_out(self) -> None:
        shutil.copytree(ROOT / "deploy", self.checkout / "deploy")
        for environment in ("dev", "pprd", "prd"):
            text = (ROOT / f"{environment}.yml").read_text()
            text = text.replace(f"your-{environment}-project", f"plant-{environment}-1")
            text = text.replace('begin with "your-"', "").replace(f"your-{environment}-", "plant-")
            (self.checkout / f"{environment}.yml").write_text(text.replace('"your-"', ""))

    def _install(self) -> None:
        self._bin.mkdir()
        for name in self._state:
            program = self._bin / name
            source = ROOT / "tests" / "support" / f"fake_{name}.py"
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{source}" "$@"\n')
            program.chmod(0o755)

    def version(self, name: str, status: str = "SERVING", traffic: float = 1.0) -> None:
        """A version that is there already."""
        image = f"{IMAGE_NAME}@{OLDER}"
        self.gcloud["versions"][name] = {"status": status, "traffic": traffic, "image": image}

    def job(self, name: str, **variables: str) -> Completed:
        """Run a job to its end, as the runner does. Later jobs know what it reports."""
        job = jobs()[name]
        environment = str(job["environment"]["name"])
        lines = [*job["before_script"], *job["script"]]
        result = self._run("\n".join(lines), self._variables(environment) | variables)
        if result.returncode == 0 and "artifacts" in job:
            report = self.checkout / job["artifacts"]["reports"]["dotenv"]
            pairs = [line.split("=", 1) for line in report.read_text().splitlines()]
            self._reported |= dict(pairs)
        return result

    def _variables(self, environment: str) -> dict[str, str]:
        """Those of GitLab, and those that an operator sets (docs/deploy.md)."""
        project = "build" if environment == "registry" else environment
        return {
            "CI_COMMIT_SHA": self.commit,
            "CI_ENVIRONMENT_NAME": environment,
            "GITLAB_TOKEN_FOR_GOOGLE": GITLAB_TOKEN,
            "WIF_PROVIDER": f"projects/1/{POOL}/providers/gitlab",
            "DEPLOY_SERVICE_ACCOUNT": f"fcts-deploy@plant-{project}-1.iam.gserviceaccount.com",
            "BUILD_SERVICE_ACCOUNT": "fcts-image-builder@plant-build-1.iam.gserviceaccount.com",
            "GCP_PROJECT_ID": f"plant-{project}-1",
            "IMAGE_NAME": IMAGE_NAME,
            "HTTP_TOKEN": TOKEN,
            "MQTT_HOST": f"mqtt.{environment}.plant.example",
            "DNS_ZONE": "plant",
        }

    def _run(self, script: str, variables: dict[str, str]) -> Completed:
        for name, path in self._state.items():
            path.write_text(json.dumps(getattr(self, name)))
        environment = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "TMPDIR": str(self.checkout.parent),
            "FAKE_GCLOUD_STATE": str(self._state["gcloud"]),
            "FAKE_CURL_STATE": str(self._state["curl"]),
            "SMOKE_SECONDS": "0",
            "HANDOVER_SECONDS": "0",
        }
        result = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.checkout,
            env=environment | self._reported | variables,
            capture_output=True,
            text=True,
        )
        for name, path in self._state.items():
            setattr(self, name, json.loads(path.read_text()))
        return result

    @property
    def calls(self) -> list[str]:
        """What gcloud was asked, a line each."""
        return [" ".join(words) for words in self.gcloud["calls"]]

    def asked(self, beginning: str) -> list[str]:
        return [call for call in self.calls if call.startswith(beginning)]

    def serving(self) -> list[str]:
        versions = self.gcloud["versions"]
        return [name for name, version in versions.items() if version["status"] == "SERVING"]
