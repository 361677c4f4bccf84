"""Every topic: its name, key, schema, partitions, retention and compaction."""

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 24 * 3600 * 1000

# A record of a source topic larger than this is dead-lettered; the topics take more, so that it arrives.
MAX_RECORD_BYTES: Final = 64 * 1024
_SOURCE_BYTES: Final = 1024 * 1024
TOMBSTONES_KEPT_MS: Final = 28 * DAY_MS
# A dead letter holds a whole source record and what is said about it.
_LETTER_BYTES: Final = 2 * _SOURCE_BYTES


@dataclass(frozen=True)
class Topic:
    """How one topic is made and read.

    `partitions` is None where the deployment's partition number applies (all keyed topics share it,
    since a cut spans the same partition number of every source topic).
    """

    name: str
    key: str
    doc: str
    partitions: int | None = None
    retention_ms: int | None = None
    compact: bool = False
    avro: bool = True
    max_record_bytes: int = _SOURCE_BYTES

    def config(self) -> dict[str, str]:
        """Topic settings for the broker.

        Timestamps are the broker's own: event time lives in the payload, or time-based retention would
        delete a loaded history within minutes.
        """
        config = {
            "cleanup.policy": "compact" if self.compact else "delete",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(self.max_record_bytes),
        }
        if self.compact:
            # Tombstones outlive the oldest snapshot that recovery accepts, or an erased person returns.
            config["delete.retention.ms"] = str(TOMBSTONES_KEPT_MS)
        else:
            config["retention.ms"] = str(self.retention_ms if self.retention_ms is not None else -1)
        return config


CONSENT: Final = Topic(
    "consent.changes", "recipient_id", "Consent given or withdrawn.", retention_ms=35 * DAY_MS
)
ATTRIBUTES: Final = Topic(
    "recipients.attributes",
    "recipient_id",
    "Zone, locale, mailbox provider, coarse place.",
    retention_ms=35 * DAY_MS,
)
PURCHASES: Final = Topic("behaviour.purchases", "recipient_id", "Purchases.", retention_ms=35 * DAY_MS)
CLICKS: Final = Topic(
    "behaviour.clicks",
    "recipient_id",
    "Views, clicks, scrolls, searches, carts, opens.",
    retention_ms=35 * DAY_MS,
)
DELIVERY: Final = Topic(
    "delivery.events", "recipient_id", "What became of dispatches.", retention_ms=35 * DAY_MS
)

COMMANDS: Final = Topic("dispatch.commands", "lane", "Sends released by DECIDE.", retention_ms=35 * DAY_MS)
RECALLS: Final = Topic(
    "dispatch.recalls", "lane", "Released sends that must not go.", retention_ms=35 * DAY_MS
)
AUDIT: Final = Topic("audit.records", "recipient_id", "Why we did, or did not.", retention_ms=35 * DAY_MS)
JOURNAL: Final = Topic(
    "decide.journal", "none", "Which cut held what, when; the offset store.", retention_ms=35 * DAY_MS
)
PROFILES: Final = Topic(
    "decide.profiles", "recipient_id", "Changelog of the profile table: raw rows.", compact=True, avro=False
)
DELIVER_JOURNAL: Final = Topic(
    "deliver.journal", "none", "DELIVER's cuts; its offset store.", retention_ms=35 * DAY_MS
)
DISPATCHES: Final = Topic(
    "deliver.dispatches", "dispatch_id", "Changelog of DELIVER's table: raw rows.", compact=True, avro=False
)
PLAN: Final = Topic("decide.plan", "none", "Cuts to be made in follow mode.", retention_ms=35 * DAY_MS)
CONTROL: Final = Topic(
    "control.changes",
    "none",
    "What operators changed; one partition, kept for ever.",
    partitions=1,
)
DEAD_LETTERS: Final = Topic(
    "dead.letters",
    "origin key",
    "Records that could not be handled, whole.",
    retention_ms=90 * DAY_MS,
    max_record_bytes=_LETTER_BYTES,
)

# In rank: of records with the same timestamp the earlier topic's counts first, so consent leads.
SOURCES: Final = (CONSENT, ATTRIBUTES, PURCHASES, CLICKS, DELIVERY)
# DELIVER's, in rank: a recall counts before the commands that came with it.
DISPATCH_SOURCES: Final = (RECALLS, COMMANDS)
TOPICS: Final = (
    *SOURCES,
    *DISPATCH_SOURCES,
    AUDIT,
    JOURNAL,
    PROFILES,
    DELIVER_JOURNAL,
    DISPATCHES,
    PLAN,
    CONTROL,
    DEAD_LETTERS,
)
BY_NAME: Final = {topic.name: topic for topic in TOPICS}
