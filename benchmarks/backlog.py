"""Recipients, how often each appears, and clicks as Avro bytes, made fast enough to load millions."""

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np

from schemas import codec, topics

RECIPIENTS: Final = 100_000
ZIPF: Final = 1.1
Draw = Literal["zipf", "even"]
_VARIANTS: Final = 4096
_KINDS: Final = ("view", "click", "scroll", "search", "cart", "open")
_DEVICES: Final = ("desktop", "phone", "tablet", None)


def names(count: int = RECIPIENTS) -> list[str]:
    """Recipients' ids."""
    return [f"recipient-{number:07d}" for number in range(count)]


def drawn(draw: Draw, events: int, count: int = RECIPIENTS, seed: int = 1) -> np.ndarray:
    """Whose each event is: places in `names(count)`, int64 (events,)."""
    chance = np.random.default_rng(seed)
    if draw == "even":
        return chance.integers(0, count, events)
    weights = 1.0 / np.arange(1, count + 1) ** ZIPF
    ranked = np.searchsorted(np.cumsum(weights / weights.sum()), chance.random(events))
    return np.minimum(ranked, count - 1)


def clicks(draw: Draw, events: int, since: int, until: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of clicks of the draw, whose moments rise from `since` to `until` (UTC ms).

    A click's bytes are its recipient's followed by all the rest, which is one of a few thousand written with
    fastavro before.
    """
    keys = [name.encode() for name in names()]
    heads = [_body(name, since, 0)[1] for name in names()]
    moments = np.linspace(since, until, _VARIANTS).astype(np.int64).tolist()
    rests = [_body("", moment, number)[0] for number, moment in enumerate(moments)]
    header = codec.header(codec.current_id(topics.CLICKS.name))
    heads = [header + head for head in heads]
    for number, who in enumerate(drawn(draw, events, seed=seed).tolist()):
        yield keys[who], heads[who] + rests[number * _VARIANTS // events]


def _body(name: str, moment: int, number: int) -> tuple[bytes, bytes]:
    """Split a click's Avro body: what stands behind the recipient's id, and the id with its length."""
    fields = {
        "recipient_id": name,
        "event_id": None,
        "occurred_at": moment,
        "kind": _KINDS[number % len(_KINDS)],
        "product": f"product-{number % 1000:05d}" if number % 3 else None,
        "device": _DEVICES[number % len(_DEVICES)],
    }
    body = codec.encode(topics.CLICKS.name, fields)[codec.HEADER_BYTES :]
    length = len(name.encode()) + 1  # a length below 64 is one byte
    return body[length:], body[:length]
