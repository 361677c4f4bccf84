"""The send slots of a row: settled when time passes, withdrawn, confirmed."""

from collections.abc import Callable

import numpy as np

from models import audit, columns, contact
from models.audit import Output
from models.profile import UNCONFIRMED_AFTER_MS
from schemas import ids
from schemas.audit import Gate
from schemas.layouts import picked
from schemas.policy import Campaign, Policy
from schemas.profile import PENDING, PURPOSES, Slot, Suppression, seconds
from schemas.reasons import Reason
from schemas.routes import OTHER_PROVIDER, LaneName

_FREE = np.zeros((), PENDING)


def settle(rows: np.ndarray, policy: Policy, paused: bool, now: int, out: Output) -> np.ndarray:
    """Close, expire, defer or release what has come due in owned rows, up to `now`.

    Within a row the sends go in order of due time, since one that is released counts against the cap of
    the next. Returns bool (n,): whose slots changed.
    """
    pending = rows["pending"]
    waits, released = pending["state"] == Slot.PENDING, pending["state"] == Slot.RELEASED
    acts = released & (now >= pending["expires_at"] + UNCONFIRMED_AFTER_MS)
    acts |= waits & (now >= pending["expires_at"])
    retired = (waits | released) & ~np.isin(pending["campaign"], list(policy.by_number))
    acts |= retired
    if not paused:
        acts |= waits & (pending["due_at"] <= now)
    row, slot = np.nonzero(acts)
    changed = np.zeros(len(rows), np.bool_)
    if not len(row):
        return changed
    order = np.lexsort((slot, pending["due_at"][row, slot], row))
    row, slot = row[order], slot[order]
    rank = columns.rank_in_run(row)
    for turn in range(int(rank.max()) + 1):
        mine = rank == turn
        come_due(rows, row[mine], slot[mine], policy, now, out)
    changed[row] = True
    return changed


def come_due(
    rows: np.ndarray, row: np.ndarray, slot: np.ndarray, policy: Policy, now: int, out: Output
) -> None:
    """Close, expire, defer or release one slot of each of distinct owned rows."""
    some = picked(rows, row)
    sends = some["pending"][np.arange(len(row)), slot]
    free_at = contact.cap_free_at(some, sends["campaign"], now, policy)
    quiet_until = contact.quiet_ends_at(some, now, policy.contact)
    for i in range(len(row)):
        send, r = sends[i], int(row[i])
        campaign = policy.campaign(int(send["campaign"]))
        gone = campaign.number not in policy.by_number
        if gone and send["state"] == Slot.PENDING:
            out.release(r, send, campaign, "withheld", Reason.RETIRED)
            rows["pending"][r, slot[i]] = _FREE
            continue
        if send["state"] == Slot.RELEASED:
            out.closure(r, send, campaign, Reason.RETIRED if gone else Reason.UNCONFIRMED)
            rows["pending"][r, slot[i]] = _FREE
            continue
        gates = _release_gates(some[i], send, campaign, policy, int(free_at[i]), int(quiet_until[i]), now)
        reason = gates[-1][0]
        seen = [gate for _, gate in gates]
        drops = reason is Reason.FREQUENCY_CAP and campaign.when_capped == "drop"
        if reason in (Reason.FREQUENCY_CAP, Reason.QUIET_HOURS) and not drops:
            moved = int(free_at[i] if reason is Reason.FREQUENCY_CAP else quiet_until[i])
            if moved < send["expires_at"]:
                rows["pending"]["due_at"][r, slot[i]] = moved
                out.release(r, rows["pending"][r, slot[i]], campaign, "deferred", reason, seen)
                continue
        if reason is not Reason.RELEASED:
            out.release(r, send, campaign, "withheld", reason, seen)
            rows["pending"][r, slot[i]] = _FREE
            continue
        provider = some["provider"][i].decode() or OTHER_PROVIDER
        lane = policy.routes.lane(campaign.identity, provider, out.names[r])
        out.release(r, send, campaign, "released", reason, seen, str(lane))
        _remember(rows, r, campaign, policy, now)
        if out.history:
            rows["pending"][r, slot[i]] = _FREE
        else:
            kept = rows["pending"][r, slot[i]]
            kept["state"], kept["provider"] = Slot.RELEASED, lane.provider.encode()
            kept["identity"], kept["part"] = policy.routes.number(lane.identity), lane.part


