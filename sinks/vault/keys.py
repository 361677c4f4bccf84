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
        except InvalidTag:
            raise WrongKey(
                "a contact does not open: the vault was changed from outside, or its key is another"
            ) from None


class MasterKey(Cipher):
    """The key that wraps all others. `id` names it without telling it."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.id = hashlib.sha256(b"opportune vault key id" + key).hexdigest()[:16]

    @classmethod
    def create(cls, path: Path) -> "MasterKey":
        """Make a key in a new file that only its owner reads. Raises `VaultExists`."""
        key = AESGCM.generate_key(8 * _KEY_BYTES)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise VaultExists(f"{path} exists: a key is never overwritten, its vault needs it") from None
        with os.fdopen(handle, "w") as file:
            file.write(_HEAD + base64.b64encode(key).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> "MasterKey":
        """Read a key file. Raises `KeyRefused`."""
        try:
            mode = path.stat().st_mode
            text = path.read_text()
        except OSError as error:
            raise KeyRefused(f"{path}: {error.strerror}; `opportune vault init` makes a key") from error
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
