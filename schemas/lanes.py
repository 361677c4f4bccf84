"""Lanes and mailbox providers as files: how fast messages may go to whom, and whose domains are whose."""

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from schemas.policy import Strict, meant
from schemas.routes import DEFAULT_IDENTITY, OTHER_PROVIDER, IdentityName, LaneName, Routes
from schemas.units import Duration, Milliseconds, PerSecond, Rate

_MOST_PARTS: Final = 64


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
    parts: int = Field(
        1, ge=1, le=_MOST_PARTS, description="Shares of the rate, each paced where its partition is."
    )

    @model_validator(mode="after")
    def _each_part_has_some(self) -> Self:
        least = min(self.connections, self.warm_up.first_day if self.warm_up else self.connections)
        if self.parts > least:
            raise ValueError(
                f"parts: at most {least}, so that each has a connection and a message a day: raise "
                "connections, or warm_up.first_day"
            )
        return self

    def part(self) -> "Lane":
        """What one of its parts may do."""
        if self.parts == 1:
            return self
        warm_up = self.warm_up and WarmUp(
            first_day=self.warm_up.first_day // self.parts, growth=self.warm_up.growth
        )
        burst = self.burst and max(1, self.burst // self.parts)
        connections = self.connections // self.parts
        return self.model_copy(
            update={
                "rate": Rate(self.rate / self.parts),
                "burst": burst,
                "connections": connections,
                "warm_up": warm_up,
            }
        )


class Lanes(Strict):
    """Pacing of every lane: named ones, and what holds for all others; and who may have lanes."""

    default: Lane
    lane: dict[str, Lane] = Field(default_factory=dict)
    identities: dict[IdentityName, Annotated[int, Field(ge=1, le=255)]] = Field(
        default_factory=dict, description="Number of each sender beside the default one; kept for ever."
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if DEFAULT_IDENTITY in self.identities:
            raise ValueError(f"identities: {DEFAULT_IDENTITY} is there without being named: leave it out")
        of: dict[int, str] = {}
        for name, number in self.identities.items():
            if of.setdefault(number, name) != name:
                raise ValueError(
                    f"identities.{name}: {number} is that of {of[number]} too: each has its own for ever"
                )
        for written in self.lane:
            lane = LaneName.of(written)
            if lane.identity not in (DEFAULT_IDENTITY, *self.identities):
                asked = meant(lane.identity, self.identities)
                raise ValueError(
                    f"lane.{written}: no identity is called {lane.identity}{asked}: add it to identities"
                )
            if lane.part:
                raise ValueError(f"lane.{written}: write {replace(lane, part=0)}, and how many parts it has")
            if str(lane) != written:
                raise ValueError(f"lane.{written}: write {lane}")
        return self

    def of(self, name: str) -> Lane:
        """What a lane may do, of identity and provider, or of the provider, or of all: its part of that.

        Each identity has the rate to itself. What waits in a part that is no more hardly goes.
        """
        lane = LaneName.of(name)
        unsplit = replace(lane, part=0) if lane.part else lane
        whole = self.lane.get(str(unsplit)) or self.lane.get(lane.provider) or self.default
        part = whole.part()
        if lane.part < whole.parts:
            return part
        left = {"rate": Rate(part.rate * part.slowest / _MOST_PARTS), "connections": 1, "burst": 1}
        return part.model_copy(update=left)

    @cached_property
    def routes(self) -> Routes:
        """Which lane messages go by."""
        parts, default = dict[str, int](), self.default.parts
        for name in sorted(self.lane, key=lambda name: ("/" in name, name)):  # providers first
            otherwise = parts.get(LaneName.of(name).provider, default)
            if self.lane[name].parts != otherwise:  # what tells nothing must not change the policy's hash
                parts[name] = self.lane[name].parts
        return Routes(dict(sorted(self.identities.items())), parts, default)


Domain = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")]
ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,11}$")]


class Providers(Strict):
    """Which mailbox provider a domain belongs to; one that is not listed, by the host of its mail (`mx`)."""

    provider: dict[ProviderName, tuple[Domain, ...]]
    mx: dict[Domain, ProviderName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = sorted({*self.mx.values()} - self.provider.keys())
        if unknown:
            raise ValueError(f"mx names {', '.join(unknown)}, which is no provider here")
        return self

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

    def of_host(self, host: str) -> str:
        """The provider whose host takes mail, by the longest domain above it; `other` where none is known."""
        labels = host.lower().rstrip(".").split(".")
        above = (".".join(labels[start:]) for start in range(len(labels)))
        return next((self.mx[domain] for domain in above if domain in self.mx), OTHER_PROVIDER)
