"""Dead letters: reading them, choosing some, and sending them back to where they came from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from schemas import codec, topics
from schemas.reasons import DeadLetterReason
from streams import reading
from streams.agents import intake
from streams.engine.cut import Out
from streams.engine.kafka import Client, Record, bytes_of
from streams.engine.partitioner import partition_of
from streams.reading import Part

_MOVED: Final = (intake.ORIGIN_TOPIC, intake.ORIGIN_PARTITION, intake.ORIGIN_OFFSET, intake.REKEYED)


class NoLetter(LookupError):
    """No dead letter came from that place. `opportune dead-letters list` shows which there are."""


@dataclass(frozen=True)
class Letter:
    """A record that could not be handled: where it stood, what it was, why; `at` is the cut's now, UTC ms."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    reason: str
    error: str
    at: int
    cut: int

    @classmethod
    def decode(cls, value: bytes) -> "Letter":
        """Read the wire format of dead.letters. Raises as `codec.decode`."""
        fields = codec.decode(topics.DEAD_LETTERS.name, value)
        fields["at"] = codec.millis(fields["at"])
        fields["headers"] = tuple((name, data or b"") for name, data in fields["headers"].items())
        return cls(**fields)


@dataclass(frozen=True)
class Choice:
    """Which letters are meant: those that agree with everything that is not None."""

    reason: DeadLetterReason | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        return (
            self.reason in (None, letter.reason)
            and self.topic in (None, letter.topic)
            and self.partition in (None, letter.partition)
            and self.offset in (None, letter.offset)
        )


class DeadLetters:
    """The dead letters of a deployment as they stood when this was made: later ones are not seen.

    That matters for sending back: a letter that fails again comes anew, and would be taken for ever.
    Raises `NoTopic` or `KafkaUnavailable`, as do its methods. Not thread-safe.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._consumer = client.reader()
        self._parts: Sequence[Part] = reading.parts(self._consumer, topics.DEAD_LETTERS.name)
        self._counts: dict[str, int] = {}

    def chosen(self, choice: Choice) -> Iterator[Letter]:
        """Letters that a choice takes, partition by partition, in the order in which they came."""
        for part in self._parts:
            # A letter stands on the partition number of the cut, which is that of its origin.
            if choice.partition in (None, part.partition):
                for message in reading.messages(self._consumer, part):
                    letter = Letter.decode(bytes_of(message.value()) or b"")
                    if choice.takes(letter):
                        yield letter

    def one(self, topic: str, partition: int, offset: int) -> Letter:
        """Return the latest letter of one place of origin. Raises `NoLetter`."""
        found = list(self.chosen(Choice(None, topic, partition, offset)))
        if not found:
            raise NoLetter(
                f"no dead letter came from {topic} partition {partition} offset {offset}; "
                f"`opportune dead-letters list --topic {topic}` shows which did"
            )
        return found[-1]

    def redrive(self, choice: Choice, on_written: Callable[[], object] = lambda: None) -> int:
        """Produce the chosen letters' records to their topics again; returns how many.

        The letters stay: nothing is ever deleted but by retention.
        """
        letters = (redriven(letter, self._partitions(letter.topic)) for letter in self.chosen(choice))
        return len(reading.produce(self._client, letters, on_written))

    def _partitions(self, topic: str) -> int:
        if topic not in self._counts:
            consumer = self._client.reader()  # the other one is reading
            self._counts[topic] = reading.partition_count(consumer, topic)
            consumer.close()
        return self._counts[topic]


def redriven(letter: Letter, partitions: int) -> Out:
    """Return the record as it goes back: same key and bytes, on the partition of its key.

    Without a key it goes where it stood. Headers name where it first stood, so that its derived event id is
    the same each time; `rekeyed` is taken off, since it stands where it belongs now.
    """
    key = letter.key
    partition = partition_of(key, partitions) if key is not None else letter.partition
    kept = [header for header in letter.headers if header[0] not in _MOVED]
    stood = Record(letter.offset, letter.at, key, letter.value, letter.headers)
    origin = intake.origin_headers(letter.topic, letter.partition, stood)
    return Out(letter.topic, key, letter.value, partition, [*kept, *origin])
