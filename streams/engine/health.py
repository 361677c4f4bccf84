"""Answers to the probes of a supervisor, the same for all roles."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Health:
    """Answer to a probe: `why` is empty if all is well."""

    why: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """HTTP status."""
        return 503 if self.why else 200

    def body(self) -> dict[str, Any]:
        """JSON body."""
        return {"ok": not self.why, "why": self.why}
