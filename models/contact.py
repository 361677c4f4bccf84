"""Contact policy: rolling caps and quiet hours, for moments of release and for hours to choose from."""

import numpy as np

from models import zones
from schemas.policy import Contact
from schemas.profile import HOUR_MS, SENT_SLOTS, Slot


def zone_of(rows: np.ndarray, contact: Contact) -> np.ndarray:
    """Zone of each row, the default where unknown, S32 (n,)."""
    return np.where(rows["zone"] == b"", np.bytes_(contact.default_zone), rows["zone"]).astype("S32")


def cap_free_at(rows: np.ndarray, now: int, contact: Contact) -> np.ndarray:
    """When the cap lets the next message out, UTC ms, int64 (n,); at or before `now` if at once.

    The latest releases stand newest last, so the window is full exactly while the cap-th newest is in it.
    """
    decisive = rows["sent_at"][:, SENT_SLOTS - contact.cap]
    return np.where(decisive > 0, decisive + int(contact.cap_window), now)


def quiet_ends_at(zone: np.ndarray, now: int, contact: Contact) -> np.ndarray:
    """Start of the first UTC hour that is not quiet, UTC ms, int64 (n,); `now` if none."""
    hours = now // HOUR_MS + np.arange(25)
    quiet = is_quiet(zones.local_hours(zone, np.broadcast_to(hours, (len(zone), 25)).copy()), contact)
    ends = hours[np.argmin(quiet, axis=1)] * HOUR_MS
    return np.where(quiet[:, 0], ends, now)


def is_quiet(local: np.ndarray, contact: Contact) -> np.ndarray:
    """Whether local hours since 1970 lie in the quiet hours, which may span midnight."""
    hour = local % 24
    if contact.quiet_from <= contact.quiet_to:
        return np.asarray((hour >= contact.quiet_from) & (hour < contact.quiet_to))
    return np.asarray((hour >= contact.quiet_from) | (hour < contact.quiet_to))


def cap_count(rows: np.ndarray, due: np.ndarray, contact: Contact) -> np.ndarray:
    """Messages that share the cap's window with one at each time in `due` (n, k), int64 (n, k).

    Releases in the window before it, and sends that wait for a time less than a window away on either side.
    """
    window = int(contact.cap_window)
    sent = rows["sent_at"][:, None, :] > due[:, :, None] - window
    pending = rows["pending"]
    near = np.abs(pending["due_at"][:, None, :] - due[:, :, None]) < window
    near &= (pending["state"] == Slot.PENDING)[:, None, :]
    return np.asarray(sent.sum(2) + near.sum(2))
