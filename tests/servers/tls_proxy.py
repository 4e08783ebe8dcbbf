"""A proxy that ends TLS on loopback and passes the certificates of clients on, and an authority that makes them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def client_cert(der: bytes) -> str:
    """The value of ``Client-Cert`` (RFC 9440)."""
    return f":{base64.b64encode(der).decode()}:"


def pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


def envoy(der: bytes, *more: str) -> str:
    """The value of ``X-Forwarded-Client-Cert`` as Envoy writes it with ``cert: true``."""
    escaped = quote(pem(der), safe="")
    return ";".join([f"Hash={hashlib.sha256(der).hexdigest()}", f'Cert="{escaped}"', *more])


def thumbprint(der: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


class Maker:
    """A certificate authority with files for the ``ssl`` module in ``folder``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.certificate = self._sign(self._key.public_key(), self._name, None)
        self.der = self.certificate.public_bytes(Encoding.DER)
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def make(self, name: str, uri: str = "") -> tuple[Path, bytes]:
        """The file with the key and the certificate of a client or server, and the certificate (DER)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
        if not uri:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = self._sign(key.public_key(), subject, x509.SubjectAlternativeName(names))
        file = self._folder / f"{name}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        return file, certificate.public_bytes(Encoding.DER)

    def _sign(
        self, public: ec.EllipticCurvePublicKey, subject: x509.Name, names: x509.SubjectAlternativeName | None
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        authority = names is None
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(authority), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is None:
            made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        else:
            both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            made = made.add_extension(names, critical=False).add_extension(x509.ExtendedKeyUsage(both), critical=False)
        return made.sign(self._key, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


class TlsProxy:
    """``async with TlsProxy(maker, port)``: passes what comes by TLS on to ``port``, with the client's certificate in
    ``header`` as ``write`` writes it. What clients send under that name is removed, unless the proxy is ``careless``.
    """

    def __init__(
        self,
        maker: Maker,
        port: int,
        header: str = "Client-Cert",
        write: Callable[[bytes], str] = client_cert,
        careless: bool = False,
    ) -> None:
        self._maker = maker
        self._upstream = port
        self._header = header
        self._write = write
        self._careless = careless
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._maker.file)
        context.load_cert_chain(self._maker.make("proxy")[0])
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    def client(self, file: Path | None = None) -> ssl.SSLContext:
        """What a client connects with that has this certificate, or none."""
        context = ssl.create_default_context(cafile=self._maker.file)
        if file is not None:
            context.load_cert_chain(file)
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        own = f"{self._header}: {self._write(der)}\r\n".encode() if der else b""
        back, onward = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open |= {writer, onward}
        answers = asyncio.create_task(_pump(back, writer))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = [each for each in head.split(b"\r\n")[:-2] if self._careless or not self._is_own(each)]
                size = next((int(each[15:]) for each in lines if each.lower().startswith(b"content-length:")), 0)
                onward.write(b"\r\n".join(lines) + b"\r\n" + own + b"\r\n" + await reader.readexactly(size))
                await onward.drain()
        answers.cancel()
        for each in (writer, onward):
            each.close()
            self._open.discard(each)

    def _is_own(self, line: bytes) -> bool:
        return line.partition(b":")[0].strip().lower() == self._header.lower().encode()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
