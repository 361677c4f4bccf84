"""Snapshots in files: taken while the stream runs, loaded at a take-over, thrown away when old."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from schemas.layouts import Layouts
from schemas.topics import DAY_MS
from streams import events
from streams.engine import journal, snapshot_file
from streams.engine.kafka import Client, KafkaUnavailable, bounds, written_end
from streams.engine.snapshot import Rows, Snapshot
from streams.engine.snapshot_file import SUFFIX, UNFINISHED, Header, Unfit
from streams.engine.store import Frozen, SlabStore
from streams.engine.topic import topic_id

_log = structlog.get_logger()
_NEWEST: Final = 2  # are kept; of earlier ones one a day
_FREEZE_WITHIN_S: Final = 30.0
_DECIDED_WITHIN_S: Final = 30.0
_ASK_EVERY_S: Final = 0.05
_AFTER_FAILURE_MS: Final = 60_000


@dataclass(frozen=True)
class Place:
    """Whose snapshots, where, and how many.

    `folder` holds one folder for each partition. Snapshots are taken `every_ms` of wall clock, and one a day
    is kept for `keep_days`; one older than `oldest_ms` is not used.
    """

    client: Client
    app: str
    changelog: str
    journal: str
    layouts: Layouts
    folder: Path
    every_ms: int
    keep_days: int
    oldest_ms: int


@dataclass(frozen=True)
class Taken:
    """A snapshot that was taken or loaded: when (UTC ms), in how many seconds, and its bytes."""

    taken_at: int
    seconds: float
    size: int


@dataclass
class _Request:
    """Wanted: a line's rows as of a committed cut, not before `number`."""

    line: Rows
    number: int
    answered: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    frozen: Frozen | None = None
    cut: int = 0


