"""What the services' answers mean: the tables of docs/errors.md, and the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests
from google.api_core.exceptions import BadRequest, Forbidden, ServiceUnavailable
from google.auth.exceptions import RefreshError, TransportError

from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.reading import Entry
from bridge.sinks.append_stream import StorageCode
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery import _STREAM_OVER
from bridge.sinks.bigquery_insert import _outcome
from bridge.sinks.bigquery_table import rest_error
from bridge.sinks.codes import REMEDIES, http_error, sink_error
from tests.support.readings import reading

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
WORDS: dict[str, type[SinkError]] = {
    "transient": Transient,
    "held": Held,
    "content": ContentRefused,
}


def rows(first_column: str) -> Iterator[list[str]]:
    """The rows of the table whose first column has this title."""
    lines = iter(DOCUMENT.read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def meaning(cell: str) -> type[SinkError]:
    found = re.match(r"\w+", cell)
    assert found, cell
    return WORDS[found.group()]


GRPC = {
    code: (pubsub, storage)
    for codes, pubsub, storage in rows("code")
    for code in codes.split(", ")
    if code != "no answer"
}
STATUSES = {
    int(status): cell
    for answer, cell in rows("answer")
    for status in re.findall(r"\b\d{3}\b", answer)
}
REASONS = {
    reason: cell for answer, cell in rows("answer") for reason in re.findall(r"`(\w+)`", answer)
}


def test_the_document_knows_every_code_of_grpc() -> None:
    assert set(GRPC) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("code", GRPC)
def test_a_code_means_to_pubsub_what_the_document_says(code: str) -> None:
    error = sink_error(code, "detail", "topic t")
    assert type(error) is meaning(GRPC[code][0])
    assert error.reason == code.lower()
    assert error.detail == "detail"


def test_a_code_means_the_same_to_storage_write_but_for_what_its_answers_decide() -> None:
    decided = {"ALREADY_EXISTS", "OUT_OF_RANGE"}
    for code, (pubsub, storage) in GRPC.items():
        if code in decided:
            assert "looked up" in storage
        elif code == "INVALID_ARGUMENT":
            assert storage.startswith("held: the schema")
        else:
            assert meaning(storage) is meaning(pubsub), code


def test_the_storage_errors_that_end_a_stream_are_those_of_the_document() -> None:
    (names, _), _ = rows("storage error")
    assert set(re.findall(r"`(\w+)`", names)) == {StorageCode(code).name for code in _STREAM_OVER}


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_means_what_the_document_says(status: int) -> None:
    assert type(http_error(status, [], "detail", "table t")) is meaning(STATUSES[status])


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_reason_goes_before_the_status(reason: str, status: int) -> None:
    error = http_error(status, ["other", reason], "detail", "table t")
    assert type(error) is meaning(REASONS[reason])
    assert error.reason == reason


@pytest.mark.parametrize("status", [0, 302, 409, 418, 501, 599])
def test_a_status_of_no_list_is_transient(status: int) -> None:
    error = http_error(status, ["whatever"], "detail", "table t")
    assert (type(error), error.reason) == (Transient, f"http_{status}")


def test_a_code_of_no_list_is_transient() -> None:
    assert type(sink_error("SOMETHING_NEW", "detail", "topic t")) is Transient


@pytest.mark.parametrize("reason", sorted(set(REMEDIES) - {"schema_mismatch"}))
def test_whatever_is_held_has_a_remedy_without_gaps(reason: str) -> None:
    error = sink_error(reason.upper(), "detail", "table p.d.t")
    assert isinstance(error, Held)
    assert error.remedy
    assert "{" not in error.remedy


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ServiceUnavailable("gone"), Transient, "unavailable"),
        (BadRequest("no"), ContentRefused, "invalid_argument"),
        (Forbidden("no", errors=[{"reason": "accessDenied"}]), Held, "permission_denied"),
        (Forbidden("no", errors=[{"reason": "quotaExceeded"}]), Transient, "quotaExceeded"),
        (requests.ReadTimeout("late"), Transient, "unavailable"),
        (requests.ConnectionError("refused"), Transient, "unavailable"),
        (TimeoutError("late"), Transient, "unavailable"),
        (TransportError("metadata server"), Transient, "credentials"),
        (RefreshError("busy", retryable=True), Transient, "credentials"),
        (RefreshError("account deleted"), Held, "unauthenticated"),
    ],
)
def test_what_the_rest_client_raises_is_told_as_what_it_is(
    error: Exception, kind: type[SinkError], reason: str
) -> None:
    found = rest_error(error, "table t")
    assert (type(found), found.reason) == (kind, reason)


# --- insertAll ------------------------------------------------------------------------------------

INSERT = dict(rows("reason"))
BATCH = [Entry(number, reading(number)) for number in (1, 2, 3)]


def told(reason: str, message: str = "") -> Outcome:
    """Two rows, of which the first has this error; the third went in."""
    errors = [
        {"index": 0, "errors": [{"reason": reason, "message": message}]},
        {"index": 1, "errors": [{"reason": "stopped", "message": ""}]},
    ]
    return _outcome(BATCH, errors)


def test_an_invalid_row_is_refused() -> None:
    assert INSERT["`invalid`"] == "refused"
    assert told("invalid", "bad value") == Outcome([3], {1: "invalid: bad value"})


def test_a_field_that_the_table_lacks_is_held_and_refuses_no_row() -> None:
    assert INSERT['`invalid`: "no such field"'].startswith("held")
    assert told("invalid", "no such field: attributes.") == Outcome([3], {})
    whole = [
        {"index": index, "errors": [{"reason": "invalid", "message": "No such field: x."}]}
        for index in range(3)
    ]
    with pytest.raises(Held):
        _outcome(BATCH, whole)


def test_every_other_reason_keeps_the_row() -> None:
    (kept,) = [reasons for reasons, cell in INSERT.items() if cell.startswith("kept")]
    for reason in [*re.findall(r"`(\w+)`", kept), "something new"]:
        assert told(reason) == Outcome([3], {})
