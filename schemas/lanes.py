"""Lanes and mailbox providers as files: how fast messages may go to whom, and whose domains are whose."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from schemas.policy import Strict
from schemas.units import Duration, Milliseconds, PerSecond

OTHER_PROVIDER: Final = "other"
DEFAULT_IDENTITY: Final = "default"
_LANE: Final = re.compile(r"(?:(?P<identity>[^/#]+)/)?(?P<provider>[^/#]+)(?:#(?P<part>\d+))?")


@dataclass(frozen=True)
class LaneName:
    """Who writes to which mailbox provider, and on which part of a lane that is split.

    Written `gmail`, `news/gmail`, `gmail#3` or `news/gmail#3`: the default identity is left out.
    """

    provider: str
    identity: str = DEFAULT_IDENTITY
    part: int | None = None

    @classmethod
    def of(cls, text: str) -> "LaneName":
        """What a written name says; one that is not written so is a provider's."""
        found = _LANE.fullmatch(text)
        if found is None:
            return cls(text)
        part = found["part"]
        return cls(
            found["provider"], found["identity"] or DEFAULT_IDENTITY, None if part is None else int(part)
        )

    def __str__(self) -> str:
        """Return the name as it is written."""
        identity = "" if self.identity == DEFAULT_IDENTITY else f"{self.identity}/"
        return f"{identity}{self.provider}{'' if self.part is None else f'#{self.part}'}"


class WarmUp(Strict):
    """How a sender becomes known to a provider: so many a day, more after each day that went well."""

    first_day: int = Field(strict=True, ge=1, description="Messages on the first day on which any go.")
    growth: float = Field(1.4, gt=1, le=2, description="How many times as many after a day without trouble.")


class Lane(Strict):
    """How fast messages may go to one mailbox provider, and over how many connections."""

    rate: PerSecond
    burst: int | None = Field(
        None, ge=1, description="Messages that may go at once after a rest; default: a tenth of a second's."
    )
    connections: int = Field(4, ge=1, description="Connections at once.")
    messages_per_connection: int = Field(100, ge=1, description="Then SMTP makes a fresh connection.")
    expiry: Duration = Field(
        Milliseconds.parse("24 h"), description="Longest wait in the lane; a campaign's own may be shorter."
    )
    deferred_above: float = Field(
        0.05, gt=0, lt=1, description="Share of deferrals above which the lane slows down."
    )
    slowest: float = Field(0.05, gt=0, le=1, description="Share of the rate below which it never goes.")
    reserve: float = Field(
        0.01, ge=0, le=0.5, description="Share of the rate that only transactional messages may use."
    )
    warm_up: WarmUp | None = None


class Lanes(Strict):
    """Pacing of every lane: named ones, and what holds for all others."""

    default: Lane
    lane: dict[str, Lane] = Field(default_factory=dict)

    def of(self, name: str) -> Lane:
        """The lane of this name."""
        return self.lane.get(name, self.default)


Domain = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")]
ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,11}$")]


class Providers(Strict):
    """Which mailbox provider a domain belongs to."""

    provider: dict[ProviderName, tuple[Domain, ...]]

    @model_validator(mode="after")
    def _once(self) -> Self:
        listed = [domain for domains in self.provider.values() for domain in domains]
        twice = sorted({domain for domain in listed if listed.count(domain) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice; a domain has one provider")
        return self

    @property
    def names(self) -> list[str]:
        """All providers, and the one for domains of none of them."""
        return [*self.provider, OTHER_PROVIDER]

    @cached_property
    def _of(self) -> dict[str, str]:
        return {domain: name for name, domains in self.provider.items() for domain in domains}

    def of(self, domain: str) -> str:
        """The provider of a domain; `other` where none is known."""
        return self._of.get(domain.lower(), OTHER_PROVIDER)
