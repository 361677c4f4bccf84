"""What handled cuts give, gathered for the one transaction that writes it."""

from dataclasses import dataclass, field
from typing import Any

from schemas.layouts import opaque
from streams.engine.cut import Handled, Out
from streams.engine.journal import Entry


@dataclass
class Staged:
    """Outputs with their journal entries, the last state of every row (None: gone), and effects to begin."""

    outputs: list[Out] = field(default_factory=list)
    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    effects: list[Any] = field(default_factory=list)

    def add(self, handled: Handled, entry: Entry, journal: str) -> None:
        """Take in one more cut."""
        if handled.rows is not None:
            self.rows |= dict(zip(handled.keys, opaque(handled.rows).tolist(), strict=True))
        self.rows |= dict.fromkeys(handled.forgotten)
        self.outputs += [*handled.outputs, Out(journal, None, entry.encode(journal), entry.partition)]
        self.entries.append(entry)
        self.effects += handled.effects
