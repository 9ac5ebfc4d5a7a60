"""`provision`: create what is missing in Google Cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from bridge import settings
from bridge.cli.output import format_option, print_json
from bridge.errors import BridgeError, FatalError
from bridge.settings import Settings

if TYPE_CHECKING:
    from bridge.sinks.pubsub_admin import PubSubAdmin


class Step(NamedTuple):
    """One resource, and what became of it: created, exists, failed (with the reason)."""

    resource: str
    result: str
    note: str = ""


@click.command(short_help="Create what is missing in Google Cloud.")
@click.option("--location", help="Where a new dataset is kept, such as US or europe-west3.")
@format_option
def command(location: str | None, style: str) -> None:
    """Create topic, dead-letter topic, subscription, dataset and table where they are missing.

    What exists is left as it is; what does not fit is said. Can be run again at any time.
    """
    configured = settings.load()
    if configured.local:
        click.echo("LOCAL only logs: there is nothing to provision.")
        return
    steps = []
    for step in _steps(configured, location):
        steps.append(step)
        if style == "table":
            note = f" ({step.note})" if step.note else ""
            click.echo(f"{step.result:8} {step.resource}{note}")
    if style == "json":
        print_json([step._asdict() for step in steps])
    failed = [step for step in steps if step.result == "failed"]
    if failed:
        raise FatalError(f"{len(failed)} of {len(steps)} could not be created: see above")


def _steps(configured: Settings, location: str | None) -> Iterator[Step]:
    yield from _pubsub_steps(configured)
    yield from _bigquery_steps(configured, location)


def _pubsub_steps(configured: Settings) -> Iterator[Step]:
    from bridge.sinks.pubsub_admin import PubSubAdmin

    admin = PubSubAdmin(configured)
    topic = configured.pubsub_topic or ""
    for name in (topic, configured.pubsub_dead_letter_topic):
        if name:
            yield _made(
                f"topic {name}",
                partial(admin.create_topic, name),
                partial(_topic_note, admin, name),
            )
    if name := configured.pubsub_subscription:
        yield _made(
            f"subscription {name}",
            lambda: admin.create_subscription(name, topic),
            lambda: _subscription_note(admin, name, topic),
        )
    admin.close()


def _topic_note(admin: PubSubAdmin, name: str) -> str | None:
    return None if admin.topic(name) is None else ""


def _subscription_note(admin: PubSubAdmin, name: str, topic: str) -> str | None:
    found = admin.subscription(name)
    if found is None:
        return None
    if found.ordered and found.topic == topic:
        return ""
    if found.topic != topic:
        return f"it belongs to topic {found.topic}, not to {topic}: give it another name"
    return "it is without message ordering, which cannot be added: delete it and run this again"


def _bigquery_steps(configured: Settings, location: str | None) -> Iterator[Step]:
    from bridge.sinks.bigquery_admin import BigQueryAdmin
    from bridge.sinks.schema import problems

    admin = BigQueryAdmin(configured)

    def dataset_note() -> str | None:
        return "" if admin.dataset_exists() else None

    def schema_note() -> str | None:
        found = admin.table()
        return None if found is None else "; ".join(problems(list(found.columns)))

    dataset = f"dataset {admin.dataset_id}"
    yield _made(dataset, lambda: admin.create_dataset(location), dataset_note)
    yield _made(f"table {admin.table_id}", admin.create_table, schema_note)
    admin.close()


def _made(resource: str, create: Callable[[], bool], note: Callable[[], str | None]) -> Step:
    """note: what does not fit about the one that exists; None where there is none."""
    try:
        if create():
            return Step(resource, "created")
    except BridgeError as error:
        return _existing(resource, note, str(error))
    return _existing(resource, note)


def _existing(resource: str, note: Callable[[], str | None], refusal: str = "") -> Step:
    """One that was not created. With a refusal it may be there all the same: whoever may not
    create it may still see it, and where an answer was lost it is there by now."""
    try:
        found = note()
    except BridgeError as error:
        found = None if refusal else f"it could not be looked at: {error}"
    if found is None and refusal:
        return Step(resource, "failed", refusal)
    return Step(resource, "exists", found or "")
