"""The port to the audit trail: why every recipient got a message, or did not."""

from collections.abc import Iterator
from typing import Any, Protocol


class AuditReader(Protocol):
    """Reads audit records, wherever they have landed.

    A record is a decoded `audit.records`: `recipient_id`, `partition`, `cut`, `at`, `control_version` and
    `body`. Times are aware datetimes in UTC. The records of one recipient come in the order in which they
    were written; those of different partitions in no particular order.
    """

    def of_recipient(self, recipient_id: str) -> Iterator[dict[str, Any]]:
        """Every record of one recipient, oldest first; none if nobody has this id."""
        ...

    def all(self) -> Iterator[dict[str, Any]]:
        """Every record there is."""
        ...
