"""`watch`: a running bridge in the terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count as counting
from typing import NamedTuple

import click
from rich.console import Console
from rich.live import Live

from bridge import settings
from bridge.cli.output import json_text
from bridge.cli.pacing import stopped_by_signal
from bridge.cli.watch_client import BridgeClient, NoAnswer
from bridge.cli.watch_view import View, lines, room_for_tags, screen
from bridge.errors import EXIT_FATAL, ConfigurationError
from bridge.secrets import http_token

STATES = ("stale", "flat", "ahead", "behind", "disorder")
SORTS = ("tag", "age", "value", "average")
KEY_SECONDS = 0.25
PLAIN_TAGS = 20


class Chosen(NamedTuple):
    """Which tags, as the command line has it."""

    site: str | None
    search: str | None
    state: str | None
    sort: str
    descending: bool
    limit: int | None


@click.command("watch", short_help="Watch a running bridge in the terminal.")
@click.option("--url", help="Where it is: http://127.0.0.1 and the PORT configured unless given.")
@click.option("--token", help="Its token. Better set HTTP_TOKEN: others can see an option.")
@click.option("--site", help="Only tags of this site.")
@click.option("--tag", "search", help="Only tags with this in their site or name.")
@click.option("--state", type=click.Choice(STATES), help="Only tags in this state.")
@click.option("--sort", type=click.Choice(SORTS), default="tag", show_default=True)
@click.option("--descending", is_flag=True, help="Largest first.")
@click.option(
    "--limit",
    type=click.IntRange(0, 500),
    help=f"At most so many tags; {PLAIN_TAGS}, on a terminal as many as fit, unless given.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, and end: 70 when there is no answer.")
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json: a document a line, with members overview and tags.",
)
@click.pass_context
def command(
    ctx: click.Context,
    url: str | None,
    token: str | None,
    site: str | None,
    search: str | None,
    state: str | None,
    sort: str,
    descending: bool,
    limit: int | None,
    interval: float,
    once: bool,
    count: int | None,
    style: str,
) -> None:
    """Rates, backlog, and each tag's averages over 1, 5 and 30 minutes, of a bridge that runs.

    On a terminal the screen renews itself until q or Ctrl-C; elsewhere there is a block of lines
    a look. Works from other machines with the bridge's token.
    """
    chosen = Chosen(site, search, state, sort, descending, limit)
    watching = Watching(BridgeClient(*_place(url, token)), chosen)
    looks = 1 if once else count
    with stopped_by_signal() as stop:
        if style == "table" and looks is None and sys.stdout.isatty():
            _show(watching, interval, stop)
            return
        answered = _print(watching, style, looks, interval, stop)
    if looks is not None and not answered:
        ctx.exit(EXIT_FATAL)


def _place(url: str | None, token: str | None) -> tuple[str, str | None]:
    """Where to ask, and with what; the settings say what the command line does not. Raises
    ConfigurationError."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"--url={url!r}: not a URL. Remedy: give the scheme, host and port, such as "
            "http://127.0.0.1:8080."
        )
    if url and token:
        return url, token
    configured = settings.load()
    if url is None and configured.port == 0:
        raise ConfigurationError(
            "PORT=0: the bridge listens on a port that only it knows. Remedy: give --url."
        )
    return url or f"http://127.0.0.1:{configured.port}", token or http_token(configured)()


class Watching:
    """Looks at one bridge again and again; what it saw last stays while there is no answer."""

    def __init__(self, client: BridgeClient, chosen: Chosen) -> None:
        self._client = client
        self._chosen = chosen
        self._silent_since: str | None = None
        self.view = View()

    def turned(self, key: str, room: int) -> int:
        """Where the page begins to which a key turns."""
        step = room if self._chosen.limit is None else self._chosen.limit
        offset = self.view.offset + (step if key == "n" else -step)
        total = (self.view.tags or {}).get("total", 0)
        return self.view.offset if offset >= total else max(0, offset)

    def look(self, room: int, offset: int = 0) -> bool:
        """Renew `view`, with as many tags as there is room for unless a limit is given. Answers
        whether the bridge answered. Blocks for seconds at most."""
        try:
            overview = self._client.overview()
        except NoAnswer as error:
            self._silent_since = self._silent_since or time.strftime("%Y-%m-%dT%H:%M:%S%z")
            problem = f"no answer since {self._silent_since}: {error}"
            self.view = self.view._replace(problem=problem)
            return False
        self._silent_since = None
        self.view = View(overview, offset=offset)
        self._look_at_tags(room, offset)
        return True

    def _look_at_tags(self, room: int, offset: int) -> None:
        chosen = self._chosen
        try:
            tags = self._client.tags(
                search=chosen.search,
                site=chosen.site,
                state=chosen.state,
                sort=chosen.sort,
                descending=int(chosen.descending),
                offset=offset,
                limit=room if chosen.limit is None else chosen.limit,
            )
        except NoAnswer as error:
            self.view = self.view._replace(missing=str(error))
        else:
            self.view = self.view._replace(tags=tags)


# --- elsewhere than on a terminal -----------------------------------------------------------------


def _print(
    watching: Watching, style: str, looks: int | None, interval: float, stop: threading.Event
) -> bool:
    """A block a look. Answers whether the bridge answered the last one."""
    answered = False
    for number in counting(1):
        answered = watching.look(PLAIN_TAGS)
        _print_view(watching.view, style, answered)
        if number == looks or stop.wait(interval):
            break
    return answered


def _print_view(view: View, style: str, answered: bool) -> None:
    if not answered:
        click.echo(view.problem, err=True)
    elif style == "json":
        click.echo(json_text({"overview": view.overview, "tags": view.tags}))
    else:
        click.echo("\n".join(lines(view)))
    sys.stdout.flush()


# --- on a terminal --------------------------------------------------------------------------------


def _show(watching: Watching, interval: float, stop: threading.Event) -> None:
    """Until q or a signal."""
    console = Console()
    offset, look_at, size = 0, 0.0, console.size
    with _keys() as key, Live(console=console, screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            if time.monotonic() >= look_at or console.size != size:
                size = console.size
                room = room_for_tags(size.height, watching.view.overview)
                watching.look(room, offset)
                look_at = time.monotonic() + interval
                live.update(screen(watching.view), refresh=True)
            pressed = key()
            if pressed == "q":
                return
            if pressed in ("n", "p"):
                offset = watching.turned(pressed, room)
                look_at = 0.0


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """What answers the key pressed in the next quarter of a second, or nothing. The terminal is
    left as it was found."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    try:
        yield lambda: _pressed(file)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def _no_key() -> str:
    time.sleep(KEY_SECONDS)
    return ""


def _pressed(file: int) -> str:
    if not select.select([file], [], [], KEY_SECONDS)[0]:
        return ""
    return os.read(file, 1).decode("ascii", "replace")
