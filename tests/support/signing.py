"""Keys that sign mail, and a verifier that is not ours: dkimpy, with DNS of a test's own."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sinks.transports.dkim import Key, Signer

DOMAIN = "opportune.example"
SELECTOR = "opportune"
RSA = Signer(generate_private_key(65537, 2048), DOMAIN, SELECTOR)
ED25519 = Signer(Ed25519PrivateKey.from_private_bytes(b"d" * 32), DOMAIN, SELECTOR)
SIGNERS = (RSA, ED25519)


def record(key: Key) -> str:
    """What DNS has to hold for a key."""
    public = key.public_key()
    if isinstance(key, Ed25519PrivateKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={b64encode(raw).decode()}"
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={b64encode(der).decode()}"


def verifies(content: bytes, published: str, domain: str = DOMAIN) -> bool:
    """Whether the signature holds, where DNS has this record and no other."""
    place = f"{SELECTOR}._domainkey.{domain}."

    def answer(name: bytes, timeout: int) -> bytes | None:
        return published.encode() if name.decode() == place else None

    return bool(dkim.verify(content, dnsfunc=answer))


def write_key(path: Path, key: Key) -> None:
    """Write a key as its owner should keep it."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
