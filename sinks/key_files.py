"""Keys in PEM files: read, or refused with the remedy. A private one is for its owner alone."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key


class KeyFileRefused(RuntimeError):
    """A key file is missing, too open, or holds no key that will do; the message names the remedy."""


def private_key(path: Path) -> PrivateKeyTypes:
    """Read a private key. Raises `KeyFileRefused`, also where others than the owner may use the file."""
    mode, pem = _read(path)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileRefused(f"{path} can be read by others than its owner; chmod 600 {path}")
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise KeyFileRefused(f"{path} is encrypted; put the key there without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileRefused(f"{path} holds no private key in PEM; name the file that signs") from None


def public_key(path: Path) -> PublicKeyTypes:
    """Read a public key. Raises `KeyFileRefused`."""
    _, pem = _read(path)
    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileRefused(f"{path} holds no public key in PEM; name the one that ends in .pub") from None


def _read(path: Path) -> tuple[int, bytes]:
    """The file's mode and content."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mode, file.read()
    except FileNotFoundError:
        raise KeyFileRefused(f"no key at {path}; put it there, or name the file where it is") from None
    except OSError as error:
        raise KeyFileRefused(f"{path} cannot be read: {error.strerror}; let who runs this read it") from error