def _remember(rows: np.ndarray, number: int, campaign: Campaign, policy: Policy, now: int) -> None:
    """Note a release that some cap counts.

    Of a full list the oldest goes that no cap counts any more, else the oldest of the purpose that would have
    most entries: so each keeps at least its share of the list's newest, whatever the others do.
    """
    if not policy.caps_of(campaign):
        return
    sent_at, sent_campaign = rows["sent_at"][number], rows["sent_campaign"][number]
    goes = 0
    if sent_at[0]:  # newest last: the list is full
        sends = [policy.campaign(each) for each in sent_campaign.tolist()]
        goes = next((i for i, each in enumerate(sends) if not policy.caps_of(each)), -1)
        if goes < 0:
            purposes = [each.purpose for each in (*sends, campaign)]
            goes = purposes.index(max(purposes, key=purposes.count))
    sent_at[goes:-1], sent_campaign[goes:-1] = sent_at[goes + 1 :].copy(), sent_campaign[goes + 1 :].copy()
    sent_at[-1], sent_campaign[-1] = seconds(now), campaign.number


def _release_gates(
    row: np.void, send: np.void, campaign: Campaign, policy: Policy, free_at: int, quiet_until: int, now: int
) -> list[tuple[Reason, Gate]]:
    """Gates of a release in order, up to the first that holds it; the last entry's reason is the answer."""
    rule, purpose = policy.rule(campaign), campaign.purpose
    consent = contact.consent_of(row, purpose)
    suppression = Suppression(row["suppressed"]).name.lower()
    asked = [
        (Reason.EXPIRED, "expiry", now < send["expires_at"], f"expires at {send['expires_at']}"),
        (Reason.SUPPRESSED, "suppression", not contact.suppresses(rule, row["suppressed"]), suppression),
        (
            Reason.NO_CONSENT,
            "consent",
            contact.consented(rule, consent),
            f"{purpose} {consent.name.lower() if purpose in PURPOSES else rule.consent}",
        ),
        (Reason.FREQUENCY_CAP, "frequency_cap", free_at <= now, f"free from {free_at}"),
    ]
    if rule.quiet_hours:
        asked.append(
            (Reason.QUIET_HOURS, "quiet_hours", quiet_until <= now, f"quiet until {quiet_until}"),
        )
    gates: list[tuple[Reason, Gate]] = []
    for reason, name, passed, detail in asked:
        gates.append((Reason.RELEASED if passed else reason, Gate(name, bool(passed), detail, "")))
        if not passed:
            break
    return gates


def withdraw(
    rows: np.ndarray, number: int, policy: Policy, concerns: Callable[[Campaign], bool], out: Output
) -> None:
    """Free the slots of one owned row whose campaign it concerns; recall what was released."""
    pending = rows["pending"][number]
    for slot in np.flatnonzero(pending["state"]).tolist():
        send = pending[slot].copy()
        campaign = policy.campaign(int(send["campaign"]))
        if not concerns(campaign):
            continue
        if send["state"] == Slot.PENDING:
            out.release(number, send, campaign, "withheld", Reason.WITHDRAWN)
        else:
            lane = LaneName(
                send["provider"].decode(), policy.routes.identity(send["identity"]), int(send["part"])
            )
            out.recall(number, send, campaign, str(lane), Reason.WITHDRAWN)
            out.closure(number, send, campaign, Reason.WITHDRAWN)
        pending[slot] = _FREE


def find(rows: np.ndarray, number: int, policy: Policy, dispatch_id: str | None) -> int | None:
    """Slot of one row that holds this dispatch; None if none does."""
    pending = rows["pending"][number]
    for slot in np.flatnonzero(pending["state"]).tolist():
        channel = policy.campaign(int(pending["campaign"][slot])).channel
        if ids.dispatch_id(audit.decision_of(pending[slot]), channel) == dispatch_id:
            return int(slot)
    return None


def close(rows: np.ndarray, number: int, slot: int, policy: Policy, reason: Reason, out: Output) -> None:
    """Free one slot of an owned row because delivery said what became of it."""
    send = rows["pending"][number, slot]
    out.closure(number, send, policy.campaign(int(send["campaign"])), reason)
    rows["pending"][number, slot] = _FREE
