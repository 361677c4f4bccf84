"""Names of time zones: those of the `tzdata` package, the same on every machine."""

from importlib.resources import files
from typing import Final

NAMES: Final = frozenset((files("tzdata") / "zones").read_text().split())
