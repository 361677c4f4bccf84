"""What people do in the suites about DECIDE: recipients, their consent, clicks and purchases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from schemas import codec, topics
from schemas.binary import long, sized
from schemas.profile import MINUTE_MS
from streams.engine.partitioner import partition_of

Skew = Literal["zipf", "even"]
ZIPF_EXPONENT: Final = 1.1
# Of a hundred events; what shops see, roughly: mostly looking, two purchases.
_MIX: Final = {"view": 62, "click": 12, "scroll": 10, "search": 8, "cart": 4, "open": 2, "purchase": 2}
_VARIANTS: Final = 64  # different contents of each kind
_ZONES: Final = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
_PROVIDERS: Final = ("gmail", "yahoo", "outlook", "apple")
# Event times of a backlog spread over so long, ending where the clock stands: neither late nor early.
_SPREAD_MS: Final = 10 * MINUTE_MS


class Record(NamedTuple):
    """One source record, ready to be produced; a tuple, since a run holds millions."""

    topic: str
    partition: int
    key: bytes
    value: bytes


def draw(skew: Skew, recipients: int, events: int, seed: int) -> np.ndarray:
    """Whose each event is: numbers below `recipients`, int64 (events,), drawn evenly or by Zipf's law."""
    chance = np.random.default_rng(seed)
    if skew == "even":
        return chance.integers(0, recipients, events)
    share = np.arange(1, recipients + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    return np.searchsorted(np.cumsum(share / share.sum()), chance.random(events)).clip(max=recipients - 1)


@dataclass(frozen=True)
class Crowd:
    """`recipients` people on `partitions` partitions, or all `on` one; a `seed` repeats what they do."""

    recipients: int
    partitions: int
    on: int | None = None
    seed: int = 1

    @cached_property
    def keys(self) -> list[bytes]:
        """Their ids, shuffled so that being drawn often says nothing about the partition."""
        names = (b"recipient-%07d" % number for number in count())
        found = (name for name in names if self.on in (None, partition_of(name, self.partitions)))
        keys = list(islice(found, self.recipients))
        return [keys[number] for number in np.random.default_rng(self.seed).permutation(len(keys)).tolist()]

    @cached_property
    def places(self) -> list[int]:
        """Partition of each."""
        return [partition_of(key, self.partitions) for key in self.keys]

    def known(self, at: int) -> Iterator[Record]:
        """What comes first, at `at` (UTC ms): zone and provider of everybody, consent to profile and mail."""
        for key, place in zip(self.keys, self.places, strict=True):
            head = {"recipient_id": key.decode(), "event_id": None, "occurred_at": at}
            attributes, consents = traits(key)
            value = codec.encode(topics.ATTRIBUTES.name, head | attributes)
            yield Record(topics.ATTRIBUTES.name, place, key, value)
            for purpose in ("mail", "profiling") if consents else ("profiling",):
                given = head | {"purpose": purpose, "state": "granted", "version": 1, "source": "form"}
                yield Record(topics.CONSENT.name, place, key, codec.encode(topics.CONSENT.name, given))

    def behaviour(self, skew: Skew, events: int, until: int) -> Iterator[Record]:
        """`events` clicks and purchases in order of time, the last of them at `until`, UTC ms."""
        who = draw(skew, self.recipients, events, self.seed)
        chance = np.random.default_rng(self.seed + 1)
        share = np.array(list(_MIX.values())) / 100
        what = chance.choice(len(_MIX), events, p=share) * _VARIANTS + chance.integers(0, _VARIANTS, events)
        at = until - _SPREAD_MS + (np.arange(1, events + 1) * _SPREAD_MS) // events
        contents = [(topic_of(kind), tail) for kind in _MIX for tail in _tails(kind)]
        heads = [sized(key) for key in self.keys]
        header = {topic: codec.header(codec.current_id(topic)) for topic, _ in contents}
        for number, (person, content, moment) in enumerate(
            zip(who.tolist(), what.tolist(), at.tolist(), strict=True)
        ):
            topic, tail = contents[content]
            event_id = b"\x02" + sized(b"e-%09d" % number)
            value = b"".join((header[topic], heads[person], event_id, long(moment), tail))
            yield Record(topic, self.places[person], self.keys[person], value)


def traits(key: bytes) -> tuple[dict[str, str], bool]:
    """Attributes of a recipient of any crowd, and whether they consent to mail."""
    number = int(key.rpartition(b"-")[2])
    attributes = {
        "zone": _ZONES[number % len(_ZONES)],
        "locale": "en-US",
        "provider": _PROVIDERS[number % 7 % len(_PROVIDERS)],
        "place": "US-OH",
    }
    return attributes, number % 10 > 0


def topic_of(kind: str) -> str:
    """The topic that carries a kind of behaviour."""
    return topics.PURCHASES.name if kind == "purchase" else topics.CLICKS.name


def _tails(kind: str) -> Sequence[bytes]:
    """Avro bytes of what stands behind recipient, event id and time.

    The fields before it are the same few for every record, and putting the bytes together by hand is ten
    times as fast as an encoder; fastavro writes the rest.
    """
    topic = topic_of(kind)
    out = []
    for variant in range(_VARIANTS):
        fields: dict[str, Any] = {"recipient_id": "", "event_id": None, "occurred_at": 0, "place": "US-OH"}
        if kind == "purchase":
            fields |= {"amount": 500 + 150 * variant, "items": 1 + variant % 5, "order_id": f"o-{variant}"}
        else:
            fields |= {"kind": kind, "product": f"product-{variant}", "device": "phone"}
        out.append(codec.encode(topic, fields)[codec.HEADER_BYTES + len(b"\x00\x00\x00") :])
    return out
