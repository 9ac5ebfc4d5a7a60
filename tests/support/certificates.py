"""An authority that signs certificates for a test, good ones and bad ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
Signed = x509.Certificate | x509.CertificateRevocationList


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def pem(signed: Signed) -> str:
    return signed.public_bytes(Encoding.PEM).decode()


class Authority:
    """Signs for as long as the test lasts. Dates are days from now."""

    def __init__(self, name: str = "Test CA", until: int = 2) -> None:
        self.pair = self._sign(name, -2, until, authority=True)

    @property
    def pem(self) -> str:
        return self.pair.pem

    def issue(self, name: str, since: int = -1, until: int = 1) -> Pair:
        """For a server on this machine or a client."""
        return self._sign(name, since, until, signer=self.pair)

    def revocations(self, revoked: Sequence[Pair] = (), until: int = 1) -> str:
        """A list of what is revoked, as PEM text."""
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.pair.certificate.subject)
            .last_update(_day(-2))
            .next_update(_day(until))
        )
        for pair in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(pair.certificate.serial_number)
            made = made.add_revoked_certificate(entry.revocation_date(_day(-1)).build())
        return pem(made.sign(self.pair.key, hashes.SHA256()))

    def _sign(
        self,
        name: str,
        since: int,
        until: int,
        signer: Pair | None = None,
        authority: bool = False,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.certificate.subject if signer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_day(since))
            .not_valid_after(_day(until))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        return Pair(made.sign(signer.key if signer else key, hashes.SHA256()), key)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _day(days: int) -> datetime:
    return datetime.now(UTC) + days * DAY
