"""The audit trail read from ClickHouse, as far back as its tables go."""

import heapq
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Final

from sinks.clickhouse import shape
from sinks.clickhouse.client import ClickHouse

# Sorting may need more than memory: what is above goes to ClickHouse's disk.
_SORT_BYTES: Final = 256 * 1024 * 1024
# With FINAL, ClickHouse would read every column of a row before it looks at whose it is. It may look first: a
# row is replaced by one of the same recipient only.
_FEW: Final = "SETTINGS optimize_move_to_prewhere_if_final = 1"
Placed = tuple[int, int, dict[str, Any]]  # partition, offset, record


class AuditTables:
    """The port `sinks.audit.AuditReader` over the views of the audit bodies.

    Parameters
    ----------
    connect
        Makes a connection; `all` reads all tables at once and needs one for each.
    views
        Database of the views.

    Notes
    -----
    Records of one Kafka partition come in the order of their offsets, which is the order in which they were
    written; a recipient's all stand on one. What `sinks.clickhouse.client` raises comes through.
    """

    def __init__(self, connect: Callable[[], ClickHouse], views: str) -> None:
        self._connect = connect
        self._views = views

    def of_recipient(self, recipient_id: str) -> Iterator[dict[str, Any]]:
        """See `AuditReader`."""
        with ThreadPoolExecutor(len(shape.BODIES)) as pool:  # a question each: together they take as one
            found = pool.map(lambda body: self._placed_of(body, recipient_id), shape.BODIES)
            placed = sorted((each for some in found for each in some), key=_place)
        yield from (record for _, _, record in placed)

    def _placed_of(self, body: str, recipient_id: str) -> list[Placed]:
        asked = f"{self._select(body, shape.BODIES[body])} WHERE recipient_id = %(recipient)s {_FEW}"
        with closing(self._connect()) as client:
            return [_placed(body, row) for row in client.execute(asked, {"recipient": recipient_id})]

    def all(self) -> Iterator[dict[str, Any]]:
        """See `AuditReader`; partition by partition."""
        clients = {body: self._connect() for body in shape.BODIES}
        try:
            streams = (self._stream(clients[body], body, table) for body, table in shape.BODIES.items())
            for _, _, record in heapq.merge(*streams, key=_place):
                yield record
        finally:
            for client in clients.values():
                client.close()

    def _stream(self, client: ClickHouse, body: str, table: str) -> Iterator[Placed]:
        order = f"ORDER BY partition, offset SETTINGS max_bytes_before_external_sort = {_SORT_BYTES}"
        for row in client.stream(f"{self._select(body, table)} {order}"):
            yield _placed(body, row)

    def _select(self, body: str, table: str) -> str:
        names = ("partition", "offset", *shape.envelope().names, *shape.body(body).names)
        columns = ", ".join(f"`{name}`" for name in names)
        return f"SELECT {columns} FROM {self._views}.{table}"  # noqa: S608 - names of ours


def _placed(body: str, row: tuple[Any, ...]) -> Placed:
    split = 2 + len(shape.envelope().leaves)
    record = shape.envelope().record(row[2:split])
    return row[0], row[1], record | {"body": shape.body(body).record(row[split:])}


def _place(placed: Placed) -> tuple[int, int]:
    return placed[:2]
