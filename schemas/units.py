"""Durations and rates as people say them: parsed once, printed back."""

import re
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, BeforeValidator, InstanceOf, PlainSerializer

_UNITS: Final = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAMES: Final = {"second": "s", "sec": "s", "minute": "min", "m": "min", "hour": "h", "hr": "h", "day": "d"}
_LONGEST: Final = 36_525 * 86_400_000
_TEXT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


class Milliseconds(int):
    """A duration in milliseconds that prints as `16 h`."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `16 h`, `90 s`, `50 ms`. Raises ValueError with what would be right."""
        if isinstance(text, cls):
            return text
        match = _TEXT.fullmatch(str(text).lower())
        name = match[2] if match else ""
        unit = name if name in _UNITS else _NAMES.get(name.removesuffix("s"), name)
        if match is None or unit not in _UNITS:
            raise ValueError(f'{text!r} is not a duration; write for example "16 h", "90 s" or "50 ms"')
        value = round(float(match[1]) * _UNITS[unit])
        if value > _LONGEST:
            raise ValueError(f"{text!r} is longer than 100 years")
        return cls(value)

    def __str__(self) -> str:
        """Print in the largest unit that divides it."""
        unit = next((u for u in ("d", "h", "min", "s") if self and self % _UNITS[u] == 0), "ms")
        return f"{int(self) // _UNITS[unit]} {unit}"


class Rate(float):
    """How many a second; parsed from and printed as `100/hr`."""

    _PER: ClassVar = {"s": 1, "min": 60, "hr": 3600, "d": 86_400}

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `100/hr`, `20/s`, `1000/d`. Raises ValueError with what would be right."""
        if isinstance(text, cls):
            return text
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([a-z]+)\s*", str(text).lower())
        unit = match and {"h": "hr", "hour": "hr", "m": "min", "day": "d", "sec": "s"}.get(match[2], match[2])
        if match is None or unit not in cls._PER or float(match[1]) <= 0:
            raise ValueError(f'{text!r} is not a rate; write for example "100/hr", "20/s" or "1000/d"')
        return cls(float(match[1]) / cls._PER[str(unit)])

    def __str__(self) -> str:
        """Print in the smallest unit that makes it a whole number, else per second."""
        for unit, seconds in self._PER.items():
            count = float(self) * seconds
            if abs(count - round(count)) < 1e-6:
                return f"{round(count)}/{unit}"
        return f"{float(self):g}/s"


def _longer_than_none(span: Milliseconds) -> Milliseconds:
    if span <= 0:
        raise ValueError('it must be longer than nothing; write for example "16 h"')
    return span


PerSecond = Annotated[InstanceOf[Rate], BeforeValidator(Rate.parse), PlainSerializer(str)]
Span = Annotated[
    InstanceOf[Milliseconds],
    BeforeValidator(Milliseconds.parse),
    AfterValidator(_longer_than_none),
    PlainSerializer(str),
]
Duration = Annotated[InstanceOf[Milliseconds], BeforeValidator(Milliseconds.parse), PlainSerializer(str)]
