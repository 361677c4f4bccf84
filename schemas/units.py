"""Durations as people say them: parsed once, printed back."""

import re
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, InstanceOf, PlainSerializer

_UNITS: Final = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAMES: Final = {"second": "s", "sec": "s", "minute": "min", "m": "min", "hour": "h", "hr": "h", "day": "d"}
_TEXT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


class Milliseconds(int):
    """A duration in milliseconds that prints as `16 h`."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `16 h`, `3 days`, `90 s`. Raises ValueError with what would be right."""
        if isinstance(text, int) and not isinstance(text, bool):
            return cls(text)
        match = _TEXT.fullmatch(str(text).lower())
        unit = match and _NAMES.get(match[2].removesuffix("s"), match[2])
        if match is None or unit not in _UNITS:
            raise ValueError(f'{text!r} is not a duration; write for example "16 h", "3 days" or "90 s"')
        return cls(round(float(match[1]) * _UNITS[str(unit)]))

    def __str__(self) -> str:
        """Print in the largest unit that divides it."""
        unit = next((u for u in ("d", "h", "min", "s") if self and self % _UNITS[u] == 0), "ms")
        return f"{int(self) // _UNITS[unit]} {unit}"


Duration = Annotated[InstanceOf[Milliseconds], BeforeValidator(Milliseconds.parse), PlainSerializer(str)]
