"""Which call a fault is applied to, and what a fault may be written as."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from localgcp.fault_document import fault
from localgcp.faults import KINDS, Fault, Faults, Kind


def taken(faults: Faults, call: str = "pubsub.Publish", subject: str = "") -> Fault | None:
    found = faults.take(call, subject)
    return found and found[1]


def test_a_fault_applies_as_often_as_it_says() -> None:
    faults = Faults()
    rule = Fault("pubsub.Publish", times=2)
    faults.add(rule)
    assert [taken(faults) for _ in range(3)] == [rule, rule, None]


def test_a_fault_without_a_number_applies_until_it_is_lifted() -> None:
    faults = Faults()
    rule = Fault("pubsub.Publish", times=None)
    number = faults.add(rule)
    assert [taken(faults) for _ in range(100)] == [rule] * 100
    faults.remove(number)
    assert taken(faults) is None


def test_a_fault_lets_the_calls_go_that_it_skips() -> None:
    faults = Faults()
    rule = Fault("pubsub.Publish", skip=2)
    faults.add(rule)
    assert [taken(faults) for _ in range(4)] == [None, None, rule, None]


def test_a_fault_applies_to_the_calls_and_subjects_of_its_patterns_only() -> None:
    faults = Faults()
    rule = Fault("storage.*Rows", subject="*/tables/readings/*", times=None)
    faults.add(rule)
    assert taken(faults, "storage.AppendRows", "p/tables/readings/_default") == rule
    assert taken(faults, "storage.AppendRows", "p/tables/other/_default") is None
    assert taken(faults, "storage.FinalizeWriteStream", "p/tables/readings/s") is None
    assert taken(faults, "STORAGE.APPENDROWS", "p/tables/readings/s") is None


def test_a_call_that_does_not_fit_counts_for_nothing() -> None:
    faults = Faults()
    rule = Fault("pubsub.Publish", subject="MOR", skip=1)
    faults.add(rule)
    assert [taken(faults, subject=site) for site in ("BAG", "MOR", "BAG", "MOR")] == [
        None,
        None,
        None,
        rule,
    ]


def test_of_several_faults_the_first_that_fits_and_is_not_used_up_applies() -> None:
    faults = Faults()
    first, second = Fault("pubsub.*", message="1"), Fault("pubsub.Publish", message="2")
    faults.add(first)
    faults.add(second)
    assert [taken(faults) for _ in range(3)] == [first, second, None]


def test_a_fault_that_is_used_up_stands_until_it_is_lifted() -> None:
    faults = Faults()
    first, second = faults.add(Fault("a")), faults.add(Fault("b"))
    assert first != second
    taken(faults, "a")
    assert faults.in_force(first)
    faults.remove(first)
    faults.remove(first)
    assert not faults.in_force(first)
    assert faults.in_force(second)
    faults.clear()
    assert not faults.in_force(second)


def test_every_call_is_counted_whether_a_fault_applies_or_not() -> None:
    faults = Faults()
    faults.add(Fault("a"))
    for call in ("a", "a", "b"):
        taken(faults, call)
    assert faults.calls() == {"a": 2, "b": 1}


def test_the_listing_shows_the_rules_in_their_order_and_how_often_each_was_used() -> None:
    faults = Faults()
    first = faults.add(Fault("a", kind="delay", seconds=1.5, times=None))
    second = faults.add(Fault("b"))
    taken(faults, "a")
    assert [(one["id"], one["used"], one["call"], one["seconds"]) for one in faults.listing()] == [
        (first, 1, "a", 1.5),
        (second, 0, "b", 0.0),
    ]


def test_calls_from_many_threads_take_a_fault_exactly_as_often_as_it_says() -> None:
    faults = Faults()
    faults.add(Fault("a", times=100))
    found: list[Fault | None] = []

    def call() -> None:
        for _ in range(100):
            found.append(taken(faults, "a"))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in found) == 100
    assert faults.calls() == {"a": 800}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'explode' is none of status, delay"):
        Fault("a", kind=cast(Kind, "explode"))


@pytest.mark.parametrize(
    "document",
    [
        {"call": "pubsub.Publish"},
        {"call": "*", "status": "UNAVAILABLE", "skip": 0, "times": None, "seconds": 0},
        {
            "call": "bigquery.*",
            "status": "503",
            "reason": "backendError",
            "message": "",
            "times": 9,
        },
        *({"call": "a", "kind": kind, "seconds": 0.5} for kind in KINDS),
    ],
)
def test_a_document_of_a_fault_is_that_fault(document: dict[str, Any]) -> None:
    assert fault(document) == Fault(**document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "a fault is a JSON object"),
        (None, "a fault is a JSON object"),
        ({}, "a fault needs a call"),
        ({"call": ""}, "a fault needs a call"),
        ({"call": 1}, "call is a string, not 1"),
        ({"call": "a", "cal": 1, "b": 2}, "a fault has no b, cal: only call, kind"),
        ({"call": "a", "kind": "explode"}, "kind 'explode' is none of"),
        ({"call": "a", "kind": None}, "kind is a string"),
        ({"call": "a", "subject": None}, "subject is a string"),
        ({"call": "a", "times": 0}, "times is a whole number from 1 on, not 0"),
        ({"call": "a", "times": 1.5}, "times is a whole number"),
        ({"call": "a", "times": True}, "times is a whole number"),
        ({"call": "a", "skip": -1}, "skip is a whole number from 0 on"),
        ({"call": "a", "skip": None}, "skip is a whole number from 0 on"),
        ({"call": "a", "seconds": -0.1}, "seconds is a number from 0 on"),
        ({"call": "a", "seconds": "1"}, "seconds is a number from 0 on"),
        ({"call": "a", "seconds": float("nan")}, "seconds is a number from 0 on"),
        ({"call": "a", "seconds": float("inf")}, "seconds is a number from 0 on"),
        ({"call": "a", "status": "unavailable"}, "status is a gRPC error's name"),
        ({"call": "a", "status": "OK"}, "status is a gRPC error's name"),
        ({"call": "a", "status": "200"}, "status is a gRPC error's name"),
        ({"call": "a", "status": 503}, "status is a string, not 503"),
    ],
)
def test_a_document_that_is_no_fault_is_refused_in_words(document: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fault(document)


def test_a_withheld_permission_is_not_among_those_granted_until_all_is_cleared() -> None:
    faults = Faults()
    asked = ["a.read", "a.write", "b.read"]
    faults.withhold("a.write", "c.write")
    assert faults.granted(asked) == ["a.read", "b.read"]
    faults.clear()
    assert faults.granted(asked) == asked
