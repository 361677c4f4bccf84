"""Which lane a message goes by: who writes it, to which mailbox provider, on which part."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator

DEFAULT_IDENTITY: Final = "default"
OTHER_PROVIDER: Final = "other"
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9]{0,11}")  # what a variable of the environment can name


def _identity(name: str) -> str:
    if not _IDENTITY.fullmatch(name):
        raise ValueError(f"{name!r} is no identity: write 1 to 12 small letters and digits, a letter first")
    return name


IdentityName = Annotated[str, AfterValidator(_identity)]
_LANE: Final = re.compile(r"(?:(?P<identity>[^/#]+)/)?(?P<provider>[^/#]+)(?:#(?P<part>\d+))?")


@dataclass(frozen=True)
class LaneName:
    """Who writes to which mailbox provider, and on which part of a lane that is split.

    Written `gmail`, `news/gmail`, `gmail#3` or `news/gmail#3`: the default identity is left out, and part 0.
    """

    provider: str
    identity: str = DEFAULT_IDENTITY
    part: int = 0

    @classmethod
    @lru_cache(10_000)  # a message's lane is asked for often, and there are few
    def of(cls, text: str) -> "LaneName":
        """What a written name says; one that is not written so is a provider's."""
        found = _LANE.fullmatch(text)
        if found is None:
            return cls(text)
        return cls(found["provider"], found["identity"] or DEFAULT_IDENTITY, int(found["part"] or 0))

    def __str__(self) -> str:
        """Return the name as it is written."""
        identity = "" if self.identity == DEFAULT_IDENTITY else f"{self.identity}/"
        return f"{identity}{self.provider}{f'#{self.part}' if self.part else ''}"


@dataclass(frozen=True)
class Routes:
    """Numbers of identities, as rows have them, and parts of lanes, by identity/provider or provider."""

    identities: Mapping[IdentityName, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    default_parts: int = 1

    def lane(self, identity: str, provider: str, recipient_id: str) -> LaneName:
        """The lane of a message. A recipient stays on a part for as long as there are as many.

        A provider written like a lane, of another identity say, is none.
        """
        if "/" in provider or "#" in provider:
            provider = OTHER_PROVIDER
        whole = str(LaneName(provider, identity))
        parts = self.parts.get(whole) or self.parts.get(provider) or self.default_parts
        return LaneName(provider, identity, zlib.crc32(recipient_id.encode()) % parts)

    def number(self, identity: str) -> int:
        """The number of an identity; 0 is the default's."""
        return 0 if identity == DEFAULT_IDENTITY else self.identities[identity]

    def identity(self, number: int) -> str:
        """The identity of a number; the default one where none has it any more."""
        return next((name for name, each in self.identities.items() if each == number), DEFAULT_IDENTITY)
