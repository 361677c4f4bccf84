"""What ClickHouse holds of the topics, counted there and here."""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas import topics
from sinks.clickhouse.client import Address
from sinks.clickhouse.query import ask
from streams.reconciling.deliveries import Place
from streams.recording.rows import TABLES

# The table of profiles keeps the latest of each recipient alone, so its rows go as newer ones come, and no
# count of it can be held against a moment.
COMPARED: Final[Mapping[str, tuple[str, ...]]] = {
    topic: tables for topic, tables in TABLES.items() if topic != topics.PROFILES.name
}

Spot = tuple[str, Place]  # table; topic and partition
Letter = tuple[str, int, int, str]  # what a row of dlq is named by: topic, partition and offset, and reason


@dataclass(frozen=True)
class Sums:
    """How many records, and two checksums over their offsets."""

    count: int = 0
    total: int = 0
    xor: int = 0

    @classmethod
    def of(cls, offsets: np.ndarray) -> "Sums":
        """Sums of int64 offsets."""
        return cls(len(offsets), int(offsets.sum()), int(np.bitwise_xor.reduce(offsets)))


@dataclass
class Table:
    """One topic's records in one table: those that must be there, those that are, those still to come."""

    table: str
    topic: str
    records: int = 0
    rows: int = 0
    behind: int = 0


@dataclass
class Recorded:
    """The records that must be in ClickHouse: `landed` says up to which offset, as the recorder committed.

    `refused` are those that the recorder could not turn into rows, by its dead letters; `replaced` those
    letters that were written again.
    """

    landed: Mapping[Place, int]
    offsets: dict[Spot, "array[int]"] = field(default_factory=dict)
    refused: dict[Place, set[int]] = field(default_factory=dict)
    replaced: dict[Place, set[int]] = field(default_factory=dict)
    _letters: dict[Letter, tuple[Place, int]] = field(default_factory=dict)

    def add(self, table: str, place: Place, offset: int) -> None:
        """Take in a record that belongs into a table."""
        self.offsets.setdefault((table, place), array("q")).append(offset)

    def add_letter(self, place: Place, offset: int, name: Letter) -> None:
        """Take in a dead letter.

        A recorder that was killed between its letters and its commit is followed by one that writes them
        again; the table keeps the last of those with one name.
        """
        self.add("dlq", place, offset)
        if offset >= self.landed.get(place, 0):
            return
        former, self._letters[name] = self._letters.get(name), (place, offset)
        if former is not None:
            self.replaced.setdefault(former[0], set()).add(former[1])

    def spots(self) -> Iterator[Spot]:
        """Every table and partition to be compared."""
        for place in sorted(self.landed):
            for table in COMPARED.get(place[0], ()):
                yield table, place

    def landed_of(self, spot: Spot) -> np.ndarray:
        """Offsets of the records of which there must be rows."""
        offsets = np.array(self.offsets.get(spot, ()), np.int64)
        offsets = offsets[offsets < self.landed[spot[1]]]
        rowless = self.refused.get(spot[1], set()) | self.replaced.get(spot[1], set())
        return offsets[~np.isin(offsets, np.array(sorted(rowless), np.int64))]

    def behind_of(self, spot: Spot) -> int:
        """How many records have not been recorded yet."""
        offsets = np.array(self.offsets.get(spot, ()), np.int64)
        return int((offsets >= self.landed[spot[1]]).sum())


def sums_of(
    address: Address, views: str, recorded: Recorded, begins: Mapping[Place, int]
) -> dict[Spot, Sums]:
    """Ask ClickHouse for what it has of the records between a topic's beginning and what has landed.

    Raises
    ------
    ClickHouseUnavailable
        It did not answer.
    StatementRefused
        The views are not there, or may not be read.
    """
    found: dict[Spot, Sums] = {}
    for topic, tables in COMPARED.items():
        spans = " OR ".join(
            f"(partition = {place[1]} AND offset >= {begins.get(place, 0)} AND offset < {landed})"
            for place, landed in sorted(recorded.landed.items())
            if place[0] == topic
        )
        for table in tables if spans else ():
            sql = (
                "SELECT partition, count(), sum(offset), groupBitXor(offset) "  # noqa: S608 - names of ours
                f"FROM {views}.{table} WHERE topic = '{topic}' AND ({spans}) GROUP BY partition"
            )
            for partition, *sums in ask(address, views, sql).rows:
                found[table, (topic, partition)] = Sums(*sums)
    return found


def compare(recorded: Recorded, rows: Mapping[Spot, Sums]) -> tuple[list[Table], list[str]]:
    """Count and compare; `rows` is what ClickHouse said. Pure."""
    tables: dict[tuple[str, str], Table] = {}
    off = []
    for spot in recorded.spots():
        name, (topic, partition) = spot
        expected, there = Sums.of(recorded.landed_of(spot)), rows.get(spot, Sums())
        table = tables.setdefault((name, topic), Table(name, topic))
        table.records += expected.count
        table.rows += there.count
        table.behind += recorded.behind_of(spot)
        if expected.count != there.count:
            off.append(
                f"ClickHouse {name}: of {topic} partition {partition} there are {there.count} rows, "
                f"but {expected.count} records were recorded"
            )
        elif expected != there:
            off.append(
                f"ClickHouse {name}: of {topic} partition {partition} the {there.count} rows are not those "
                "of the records: their offsets differ"
            )
    return list(tables.values()), off
