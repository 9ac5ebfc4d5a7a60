"""A real Mosquitto for a test."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.cli.broker import Broker


class Mosquitto(Broker):
    """Debian's Mosquitto as a subprocess on a free port, for as long as the block lasts.

        with Mosquitto("max_queued_messages 10") as broker:
            connect("127.0.0.1", broker.port)
            broker.kill()
            broker.restart()  # the same port, and what it had kept

    extra: further configuration lines. directory: where it keeps its data; a temporary one unless
    given. `.log` is what it printed.
    """

    def __init__(self, extra: str = "", directory: Path | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="mosquitto-") if directory is None else None
        super().__init__(Path(self._own.name) if self._own else directory or Path(), extra)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._clean()

    @property
    def log(self) -> str:
        return self.program.log.read_text(errors="replace")

    def restart(self) -> None:
        """Stop it if it still runs, and start it again where it was."""
        self.stop()
        self.start()

    def _clean(self) -> None:
        if self._own is not None:
            self._own.cleanup()