class FileSnapshots:
    """Keeps a slab's snapshots in files. One thread takes them, one partition at a time."""

    def __init__(self, place: Place) -> None:
        self.tell: Callable[[int, Taken | None], None] = lambda partition, taken: None  # None: released
        self._place = place
        self._lines: dict[int, Rows] = {}
        self._last: dict[int, tuple[int, int]] = {}  # cut and time of a partition's newest snapshot
        self._rests_until: dict[int, int] = {}
        self._request: _Request | None = None
        self._topic_id = ""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    # In the event loop

    def settled(self, line: Rows) -> None:
        """See `Snapshots.settled`."""
        self._lines[line.partition] = line
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            context = contextvars.copy_context()  # logs know their role by it
            self._thread = threading.Thread(
                target=context.run, args=(self._run,), name="opportune-snapshots", daemon=True
            )
            self._thread.start()
        if self._request is not None:
            self._freeze(self._request)

    def release(self, partition: int) -> None:
        """See `Snapshots.release`."""
        if self._lines.pop(partition, None) is not None:
            self.tell(partition, None)

    def _freeze(self, request: _Request) -> None:
        """Answer a request if the rows are those of a committed cut that is late enough."""
        line = request.line
        with request.lock:
            if request.answered.is_set():
                return
            if self._lines.get(line.partition) is not line:
                request.answered.set()
            elif line.clean and line.number >= request.number:
                if not isinstance(line.store, SlabStore):
                    raise TypeError("snapshots are taken of slabs")
                request.frozen, request.cut = line.store.freeze(), line.number
                request.answered.set()

    # In the thread

    def _run(self) -> None:
        while not self._loop.is_closed():
            time.sleep(min(1.0, self._place.every_ms / 10_000))
            for line in [line for line in list(self._lines.values()) if self._is_time(line)]:
                try:
                    self._take(line)
                except Exception as error:  # no disk, no Kafka: the stream goes on without
                    self._rests_until[line.partition] = _now() + _AFTER_FAILURE_MS
                    _log.error(
                        events.SNAPSHOT_FAILED, partition=line.partition, error=str(error), exc_info=error
                    )

    def _is_time(self, line: Rows) -> bool:
        number, taken_at = self._last.get(line.partition, (0, 0))
        since = _now() - taken_at
        if line.number <= number or _now() < self._rests_until.get(line.partition, 0):
            return False
        return since >= self._place.every_ms or since < 0

    def _take(self, line: Rows) -> None:
        began, taken_at = time.perf_counter(), _now()
        offset, number = self._bound(line.partition)
        request = _Request(line, number)
        self._request = request
        try:
            self._loop.call_soon_threadsafe(self._freeze, request)
            request.answered.wait(_FREEZE_WITHIN_S)
        finally:
            with request.lock:  # or it might be frozen just now, for nobody
                request.answered.set()
                frozen = request.frozen
            self._request = None
        if frozen is None:
            self._rests_until[line.partition] = _now() + _AFTER_FAILURE_MS
            if self._lines.get(line.partition) is line:  # fenced and does not know it yet, or very slow
                why = f"cut {line.number} did not commit in {_FREEZE_WITHIN_S:.0f} s, or is behind {number}"
                _log.warning(events.SNAPSHOT_FAILED, partition=line.partition, error=why)
            return
        place = self._place
        try:
            header = Header(
                place.app,
                line.partition,
                request.cut,
                offset,
                self._changelog_id(),
                place.layouts.newest,
                snapshot_file.fingerprint(place.layouts.dtype),
                len(frozen),
                taken_at,
            )
            folder = self._folder(line.partition)
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"*{UNFINISHED}"):
                left.unlink(missing_ok=True)  # by a worker that died, or is no longer the owner
            size = snapshot_file.write(folder / f"{request.cut:020}-{taken_at:013}{SUFFIX}", header, frozen)
        finally:
            self._loop.call_soon_threadsafe(frozen.release)
        seconds = time.perf_counter() - began
        self._last[line.partition] = request.cut, taken_at
        _log.info(
            events.SNAPSHOT_TAKEN,
            partition=line.partition,
            cut=request.cut,
            keys=header.keys,
            bytes=size,
            seconds=round(seconds, 3),
        )
        self.tell(line.partition, Taken(taken_at, seconds, size))
        self._prune(folder, taken_at)

    def _bound(self, partition: int) -> tuple[int, int]:
        """Changelog offset before which every record is in the rows of any line at a cut, and that cut.

        Asked in this order: had a newer owner written rows before the offset, the journal would tell its
        cut, and the line of the former owner, who may not know yet, never gets there. A transaction becomes
        stable in one partition before the other: what the journal holds undecided is waited for.

        Raises `KafkaUnavailable`, also where it stays undecided for `_DECIDED_WITHIN_S`.
        """
        place = self._place
        consumer = place.client.reader()
        try:
            _, offset = bounds(consumer, place.changelog, partition)
            written = written_end(place.client, place.journal, partition)
            deadline = time.monotonic() + _DECIDED_WITHIN_S
            while bounds(consumer, place.journal, partition)[1] < written:
                if time.monotonic() > deadline:
                    why = f"has a transaction that did not end in {_DECIDED_WITHIN_S:.0f} s"
                    raise KafkaUnavailable(f"{place.journal}/{partition} {why}")
                time.sleep(_ASK_EVERY_S)
            last = journal.last_entry(consumer, place.journal, partition)
        finally:
            consumer.close()
        return offset, last[0].number if last else 0

    def _prune(self, folder: Path, now: int) -> None:
        """Keep the newest, and of each of the last days the last one."""
        days: set[int] = set()
        # By time, not by cut: of topics made anew the cuts begin again at 1.
        newest_first = sorted(folder.glob(f"*{SUFFIX}"), key=_age, reverse=True)
        for place, path in enumerate(newest_first):
            day = _taken_at(path) // DAY_MS
            is_last_of_day = day not in days and day > now // DAY_MS - self._place.keep_days
            days.add(day)
            if place >= _NEWEST and not is_last_of_day:
                path.unlink(missing_ok=True)

    # At a take-over

    def newest(self, partition: int, at_most: int) -> Snapshot | None:
        """See `Snapshots.newest`."""
        for path in sorted(self._folder(partition).glob(f"*{SUFFIX}"), key=_age, reverse=True):
            began = time.perf_counter()
            try:
                self._judge(snapshot_file.head(path), partition, at_most)
                store = SlabStore(self._place.layouts.dtype)
                header = snapshot_file.read(path, self._place.layouts, store)
                size = path.stat().st_size
            except (Unfit, OSError) as error:  # a file may be pruned by who owned the partition before
                why = f"{path.name} {error}"
                _log.warning(events.SNAPSHOT_REFUSED, partition=partition, error=why)
                continue
            self._last[partition] = header.number, header.taken_at
            seconds = time.perf_counter() - began
            self.tell(partition, Taken(header.taken_at, seconds, size))
            return Snapshot(header.number, header.changelog_offset, store)
        return None

    def _judge(self, header: Header, partition: int, at_most: int) -> None:
        """Raise `Unfit` with the reason if a snapshot must not be used."""
        if (header.app, header.partition) != (self._place.app, partition):
            raise Unfit(f"is of {header.app}/{header.partition}")
        if header.topic_id != self._changelog_id():
            raise Unfit(f"was taken of another {self._place.changelog}: the topic was made anew since")
        if header.number > at_most:
            raise Unfit(f"is of cut {header.number}, the journal ends at {at_most}")
        # However far the changelog was compacted since, a key's last value is still there, and that it was
        # deleted for as long as tombstones are kept.
        age = abs(_now() - header.taken_at)
        if age > self._place.oldest_ms:
            raise Unfit(f"is {age // DAY_MS} days old: a deletion since may be compacted away")

    def _folder(self, partition: int) -> Path:
        return self._place.folder / str(partition)

    def _changelog_id(self) -> str:
        self._topic_id = self._topic_id or topic_id(self._place.client, self._place.changelog)
        return self._topic_id


def _taken_at(path: Path) -> int:
    """When a snapshot was taken, UTC ms, by its name."""
    return int(path.stem.partition("-")[2] or 0)


def _age(path: Path) -> tuple[int, str]:
    """What sorts snapshots: by time, and those of one moment by cut."""
    return _taken_at(path), path.name


def _now() -> int:
    return time.time_ns() // 1_000_000
