"""The contact vault: who is behind a recipient id. The only place that knows an address.

VaultError
+-- VaultMissing   no vault there: `opportune vault init`
+-- KeyRefused     the master key file is missing, readable by others, or no key: mend the file
+-- WrongKey       a key, but not the one that this vault was made with: find the right file
+-- VaultExists    there is one already: nothing is overwritten
+-- VaultUnusable  SQLite says no: the message has its words
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class VaultError(RuntimeError):
    """The vault cannot do what was asked; the message names the remedy."""


class VaultMissing(VaultError):
    """There is no vault at this place."""


class VaultExists(VaultError):
    """There is something at this place already."""


class KeyRefused(VaultError):
    """The master key file is missing, too open, or holds no key."""


class WrongKey(VaultError):
    """The master key opens another vault, not this one."""


class VaultUnusable(VaultError):
    """The database is locked, damaged or not to be written."""


@dataclass(frozen=True)
class Contact:
    """A recipient's address, and the attributes that templates may use. Neither is in the repr."""

    recipient_id: str
    address: str = field(repr=False)
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False)


class Vault(Protocol):
    """Contacts by recipient id, encrypted for each recipient. Thread-safe."""

    def put_many(self, contacts: Iterable[Contact]) -> None:
        """Write contacts, new or known, all of them or none. Raises `VaultError`."""
        ...

    def get_many(self, recipient_ids: Sequence[str]) -> dict[str, Contact]:
        """Return those that are there. Raises `VaultError`."""
        ...

    def erase(self, recipient_ids: Sequence[str]) -> int:
        """Destroy the keys and contents of these; returns how many were there. Raises `VaultError`."""
        ...

    def count(self) -> int:
        """How many contacts there are. Raises `VaultError`."""
        ...
