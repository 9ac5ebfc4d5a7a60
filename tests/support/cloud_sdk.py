"""Google's own command line, where it is installed, as a library: without account and network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def run(code: str, configuration: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Python code on the SDK's own Python, with `given` as standard input. Blocks for seconds.
    Skips the test where there is no SDK. `configuration`: a directory that the SDK may fill."""
    root = _root()
    bundled = root / "platform" / "bundledpythonunix" / "bin" / "python3"
    return subprocess.run(
        [bundled if bundled.exists() else "python3", "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": f"{root / 'lib'}:{root / 'lib' / 'third_party'}",
            "CLOUDSDK_CONFIG": str(configuration),
            "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        },
        input=given,
        capture_output=True,
        text=True,
    )


def _root() -> Path:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed, and its parsers come with it")
    root = Path(gcloud).resolve().parents[1]
    if not (root / "lib" / "googlecloudsdk").is_dir():
        pytest.skip(f"gcloud is installed in {root}, but its library is not there")
    return root
