"""Which MQTT version is tried when a broker refuses, hangs up or lets the bridge in."""

from __future__ import annotations

from bridge.mqtt_version import SILENT_ENDS, Version


def versions(version: Version, *ends: tuple[bool, bool]) -> list[str]:
    """What is spoken after each of these ends: (answered, refused)."""
    spoken = []
    for answered, refused in ends:
        version.ended(answered, refused)
        spoken.append(str(version))
    return spoken


SILENT, PLAIN, REFUSED = (False, False), (True, False), (True, True)


def test_a_version_that_is_refused_is_left_at_once_and_for_good() -> None:
    assert versions(Version(), REFUSED, PLAIN, PLAIN) == ["3.1.1"] * 3


def test_silence_changes_it_and_changes_it_back() -> None:
    silent = [SILENT] * (2 * SILENT_ENDS)
    assert versions(Version(), *silent) == ["5"] * 2 + ["3.1.1"] * 3 + ["5"]


def test_an_older_version_tried_because_of_silence_is_left_with_its_connection() -> None:
    version = Version()
    versions(version, *[SILENT] * SILENT_ENDS)
    version.accepted()
    assert versions(version, PLAIN) == ["5"]


def test_silence_says_nothing_once_5_was_accepted() -> None:
    version = Version()
    version.accepted()
    assert versions(version, *[SILENT] * (2 * SILENT_ENDS)) == ["5"] * (2 * SILENT_ENDS)


def test_an_answer_begins_the_count_of_silent_ends_anew() -> None:
    ends = [SILENT] * (SILENT_ENDS - 1) + [PLAIN] + [SILENT] * (SILENT_ENDS - 1)
    assert versions(Version(), *ends) == ["5"] * len(ends)


def test_a_refused_5_survives_silence_of_the_older_one() -> None:
    assert versions(Version(), REFUSED, SILENT, SILENT, PLAIN, SILENT) == ["3.1.1"] * 5
