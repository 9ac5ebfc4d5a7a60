from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from container.sources import Secret
from container.users import hashed, parse, password_file
from tests.support.security import PASSWORD, SITE, SPACED_SITE
from tests.support.security import password_file as made_by_mosquitto

HASH = hashed("a password")


def parsed(*lines: str) -> dict[str, str]:
    return parse(Secret("MQTT_USERS_FILE", "\n".join(lines)))


def refusal(*lines: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        parsed(*lines)
    assert str(refused.value).startswith("MQTT_USERS_FILE: ")
    assert "Remedy: give each site one line that `mosquitto_passwd` made" in str(refused.value)
    return str(refused.value)


def test_what_mosquitto_passwd_wrote_is_taken_as_it_is(tmp_path: Path) -> None:
    text = made_by_mosquitto(tmp_path / "users")
    users = parse(Secret("MQTT_USERS", text))
    assert list(users) == [SITE, SPACED_SITE]
    assert password_file(users) == text


def test_the_older_kind_of_hash_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.touch()
    subprocess.run(["mosquitto_passwd", "-H", "sha512", "-b", path, SITE, PASSWORD], check=True)
    assert list(parse(Secret("MQTT_USERS", path.read_text()))) == [SITE]


def test_a_hash_of_ones_own_has_the_form_of_mosquittos() -> None:
    assert parsed(f"MOR:{HASH}") == {"MOR": HASH}
    assert hashed("a password") != HASH  # another salt


def test_comments_and_empty_lines_say_nothing() -> None:
    assert list(parsed("# of today", "", f"MOR:{HASH}", "  ")) == ["MOR"]


@pytest.mark.parametrize("lines", [("",), ("# nobody",)])
def test_a_file_without_users_is_refused(lines: tuple[str, ...]) -> None:
    assert "there is no user in it" in refusal(*lines)


@pytest.mark.parametrize("after", [":s3cret", ":", "", ":$7$101$s3cret", f":{HASH}s3cret"])
def test_a_password_in_plain_text_is_refused_and_not_shown(after: str) -> None:
    said = refusal(f"MOR{after}")
    assert "line 1 has no hash of mosquitto_passwd" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "name", ["", "a+b", "#a"[1:] + "#", "a/b", "tab\tinside", "x" * 129, " MOR"]
)
def test_a_name_that_is_no_sites_or_that_mosquitto_does_not_take_is_refused(name: str) -> None:
    assert "line 2 does not begin with a site's name" in refusal(f"MOR:{HASH}", f"{name}:{HASH}")


def test_a_name_that_comes_twice_is_refused() -> None:
    assert "line 3 repeats the name" in refusal(f"A:{HASH}", f"B:{HASH}", f"A:{HASH}")


@pytest.mark.parametrize("name", ["fcts-bridge", "fcts-bridge-0123"])
def test_the_bridges_names_are_its_own(name: str) -> None:
    assert "line 1 takes a name of the bridge's own" in refusal(f"{name}:{HASH}")


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = refusal("A:plain", f"B:{HASH}", f"B:{HASH}")
    assert "line 1 has no hash" in said
    assert "line 3 repeats" in said
