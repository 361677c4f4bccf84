"""The readable reference of the rules as a job for one event, for frameworks that handle them singly.

It gives what our line gives: the recipient's new state, audit records and commands in wire format. It does
less: nothing is due by the passage of time, no journal is written, and audit records are without gates,
segments and features. A recipient that is new to it has what `Crowd.known` says; our line learns that from
records, before what is measured.
"""

import time
from pathlib import Path
from typing import Final

from benchmarks.decide_events import traits
from schemas import codec, policy_files, topics
from schemas.profile import HOUR_MS, Consent
from tests.reference.cuts import RefCut, RefRecord, RefResult
from tests.reference.rules import Reference
from tests.reference.state import Recipient

TOPICS: Final = (topics.CLICKS.name, topics.PURCHASES.name)
POLICY: Final = Path(__file__).parent / "policy"
_NAMES: Final = {
    "decision": "opportune.Decision",
    "transition": "opportune.SegmentTransition",
    "consent": "opportune.ConsentRecord",
    "release": "opportune.Release",
    "closure": "opportune.Closure",
}

Output = tuple[str, bytes, bytes]  # topic, key, value


class Job:
    """Decides one event of one recipient at a time; what is kept between events is the caller's."""

    def __init__(self, partitions: int) -> None:
        self._policy = policy_files.load(POLICY)
        self._reference = Reference(self._policy, partitions)
        self._left_out = {"gates": [], "segments": [], "features": {}, "policy": self._policy.digest}
        self._number = 0

    def decide(
        self, state: Recipient | None, topic: str, partition: int, offset: int, key: bytes, value: bytes
    ) -> tuple[Recipient, list[Output]]:
        """Return the recipient's state after an event, and what is to be produced."""
        now = time.time_ns() // 1_000_000
        name = key.decode()
        mine = {name: state or _newcomer(key, now)}
        self._reference.recipients[partition] = mine
        self._number += 1
        record = RefRecord(topic, partition, offset, key, value, timestamp=now)
        result = self._reference.handle(RefCut(partition, self._number, now, now, 0, False, False, [record]))
        return mine[name], self._outputs(result, partition, now)

    def _outputs(self, result: RefResult, partition: int, now: int) -> list[Output]:
        out = []
        for name, body in result.audit:
            audit = {
                "recipient_id": name,
                "partition": partition,
                "cut": self._number,
                "at": now,
                "control_version": 0,
                "body": (_NAMES[body["kind"]], self._left_out | body),
            }
            out.append((topics.AUDIT.name, name.encode(), codec.encode(topics.AUDIT.name, audit)))
        for command in result.commands:
            value = codec.encode(topics.COMMANDS.name, command)
            out.append((topics.COMMANDS.name, str(command["lane"]).encode(), value))
        return out


def _newcomer(key: bytes, now: int) -> Recipient:
    attributes, consents = traits(key)
    recipient = Recipient(hour=now // HOUR_MS)
    for name, value in attributes.items():
        setattr(recipient, name, value)
    recipient.consent["profiling"], recipient.consent_version["profiling"] = Consent.GRANTED, 1
    if consents:
        recipient.consent["mail"], recipient.consent_version["mail"] = Consent.GRANTED, 1
    return recipient
