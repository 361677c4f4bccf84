"""Decide cuts by docs/decisions.md, one recipient and one record after the other."""

from __future__ import annotations

from schemas.policy import Policy, with_segments
from schemas.profile import HOUR_MS
from schemas.reasons import DeadLetterReason
from tests.reference import effects, records, timing
from tests.reference.clock import hour_of
from tests.reference.cuts import RefCut, RefRecord, RefResult, Work
from tests.reference.records import Event
from tests.reference.slots import may_profile, settle
from tests.reference.state import Recipient, pack, unpack

__all__ = ["RefCut", "RefRecord", "RefResult", "Reference"]


class Reference:
    """All rows of all partitions, and what happens to them cut by cut."""

    def __init__(self, policy: Policy, partitions: int) -> None:
        self.policy = policy
        self.partitions = partitions
        self.recipients: dict[int, dict[str, Recipient]] = {}

    def load(self, partition: int, rows: dict[str, bytes]) -> None:
        """Start from these rows instead of from none."""
        self.recipients[partition] = {recipient_id: unpack(row) for recipient_id, row in rows.items()}

    def rows(self, partition: int) -> dict[str, bytes]:
        """The packed rows of a partition."""
        recipients = self.recipients.get(partition, {})
        return {recipient_id: pack(recipient) for recipient_id, recipient in recipients.items()}

    def due_at(self, partition: int, recipient_id: str, now: int, paused: bool) -> int:
        """Section 6: when the row is due next, as of a cut at `now`."""
        return timing.due_at(self.recipients[partition][recipient_id], now, paused)

    def handle(self, cut: RefCut) -> RefResult:
        """Decide one cut."""
        policy = with_segments(self.policy, cut.segments[-1].segments) if cut.segments else self.policy
        work = Work(policy, cut, RefResult())
        recipients = self.recipients.setdefault(cut.partition, {})
        events = [event for record in cut.records if (event := self._receive(work, record, recipients))]

        with_record = {event.recipient_id for event in events}
        # Derived here and not kept: whether the row is due depends on the pause now in force.
        due = {i for i, r in recipients.items() if timing.due_at(r, cut.before, cut.paused) <= cut.now}
        due |= {
            i
            for i, r in recipients.items()
            if r.segments_version != work.segments_version and timing.swept_at(i, cut.before) <= cut.now
        }
        touched = [*dict.fromkeys(event.recipient_id for event in events), *sorted(due - with_record)]
        stood = {i: recipients[i].copy() for i in touched if i in recipients}

        for recipient_id in touched:
            self._before_first_record(
                work, recipient_id, recipients, only_due=recipient_id not in with_record
            )
        for event in events:
            self._handle_event(work, recipients[event.recipient_id], event)

        work.result.touched = {i for i in touched if stood.get(i) != recipients[i]}
        return work.result

    def _receive(self, work: Work, record: RefRecord, known: dict[str, Recipient]) -> Event | None:
        """Section 1 down to the re-keyed step: the event, or None if the record goes elsewhere."""
        fates = work.result.fates[record.topic]
        fates["consumed"] += 1
        reason = records.dead_letter_reason(record, work.cut.now)
        if reason is None:
            event = records.read(record)
            if event.recipient_id in known or not records.is_elsewhere(record, self.partitions):
                return event
            if "rekeyed" not in record.headers:
                fates["rekeyed"] += 1
                work.result.rekeyed.append((record.topic, record.offset))
                return None
            reason = DeadLetterReason.MISROUTED_TWICE
        fates["dead_lettered"] += 1
        work.result.dead.append((record.topic, record.offset, str(reason)))
        return None

    def _before_first_record(
        self, work: Work, recipient_id: str, recipients: dict[str, Recipient], *, only_due: bool
    ) -> None:
        """Section 2."""
        cut = work.cut
        if recipient_id not in recipients:
            version = work.segments_version
            recipients[recipient_id] = Recipient(hour=hour_of(cut.now), segments_version=version)
            return
        recipient = recipients[recipient_id]
        stood = recipient.copy()
        timing.roll(recipient, hour_of(cut.now))
        settle(work, recipient_id, recipient)
        forgotten = not may_profile(work, recipient) and recipient.first != 0
        if forgotten:
            recipient.forget()
        due_at = timing.latest_evaluation(recipient, cut.before, cut.now)
        if due_at is None and forgotten:
            due_at = hour_of(cut.now) * HOUR_MS
        stale = recipient.segments_version != work.segments_version
        if stale:
            effects.redefine(work, recipient_id, recipient)
        if due_at is not None:
            effects.pass_time(work, recipient_id, recipient, due_at, ask=not forgotten)
        same = (
            recipient.slots == stood.slots
            and recipient.segments == stood.segments
            and not forgotten
            and not stale
        )
        if only_due and same:
            recipients[recipient_id] = stood

    def _handle_event(self, work: Work, recipient: Recipient, event: Event) -> None:
        """The rest of section 1, and section 3."""
        fates = work.result.fates[event.record.topic]
        if effects.filtered(work, recipient, event) is not None:
            fates["filtered"] += 1
            return
        triggered = effects.apply(work, recipient, event)
        fates["decided" if triggered else "no_trigger"] += 1
        if event.occurred_at < work.cut.now - records.LATE_MS:
            fates["late"] += 1
