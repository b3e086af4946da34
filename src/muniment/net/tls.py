"""TLS 1.3 with the server's key pinned to its NodeId; no certificate authority has a say.

A node's certificate is self-signed with its own Ed25519 key and carries nothing but that key.  The client
skips chain verification and compares the key's hash with the NodeId instead.  That is sound because in
TLS 1.3 the server signs the handshake with the certificate's key (CertificateVerify, RFC 8446 section 4.4.3),
and OpenSSL checks that signature whatever the verification mode: who has not got the key cannot finish.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from muniment.crypto.identity import Identity, node_id
from muniment.errors import PinMismatch
from muniment.ids import NodeId

_SERVER_NAME = "node.muniment.invalid"


def certificate(identity: Identity) -> bytes:
    """A self-signed certificate of the identity's key, in PEM; its dates mean nothing."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _SERVER_NAME)])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(identity.private_key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2119, 12, 31, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_SERVER_NAME)]), critical=False)
        .sign(identity.private_key, None)
    )
    return built.public_bytes(Encoding.PEM)


def server_files(identity: Identity, folder: Path) -> tuple[Path, Path]:
    """Write certificate and key below `folder` (mode 0600) for a server that wants paths.

    Returns: their paths, certificate first.
    """
    key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    paths = folder / "tls-certificate.pem", folder / "tls-key.pem"
    for path, content in zip(paths, (certificate(identity), key), strict=True):
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    return paths


@lru_cache(maxsize=1)
def client_context() -> ssl.SSLContext:
    """The client's settings: TLS 1.3 only; who is there is decided by `check_pin`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_pin(connection: ssl.SSLSocket, node: NodeId, address: str) -> None:
    """After the handshake and before the first request byte: is this the node?

    Raises: PinMismatch: the peer's key is not the one that `node` names.
    """
    try:
        key = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").public_key()
    except (ValueError, UnsupportedAlgorithm):  # OpenSSL takes certificates that this parser does not
        key = None
    got = node_id(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey) else NodeId(bytes(32))
    if got != node:
        raise PinMismatch(address=address, expected=node, got=got)
