"""How far a run has come, on stderr: a line that redraws itself on a terminal, else plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bridge.clock import Clock

REDRAW_SECONDS = 0.2
LINE_SECONDS = 5.0


class Progress(Protocol):
    def show(self, words: Callable[[], str]) -> None:
        """Show how far it is. To be called as often as one likes: `words` is asked only when
        something is about to be drawn."""


class Every:
    """Draws at most once in `seconds`; the first time when these have passed."""

    def __init__(self, clock: Clock, seconds: float, draw: Callable[[str], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._draw = draw
        self._next = clock.monotonic() + seconds

    def show(self, words: Callable[[], str]) -> None:
        now = self._clock.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            self._draw(words())


@contextmanager
def shown(
    clock: Clock, redraw_seconds: float = REDRAW_SECONDS, line_seconds: float = LINE_SECONDS
) -> Iterator[Progress]:
    """Progress on stderr for as long as the block lasts. On a terminal nothing of it remains;
    elsewhere there is a line every `line_seconds`."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield Every(clock, line_seconds, lambda words: console.print(words, soft_wrap=True))
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Every(clock, redraw_seconds, lambda words: live.update(Text(words), refresh=True))
