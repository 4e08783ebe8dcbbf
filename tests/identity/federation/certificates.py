"""A certificate authority: TLS servers with it, and X.509-SVIDs."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
Extensions = Sequence[tuple[x509.ExtensionType, bool]]


class Authority:
    """One authority, of its own making or made by ``above``; its certificate ends ``ends`` from now."""

    def __init__(
        self,
        name: str = "authority",
        above: Authority | None = None,
        ends: datetime.timedelta = DAY,
        extensions: Extensions | None = None,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own: Extensions = (
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (usage(key_cert_sign=True, crl_sign=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
        )
        self.certificate = (above or self).sign(self.name, self.key, extensions or own, ends)

    def sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: Extensions, ends: datetime.timedelta = DAY
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + ends)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def svid(self, *ids: str, ends: datetime.timedelta = DAY, **changes: x509.ExtensionType | None) -> bytes:
        """An X.509-SVID (DER) that names these ids; a change to ``None`` leaves an extension out."""
        names = [x509.UniformResourceIdentifier(id) for id in ids]
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        parts: dict[str, x509.ExtensionType | None] = {
            "names": x509.SubjectAlternativeName(names) if names else None,
            "basic": x509.BasicConstraints(ca=False, path_length=None),
            "usage": usage(digital_signature=True),
            "purposes": x509.ExtendedKeyUsage(both),
            **changes,
        }
        extensions = [(part, name != "purposes") for name, part in parts.items() if part is not None]
        key = ec.generate_private_key(ec.SECP256R1())
        return self.sign(x509.Name([]), key, extensions, ends).public_bytes(Encoding.DER)

    def server(self, folder: Path, host: str = "localhost") -> ssl.SSLContext:
        """The context of a TLS server with this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: Extensions = (
            (x509.SubjectAlternativeName([x509.DNSName(host)]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        )
        certificate = self.sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), key, extensions)
        file = folder / f"{host}-{certificate.serial_number}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def usage(**yes: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    flags: Any = {name: yes.get(name, False) for name in names}
    return x509.KeyUsage(**flags)
