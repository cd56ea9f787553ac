"""How a client that insists on TLS and a host's name gets to a server on 127.0.0.1.

A proxy, for the client's `HTTPS_PROXY`, opens a tunnel for one host and refuses every other. The
server at its end shows a certificate for that host, signed by an authority that exists for as long
as the server and that the client trusts by `SSL_CERT_FILE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=2)  # chosen: of the certificates, longer than any test
_CHUNK = 65_536  # chosen: bytes that pass a tunnel at once


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """With every extension that a strict client asks for (RFC 5280, section 4.2.1)."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority, now = subject == issuer, datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False)  # fmt: skip
    usage |= {"digital_signature": True, "key_cert_sign": authority, "crl_sign": authority}
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issued_by, critical=False)
    )
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName(subject)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def certify(host: str, folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A new authority's certificate, in `folder`, and a server's side of TLS that it vouches for.

    No key outlives this process: the authority's is never written, the server's only until it is
    read.
    """
    own, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    name = "Loopback test authority"
    authority = folder / "authority.pem"
    authority.write_bytes(_certificate(name, own, name, own).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = folder / "server.pem"  # `ssl` reads keys from files only
    chain.write_bytes(secret + _certificate(host, key, name, own).public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    chain.unlink()
    return authority, context


_PATIENCE_S = 2.0  # chosen: at the end, for connections to close


class Proxy:
    """Opens tunnels to one server on 127.0.0.1, which its clients know by another address.

    Parameters
    ----------
    address : what a client may ask for, e.g. "api.telegram.org:443"
    server_port : where its tunnel ends
    refused : gets the address of every other request
    """

    def __init__(self, address: str, server_port: int, refused: list[str]) -> None:
        self._address, self._server_port, self._refused = address, server_port, refused
        self._tunnels: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[int]:
        """Serve inside `async with`, which gives the port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for tunnel in self._tunnels:
                tunnel.cancel()
            if self._tunnels:
                await asyncio.wait(self._tunnels, timeout=_PATIENCE_S)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = asyncio.create_task(self._attend(reader, writer))
        self._tunnels.add(tunnel)
        tunnel.add_done_callback(self._tunnels.discard)
        tunnel.add_done_callback(lambda _: writer.close())  # one that was cancelled unbegun

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                method, target = _asked(await reader.readuntil(b"\r\n\r\n"))
                if (method, target) == ("CONNECT", self._address):
                    await self._join(reader, writer)
                else:
                    self._refused.append(target)
                    writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
            finally:
                await _close(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes both ways until either side ends."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ways = {
            asyncio.create_task(_carry(reader, server_writer)),
            asyncio.create_task(_carry(server_reader, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(server_writer)


def _asked(head: bytes) -> tuple[str, str]:
    """Method and host of a request to a proxy, nothing of a path, which may hold a secret."""
    method, target, *_ = [*head.decode("latin-1").split(), "", ""]
    return method, urlsplit(target).netloc or target.partition("/")[0]


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
