"""Keys of the vault: one master key in a file, a data key for every recipient, wrapped by it. AES-256-GCM."""

import base64
import binascii
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sinks.vault import KeyRefused, VaultExists, WrongKey

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_HEAD: Final = "opportune-vault-key-1 "


class Cipher:
    """Seals and opens with one key; what is sealed is bound to a name, and opens under no other."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, name: str, plain: bytes) -> bytes:
        """A fresh nonce, then the ciphertext with its tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """Open what `seal` gave. Raises `WrongKey` for another key or name, or changed bytes."""
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):  # ValueError: cut so short that not even the nonce is whole
            raise WrongKey(
                "a contact does not open: the vault was changed from outside, or its key is another"
            ) from None


class MasterKey(Cipher):
    """The key that wraps all others. `id` names it without telling it."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._key = key
        self.id = hashlib.sha256(b"opportune vault key id" + key).hexdigest()[:16]

    @classmethod
    def generate(cls) -> "MasterKey":
        """A new key, in memory alone."""
        return cls(AESGCM.generate_key(8 * _KEY_BYTES))

    def save(self, path: Path) -> None:
        """Write the key, durably, to a new file that only its owner reads.

        Raises
        ------
        VaultExists
            There is a file; it is left as it is.
        KeyRefused
            The folder cannot be written to.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(_HEAD + base64.b64encode(self._key).decode() + "\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
        except FileExistsError:
            raise VaultExists(
                f"{path} exists: a key is never overwritten, its vault and backups need it; move it away, or "
                "set another vault_key"
            ) from None
        except OSError as error:
            raise KeyRefused(
                f"{path} cannot be written: {error.strerror}; make its folder writable"
            ) from error

    @classmethod
    def load(cls, path: Path) -> "MasterKey":
        """Read a key file. Raises `KeyRefused`."""
        try:
            mode = path.stat().st_mode
            text = path.read_text()
        except FileNotFoundError:
            raise KeyRefused(
                f"no master key at {path}; put the vault's key there, or set vault_key; only for a new vault "
                "does `opportune vault init` make one"
            ) from None
        except OSError as error:
            raise KeyRefused(f"{path} cannot be read: {error.strerror}; only its owner may") from error
        except UnicodeDecodeError as error:
            raise KeyRefused(f"{path} is no key file of a vault") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyRefused(f"{path} can be read by others than its owner; chmod 600 {path}")
        try:
            if not text.startswith(_HEAD):
                raise binascii.Error
            key = base64.b64decode(text.removeprefix(_HEAD).strip(), validate=True)
        except binascii.Error:
            raise KeyRefused(f"{path} is no key file of a vault") from None
        if len(key) != _KEY_BYTES:
            raise KeyRefused(f"{path} is cut short: a key has {_KEY_BYTES} bytes")
        return cls(key)


def new_data_key() -> bytes:
    """A key for one recipient."""
    return AESGCM.generate_key(8 * _KEY_BYTES)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
