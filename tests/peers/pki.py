"""A private CA of a test's own, and files of certificates and keys that are replaced while Envoy runs."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

LOCAL = ("localhost", "127.0.0.1")
MONTH = datetime.timedelta(days=30)


class Authority:
    """A CA. It issues certificates, for `localhost` and 127.0.0.1 unless other names are given."""

    def __init__(self, name: str = "private CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key.public_key())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, path: Path) -> Path:
        """Writes the CA's own certificate."""
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        directory: Path,
        name: str,
        *,
        names: Sequence[str] = LOCAL,
        life: datetime.timedelta = MONTH,
        with_rsa: bool = False,
    ) -> tuple[Path, Path]:
        """Writes a certificate with this common name and its key into `directory`, and returns their paths."""
        directory.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(65537, 2048) if with_rsa else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), names, life)
        paths = directory / "tls.crt", directory / "tls.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        return paths

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        names: Sequence[str] = (),
        life: datetime.timedelta = MONTH,
    ) -> x509.Certificate:
        """A certificate for these names; one without names is that of the CA."""
        now = datetime.datetime.now(datetime.UTC)
        is_ca = not names
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(own, critical=False)
            .add_extension(issuer, critical=False)
        )
        if not is_ca:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(general, names)), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def general(name: str) -> x509.GeneralName:
    is_address = name.replace(".", "").isdecimal()
    return x509.IPAddress(IPv4Address(name)) if is_address else x509.DNSName(name)
