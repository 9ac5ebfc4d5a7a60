"""The version of the bridge, as `pyproject.toml` has it."""

VERSION = "0.1.0"
