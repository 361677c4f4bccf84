"""The model registry: trained send-time models, each signed by who trained it, kept unchanged under its id.

RegistryError
+-- ArtefactRefused   these bytes are no model to be used: `reason` says what failed, the message what to do
+-- VersionUnknown    no version has this id, or several begin so: the message lists the near ones
+-- VersionExists     this id is there with other bytes: nothing is overwritten
+-- KeyRefused        a key file is missing, too open, cannot be written, or holds another key: mend the file
+-- KeyExists         there is a key file already: nothing is overwritten
+-- RegistryUnusable  the folder is not there, or may not be read or written
"""

from typing import Literal

Reason = Literal[
    "card",  # card.json is not the canonical JSON of a card
    "kind",  # the card is of another kind of model
    "key",  # no key that is trusted signed it
    "signature",  # the signature is none of this card
    "digest",  # model.npz is not the one that the card names
    "schema",  # the arrays are laid out as this release does not read them
    "arrays",  # model.npz is more, or less, than plain arrays
    "folder",  # a version's folder has another's name, or a file in it is missing or too large
]


class RegistryError(RuntimeError):
    """The registry cannot do what was asked; the message names the remedy."""


class ArtefactRefused(RegistryError):
    """An artefact is not what it has to be, and none of it may be used."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class VersionUnknown(RegistryError):
    """An id names no version, or more than one."""


class VersionExists(RegistryError):
    """There is a version of this id already, of other bytes."""


class KeyRefused(RegistryError):
    """A key file is missing, too open, cannot be written, or holds no key of this kind."""


class KeyExists(RegistryError):
    """There is a key file at this place already."""


class RegistryUnusable(RegistryError):
    """The registry's folder is not there, or may not be read or written."""
