"""Whether certificates and keys will work, found out before a broker starts with them.

Each function raises ConfigurationError, which shows no part of a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from bridge.errors import ConfigurationError
from container.sources import Secret

T = TypeVar("T")
_CRL = re.compile(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def check_server(certificate: Secret, key: Secret) -> None:
    """The certificate (its chain may follow it) is valid now, and the key is its."""
    leaf = _certificates(certificate)[0]
    _check_dates(certificate, leaf)
    if _public(leaf) != _public_of_key(key):
        raise _refused(
            key,
            f"is not the key of the certificate in {certificate.variable}",
            "set the two that belong together, the server's certificate first in its file",
        )


def check_client_ca(authorities: Secret) -> None:
    """At least one of the certificates is a valid authority now."""
    found = _certificates(authorities)
    if not any(_is_authority(one) for one in found):
        raise _refused(
            authorities,
            "holds no certificate of an authority",
            "set the certificate of the authority that signs the sensors' certificates",
        )
    if not any(_is_current(one) for one in found):
        _check_dates(authorities, found[0])


def check_revocations(revocations: Secret, authorities: Secret) -> None:
    """Each list is signed by one of the authorities, and not outdated: else Mosquitto would refuse
    every sensor."""
    signers = _certificates(authorities)
    lists = [
        _parsed(revocations, x509.load_pem_x509_crl, text.encode())
        for text in _CRL.findall(revocations.text)
    ]
    if not lists:
        raise _no_pem(revocations, "revocation list")
    for found in lists:
        if not any(_signed(found, signer) for signer in signers):
            raise _refused(
                revocations,
                f"is signed by none of the authorities in {authorities.variable}",
                "set the authority's own list",
            )
        if found.next_update_utc is not None and found.next_update_utc <= _now():
            raise _refused(
                revocations,
                f"is outdated since {found.next_update_utc:%Y-%m-%d %H:%M} UTC",
                "have the authority make a new list",
            )


def _certificates(secret: Secret) -> Sequence[x509.Certificate]:
    return _parsed(secret, x509.load_pem_x509_certificates, secret.text.encode())


def _parsed(secret: Secret, parse: Callable[[bytes], T], text: bytes) -> T:
    try:
        return parse(text)
    except ValueError:
        raise _no_pem(secret, "certificate or list") from None


def _public_of_key(key: Secret) -> bytes:
    try:
        loaded = load_pem_private_key(key.text.encode(), password=None)
    except TypeError:
        raise _refused(key, "is protected by a pass phrase", "set the key without one") from None
    except ValueError:
        raise _no_pem(key, "private key") from None
    return loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_dates(secret: Secret, certificate: x509.Certificate) -> None:
    if certificate.not_valid_after_utc <= _now():
        raise _refused(secret, f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}", "renew it")
    if certificate.not_valid_before_utc > _now():
        raise _refused(
            secret,
            f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
            "set one that is valid now, or correct the clock",
        )


def _is_current(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_before_utc <= _now() < certificate.not_valid_after_utc


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return True  # from before there was this extension
    return bool(constraints.value.ca)


def _signed(found: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    try:
        return found.is_signature_valid(signer.public_key())  # type: ignore[arg-type]
    except (InvalidSignature, TypeError, ValueError):
        return False


def _no_pem(secret: Secret, what: str) -> ConfigurationError:
    return _refused(secret, f"holds no {what} in PEM form", f"set the {what} as PEM text")


def _refused(secret: Secret, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{secret.variable}: {problem}. Remedy: {remedy}.")


def _now() -> datetime:
    return datetime.now(UTC)
