"""Keys that sign models: an Ed25519 pair in two PEM files, the private one for its owner alone."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sinks.key_files import KeyFileRefused, private_key, public_key
from sinks.registry import KeyExists, KeyRefused
from sinks.vault.keys import sync_folder


def fingerprint(key: Ed25519PublicKey) -> str:
    """16 hex digits that name a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_path(private: Path) -> Path:
    """Where the public key of a private one stands: beside it."""
    return private.with_name(f"{private.name}.pub")


def make_pair(private: Path) -> Ed25519PublicKey:
    """Make a key pair, durably, in two new files: `private`, which only its owner reads, and `public_path`.

    Raises
    ------
    KeyExists
        One of the files is there; both are left as they are.
    KeyRefused
        The folder cannot be written to.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(private, pem, 0o600)
    try:
        _write_new(public_path(private), public_pem, 0o644)
    except BaseException:
        with suppress(OSError):
            private.unlink()  # nothing was signed by it yet
        raise
    return key.public_key()


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs. Raises `KeyRefused`."""
    with _translated():
        key = private_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused(f"{path} holds a key of another kind; models are signed by Ed25519: make a new pair")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a key to be trusted. Raises `KeyRefused`."""
    with _translated():
        key = public_key(path)
    if not isinstance(key, Ed25519PublicKey):
        raise KeyRefused(
            f"{path} holds a key of another kind; models are signed by Ed25519: trust such a key"
        )
    return key


@contextmanager
def _translated() -> Iterator[None]:
    """What is wrong with a file is the registry's error, so that a worker goes on by its former champion."""
    try:
        yield
    except KeyFileRefused as error:
        raise KeyRefused(str(error)) from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():  # not where a file is in its folder's place
            raise KeyExists(
                f"{path} exists: a key is never overwritten; move it away, or name another"
            ) from None
        raise KeyRefused(f"{path} cannot be written: {error.strerror}; make its folder writable") from error
