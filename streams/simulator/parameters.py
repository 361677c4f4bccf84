"""What the simulator assumes: numbers, each with its source, in one file."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import Field

from schemas.policy import Strict


class Parameter(Strict):
    """A number, and where it is from."""

    value: float = Field(ge=0)
    source: str = Field(min_length=1)


class SenderParameters(Strict):
    """What is to be sent: by recipient and day, how much of it cannot wait, and how it clusters."""

    messages_a_day: Parameter
    transactional: Parameter
    expiry_h: Parameter
    burst_share: Parameter
    rate_above_mean: Parameter


class ProviderParameters(Strict):
    """One mailbox provider: how much it takes, and by what it judges."""

    share: Parameter
    first_hourly: Parameter
    growth: Parameter
    usual_days: Parameter
    complaints: Parameter
    complaints_bad: Parameter
    unknown: Parameter
    unknown_bad: Parameter
    clicks: Parameter
    pressed_bad: Parameter
    memory_days: Parameter
    greylisted: Parameter
    storms: Parameter
    storm_min: Parameter

    def values(self) -> dict[str, float]:
        """The numbers by name."""
        return {name: float(getattr(self, name).value) for name in type(self).model_fields}


class ServerParameters(Strict):
    """What only SMTP servers have, see `streams.simulator.servers`; no part of the sweep."""

    connections: Parameter
    slow: Parameter
    slow_s: Parameter
    half_open: Parameter


class RecipientParameters(Strict):
    """What recipients do that providers do not judge by, see `streams.simulator.people`; as the servers'."""

    scanned: Parameter
    unsubscribes: Parameter
    bounced_later: Parameter


class Parameters(Strict):
    """All of them."""

    sender: SenderParameters
    server: ServerParameters
    recipient: RecipientParameters
    provider: dict[str, ProviderParameters]

    @classmethod
    def assumed(cls) -> Self:
        """Read `parameters.toml`, which is beside this file."""
        return cls.model_validate(tomllib.loads(Path(__file__).with_name("parameters.toml").read_text()))

    def names(self) -> Iterator[tuple[str, str]]:
        """Where each number of the sweep stands: in `sender` or a provider, by its name there."""
        for name in SenderParameters.model_fields:
            yield "sender", name
        for provider in self.provider:
            for name in ProviderParameters.model_fields:
                yield provider, name

    def changes(self) -> list[tuple[str, str, float]]:
        """Each number halved and raised by half, but for zeros: where it stands, its name, the factor."""
        return [
            (*each, factor) for each in self.names() if self._number(*each).value for factor in (0.5, 1.5)
        ]

    def aside(self, where: str, name: str) -> bool:
        """Whether a number is held aside: every second one is, in the order in which they stand."""
        return [*self.names()].index((where, name)) % 2 == 1

    def touched(self, where: str) -> list[str]:
        """The providers that a number concerns, by where it stands."""
        return [*self.provider] if where == "sender" else [where]

    def scaled(self, where: str, name: str, factor: float) -> "Parameters":
        """The same but for one number."""
        of, number = self._of(where), self._number(where, name)
        changed = of.model_copy(update={name: number.model_copy(update={"value": number.value * factor})})
        if where in self.provider:
            return self.model_copy(update={"provider": self.provider | {where: changed}})
        return self.model_copy(update={where: changed})

    def _number(self, where: str, name: str) -> Parameter:
        number: Parameter = getattr(self._of(where), name)
        return number

    def _of(self, where: str) -> Strict:
        of: Strict = self.provider[where] if where in self.provider else getattr(self, where)
        return of
