"""BigQuery answers with errors, late, or not at all; its streams and its table change."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.cloud.bigquery import SchemaField

from bridge.sinks import connect
from chaos.rig import SITES, Rig
from chaos.scenario import Scenario
from chaos.services import table_id, table_path

GROUP = "bigquery"
APPEND, INSERT = "storage.AppendRows", "bigquery.tabledata.insertAll"
INSERT_ALL = {"BIGQUERY_WRITE_METHOD": "insert_all"}
REST = (
    ("500", "backendError"),
    ("502", "badGateway"),
    ("503", "backendError"),
    ("429", "rateLimitExceeded"),
    ("403", "quotaExceeded"),
    ("403", "rateLimitExceeded"),
)
GRPC = ("UNAVAILABLE", "INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
BAD_NUMBERS = 3


def fail(call: str, fields: dict[str, Any], rig: Rig) -> None:
    """The other sink goes on meanwhile."""
    before = rig.resolved("pubsub")
    with rig.services.fault(call, **fields):
        rig.rest(1.0, 60)
        rig.wait_until(lambda: rig.resolved("pubsub") >= before + 100, "Pub/Sub goes on")


def now_and_then(call: str, fields: dict[str, Any], rig: Rig) -> None:
    for _ in range(int(rig.either(3, 20))):
        rig.services.add_fault(call, times=1, **fields)
        rig.rest(0.4, 2)


def end_streams(how: str, rig: Rig) -> None:
    for _ in range(int(rig.either(3, 20))):
        rig.services.post(f"/streams/{how}")
        rig.rest(0.4, 2)


def lose_answer_and_stream(how: str, rig: Rig) -> None:
    """An append is applied and its answer lost; then its stream is over."""
    for _ in range(int(rig.either(3, 10))):
        rig.services.add_fault(APPEND, kind="answer_lost", times=1)
        rig.rest(0.1)
        rig.services.post(f"/streams/{how}")
        rig.rest(0.5, 2)


def hide_table(rig: Rig) -> None:
    seconds = rig.either(1.5, 180)
    rig.services.post(table_path(rig.settings) + "/hide", {"seconds": seconds})
    rig.wait_until_held()
    rig.rest(seconds)
    rig.wait_until_held(False)


def refuse_rows(rig: Rig) -> None:
    """A few readings that can never fit, of every site at about the same time: these become dead
    letters, and all others go through."""
    first = max(rig.acknowledged_of(site).stop for site in SITES) + 50
    step = int(rig.either(20, 2_500))
    numbers = {first + step * index for index in range(BAD_NUMBERS)}
    for number in numbers:
        refusal = {"column": "value", "value": float(number)}
        rig.services.post(table_path(rig.settings) + "/refuse", refusal)
    rig.expected_refusals = dict.fromkeys(SITES, numbers)
    before = rig.of_sink("bigquery", "dead_lettered")
    rig.wait_until(
        lambda: all(rig.acknowledged_of(site).stop > max(numbers) + 20 for site in SITES),
        "the bad ones are sent",
        300,
    )
    rig.wait_until(
        lambda: rig.of_sink("bigquery", "dead_lettered") == before + BAD_NUMBERS * len(SITES),
        "the bad ones are dead letters",
    )
    rig.services.post(table_path(rig.settings) + "/accept-all")


def add_column(rig: Rig) -> None:
    _change_columns(rig, [*_columns(rig), SchemaField("remark", "STRING")])
    rig.rest(1.0, 20)


def remove_column(rig: Rig) -> None:
    """A required column is gone, until it is put back: held, and nothing given up."""
    whole = _columns(rig)
    _change_columns(rig, [column for column in whole if column.name != "mqtt_topic"])
    rig.wait_until_held()
    rig.rest(0.5, 60)
    _change_columns(rig, whole)
    rig.wait_until_held(False)


def _columns(rig: Rig) -> list[SchemaField]:
    client = connect.bigquery(rig.settings)
    columns: list[SchemaField] = list(client.get_table(table_id(rig.settings)).schema)
    client.close()
    return columns


def _change_columns(rig: Rig, columns: list[SchemaField]) -> None:
    client = connect.bigquery(rig.settings)
    table = client.get_table(table_id(rig.settings))
    table.schema = columns
    client.update_table(table, ["schema"])
    client.close()


def _on_append() -> list[Scenario]:
    return [
        *(
            Scenario(
                f"append-{status.lower().replace('_', '-')}",
                GROUP,
                f"every append answers {status}, for a minute",
                partial(fail, APPEND, {"status": status}),
            )
            for status in GRPC
        ),
        *(
            Scenario(
                f"append-{status.lower().replace('_', '-')}",
                GROUP,
                f"an append answers {status} now and then, without having been there",
                partial(now_and_then, APPEND, {"status": status}),
            )
            for status in ("ALREADY_EXISTS", "OUT_OF_RANGE")
        ),
        Scenario(
            "append-answer-lost",
            GROUP,
            "taken, but the answer is lost",
            partial(now_and_then, APPEND, {"kind": "answer_lost"}),
        ),
        Scenario(
            "append-hang",
            GROUP,
            "an append is never answered",
            partial(fail, APPEND, {"kind": "hang"}),
        ),
        Scenario(
            "append-cut",
            GROUP,
            "the connection ends within an append",
            partial(now_and_then, APPEND, {"kind": "cut"}),
        ),
        Scenario(
            "append-closed",
            GROUP,
            "the connection is closed, as after idling",
            partial(now_and_then, APPEND, {"kind": "close_stream"}),
        ),
        Scenario(
            "stream-finalized", GROUP, "the stream is finalized", partial(end_streams, "finalize")
        ),
        Scenario("stream-gone", GROUP, "the stream is gone", partial(end_streams, "forget")),
        Scenario(
            "answer-lost-finalized",
            GROUP,
            "an answer is lost, and the stream is finalized",
            partial(lose_answer_and_stream, "finalize"),
        ),
        Scenario(
            "answer-lost-gone",
            GROUP,
            "an answer is lost, and the stream is gone",
            partial(lose_answer_and_stream, "forget"),
        ),
    ]


def _on_both(name: str, story: str, fault: Any) -> list[Scenario]:
    return [
        Scenario(f"{name}-{method.replace('_', '-')}", GROUP, story, fault, settings)
        for method, settings in (("storage_write", {}), ("insert_all", INSERT_ALL))
    ]


SCENARIOS = (
    *_on_append(),
    *_on_both("table-hidden", "the table is not found, for minutes", hide_table),
    *_on_both("column-added", "somebody adds a column", add_column),
    *_on_both("column-removed", "somebody removes a column, and puts it back", remove_column),
    *_on_both("rows-refused", "a few rows can never fit", refuse_rows),
    *(
        Scenario(
            f"insert-{status}-{reason.lower()}",
            GROUP,
            f"every insertAll answers {status} {reason}, for a minute",
            partial(fail, INSERT, {"status": status, "reason": reason}),
            INSERT_ALL,
        )
        for status, reason in REST
    ),
)
