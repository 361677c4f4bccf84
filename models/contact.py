"""Contact policy: consent, suppression, rolling caps, quiet hours; for moments and for hours to choose."""

from typing import Final

import numpy as np

from models import zones
from schemas.policy import DEFAULT_PLACE, Contact, Policy, PurposeRule
from schemas.profile import HOUR_MS, PURPOSES, SECOND_MS, SENT_SLOTS, Consent, Slot, Suppression

_UNASKED: Final = -1
_LONGEST_QUIET: Final = 49  # hours: 23 of a day, and those that a change of clocks skips


def zone_of(rows: np.ndarray, contact: Contact) -> np.ndarray:
    """Zone of each row, the default where unknown, S32 (n,)."""
    return known_zone(rows["zone"], contact)


def known_zone(zone: np.ndarray, contact: Contact) -> np.ndarray:
    """Zones, the default where one is empty, S32 (n,)."""
    return np.where(zone == b"", np.bytes_(contact.default_zone), zone).astype("S32")


def consent_of(row: np.void, purpose: str) -> Consent:
    """What a row says of a purpose; of one that nobody can consent to it is unknown."""
    return Consent(row["consent"][PURPOSES.index(purpose)]) if purpose in PURPOSES else Consent.UNKNOWN


def may_profile(state: np.ndarray, contact: Contact) -> np.ndarray:
    """Whether that state of consent to profiling lets behaviour be kept, bool of the shape of `state`."""
    wanted = state == Consent.GRANTED if contact.profiling == "opt_in" else state != Consent.WITHDRAWN
    return np.asarray(wanted)


def consented(rule: PurposeRule, consent: int) -> bool:
    """Whether that state of consent lets a message of the rule's purpose go."""
    if rule.consent == "opt_in":
        return consent == Consent.GRANTED
    return rule.consent == "not_needed" or consent != Consent.WITHDRAWN


def suppresses(rule: PurposeRule, suppressed: int) -> bool:
    """Whether a row's suppression holds messages of the rule's purpose back."""
    return suppressed != Suppression.NONE and Suppression(suppressed).name.lower() in rule.suppressed_by


def cap_free_at(rows: np.ndarray, number: np.ndarray, now: int, policy: Policy) -> np.ndarray:
    """When all caps let the next message of a campaign (by number) out, UTC ms, int64 (n,); `now` if at once.

    The latest releases stand newest last, so a window is full exactly while its cap-th newest is in it.
    """
    free = np.full(len(rows), now)
    for cap, counts in zip(policy.contact.cap, policy.counted, strict=True):
        counted = np.where(counts[rows["sent_campaign"]], rows["sent_at"].astype(np.int64) * SECOND_MS, 0)
        decisive = np.sort(counted, axis=1)[:, SENT_SLOTS - cap.most]
        holds = counts[number] & (decisive > 0)
        free = np.maximum(free, np.where(holds, decisive + int(cap.window), now))
    return free


def cap_counts(rows: np.ndarray, number: np.ndarray, due: np.ndarray, policy: Policy) -> np.ndarray:
    """Messages that share each cap's window with one of a campaign (by number) at each time.

    Releases in the window before it, and sends that wait for a time less than a window away on either side.

    Parameters
    ----------
    due
        UTC ms, shape (n, k).

    Returns
    -------
    int64 (c, n, k) for c caps; -1 where a cap does not concern the campaign.
    """
    found = np.full((len(policy.contact.cap), *due.shape), _UNASKED)
    pending, sent_at = rows["pending"], rows["sent_at"].astype(np.int64) * SECOND_MS
    for which, (cap, counts) in enumerate(zip(policy.contact.cap, policy.counted, strict=True)):
        window = int(cap.window)
        sent = sent_at[:, None, :] > due[:, :, None] - window
        sent &= (counts[rows["sent_campaign"]] & (sent_at > 0))[:, None, :]
        near = np.abs(pending["due_at"][:, None, :] - due[:, :, None]) < window
        near &= (counts[pending["campaign"]] & (pending["state"] == Slot.PENDING))[:, None, :]
        found[which] = np.where(counts[number][:, None], sent.sum(2) + near.sum(2), _UNASKED)
    return found


def quiet_ends_at(rows: np.ndarray, now: int, contact: Contact) -> np.ndarray:
    """Start of the first UTC hour that is not quiet, UTC ms, int64 (n,); `now` if this one is not."""
    hours = now // HOUR_MS + np.arange(_LONGEST_QUIET)
    zone = zone_of(rows, contact)
    quiet = is_quiet(
        rows, zones.local_hours(zone, np.broadcast_to(hours, (len(zone), len(hours))).copy()), contact
    )
    ends = hours[np.argmin(quiet, axis=1)] * HOUR_MS
    return np.where(quiet[:, 0], ends, now)


def is_quiet(rows: np.ndarray, local: np.ndarray, contact: Contact) -> np.ndarray:
    """Whether local hours since 1970 (n, k) lie in the quiet hours where the recipient is, bool (n, k)."""
    places, which = np.unique(rows["place"], return_inverse=True)
    quiet = [quiet_at(place.decode(errors="replace"), contact) for place in places.tolist()]
    start, end = np.array(quiet, np.int64).reshape(-1, 2)[which].T[:, :, None]
    hour = local % 24
    spans_midnight = start > end
    inside = np.where(spans_midnight, (hour >= start) | (hour < end), (hour >= start) & (hour < end))
    return np.asarray(inside)


def quiet_at(place: str, contact: Contact) -> tuple[int, int]:
    """First quiet hour of a place and the first that is not: of its region, its country, or the default."""
    for name in (place, place.split("-")[0], DEFAULT_PLACE):
        if quiet := contact.quiet.get(name):
            return quiet.start, quiet.end
    return 0, 0
