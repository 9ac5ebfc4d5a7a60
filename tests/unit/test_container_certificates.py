from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from bridge.errors import ConfigurationError
from container.certificates import check_client_ca, check_revocations, check_server
from container.sources import Secret
from tests.support.certificates import Authority, Pair

AUTHORITY = Authority()


def certificate(text: str) -> Secret:
    return Secret("MQTT_SERVER_CERT_FILE", text)


def key(text: str) -> Secret:
    return Secret("MQTT_SERVER_KEY_SECRET", text)


def authorities(text: str) -> Secret:
    return Secret("MQTT_CLIENT_CA", text)


def revocations(text: str) -> Secret:
    return Secret("MQTT_CLIENT_CRL", text)


def refusal(check: Callable[[], None]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        check()
    assert "Remedy: " in str(refused.value)
    return str(refused.value)


def server_refusal(pair: Pair) -> str:
    return refusal(lambda: check_server(certificate(pair.pem), key(pair.key_pem)))


def test_a_certificate_with_its_key_is_good_with_its_chain_and_without() -> None:
    server = AUTHORITY.issue("server")
    check_server(certificate(server.pem), key(server.key_pem))
    check_server(certificate(server.pem + AUTHORITY.pem), key(server.key_pem))


def test_an_expired_certificate_is_refused_with_the_day() -> None:
    pair = AUTHORITY.issue("server", -2, -1)
    said = server_refusal(pair)
    day = f"{pair.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert said == f"MQTT_SERVER_CERT_FILE: expired on {day}. Remedy: renew it."


def test_a_certificate_of_tomorrow_is_refused() -> None:
    assert "is valid only from" in server_refusal(AUTHORITY.issue("server", 1, 2))


def test_another_certificates_key_is_refused() -> None:
    server, other = AUTHORITY.issue("server"), AUTHORITY.issue("other")
    said = refusal(lambda: check_server(certificate(server.pem), key(other.key_pem)))
    assert said.startswith(
        "MQTT_SERVER_KEY_SECRET: is not the key of the certificate in MQTT_SERVER_CERT_FILE."
    )


def test_a_key_with_a_pass_phrase_is_refused() -> None:
    server = AUTHORITY.issue("server")
    locked = server.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase")
    ).decode()
    said = refusal(lambda: check_server(certificate(server.pem), key(locked)))
    assert "is protected by a pass phrase" in said


@pytest.mark.parametrize(
    "text", ["s3cret", "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----", "é"]
)
def test_text_that_is_no_pem_is_refused_and_not_shown(text: str) -> None:
    server = AUTHORITY.issue("server")
    for said in (
        refusal(lambda: check_server(certificate(text), key(server.key_pem))),
        refusal(lambda: check_server(certificate(server.pem), key(text))),
        refusal(lambda: check_client_ca(authorities(text))),
        refusal(lambda: check_revocations(revocations(text), authorities(AUTHORITY.pem))),
    ):
        assert "in PEM form" in said
        assert "s3cret" not in said


def test_an_authority_is_good_also_beside_one_that_has_expired() -> None:
    check_client_ca(authorities(AUTHORITY.pem))
    check_client_ca(authorities(Authority("Old", until=-1).pem + AUTHORITY.pem))


def test_an_expired_authority_is_refused() -> None:
    old = Authority("Old", until=-1)
    assert "MQTT_CLIENT_CA: expired on" in refusal(lambda: check_client_ca(authorities(old.pem)))


def test_a_certificate_that_may_sign_nothing_is_no_authority() -> None:
    sensor = AUTHORITY.issue("MOR").pem
    said = refusal(lambda: check_client_ca(authorities(sensor)))
    assert "holds no certificate of an authority" in said


def test_revocations_of_the_authorities_are_good() -> None:
    second = Authority("Second")
    lists = AUTHORITY.revocations([AUTHORITY.issue("MOR")]) + second.revocations()
    check_revocations(revocations(lists), authorities(AUTHORITY.pem + second.pem))


def test_revocations_of_somebody_else_are_refused() -> None:
    foreign = Authority("Foreign").revocations()
    said = refusal(lambda: check_revocations(revocations(foreign), authorities(AUTHORITY.pem)))
    assert "is signed by none of the authorities in MQTT_CLIENT_CA" in said


def test_outdated_revocations_are_refused_before_they_shut_out_every_sensor() -> None:
    old = AUTHORITY.revocations(until=-1)
    said = refusal(lambda: check_revocations(revocations(old), authorities(AUTHORITY.pem)))
    assert "MQTT_CLIENT_CRL: is outdated since" in said
