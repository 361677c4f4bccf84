"""The hours in which a message might go, and which of them the gates leave."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models import contact, zones
from models.campaigns import Campaigns
from schemas.policy import Policy
from schemas.profile import HOUR_MS, MINUTE_MS
from schemas.reasons import Reason
from schemas.routes import OTHER_PROVIDER

# A release up to 15 minutes late stays in the hour that was chosen, and so outside quiet hours.
_JITTER_MS: Final = 45 * MINUTE_MS

CANDIDATES: Final = 24
GATES: Final = (Reason.EXPIRED, Reason.QUIET_HOURS, Reason.FREQUENCY_CAP, Reason.LANE_FULL)

# UTC hours since 1970 in which nothing more fits through the lanes of a mailbox provider, by provider.
FullHours = Mapping[str, frozenset[int]]


@dataclass(frozen=True)
class Hours:
    """The candidate hours of n triggers: when each is due, UTC ms, its UTC and local hours (n, 24).

    Of each of `GATES`, `left` says how many hours it left, `emptied` whether it left none, (n, g): then it is
    set aside for the gates after it. `allowed` (n, 24) are the hours that the gates leave that were not
    set aside, always some: those that can be chosen, or could have been. `caps` is as `contact.cap_counts`.
    """

    due: np.ndarray
    start: np.ndarray
    local: np.ndarray
    allowed: np.ndarray
    left: np.ndarray
    emptied: np.ndarray
    caps: np.ndarray


def hours_of(
    some: np.ndarray,
    campaigns: Campaigns,
    which: np.ndarray,
    decisions: Sequence[uuid.UUID],
    policy: Policy,
    now: int,
    full: FullHours,
) -> Hours:
    """Work out the hours of n triggers: `some` are their rows, `which` their campaigns, int64 (n,)."""
    jitter = np.array([int.from_bytes(d.bytes[8:], "big") % _JITTER_MS for d in decisions], np.int64)
    expires = now + campaigns.expiry[which]
    now_first = campaigns.at_once[which][:, None]
    start = now // HOUR_MS + np.arange(CANDIDATES) + np.where(now_first, 0, 1)
    first_is_now = now_first & (np.arange(CANDIDATES) == 0)
    due = np.where(first_is_now, now, start * HOUR_MS + jitter[:, None])
    local = zones.local_hours(contact.zone_of(some, policy.contact), start)

    most = np.array([cap.most for cap in policy.contact.cap], np.int64)[:, None, None]
    caps = contact.cap_counts(some, campaigns.number[which], due, policy)
    gates = (
        first_is_now | ((start + 1) * HOUR_MS <= expires[:, None]),
        ~(campaigns.heeds_quiet[which][:, None] & contact.is_quiet(some, local, policy.contact)),
        campaigns.drops[which][:, None] | ~(caps >= most).any(0),
        ~(campaigns.heeds_room[which][:, None] & _is_full(some, start, full)),
    )
    allowed = np.ones(due.shape, np.bool_)
    left, emptied = [], []
    for gate in gates:
        narrowed = allowed & gate
        left.append(narrowed.sum(1))
        emptied.append(left[-1] == 0)
        allowed = np.where(emptied[-1][:, None], allowed, narrowed)
    return Hours(due, start, local, allowed, np.stack(left, axis=1), np.stack(emptied, axis=1), caps)


def _is_full(some: np.ndarray, start: np.ndarray, full: FullHours) -> np.ndarray:
    """Whether nothing more fits on the way to each row's provider in each hour, bool (n, 24)."""
    found = np.zeros(start.shape, np.bool_)
    for provider, hours in full.items():
        mine = _providers(some) == provider.encode()
        found[mine] = np.isin(start[mine], [*hours])
    return found


def _providers(some: np.ndarray) -> np.ndarray:
    return np.where(some["provider"] == b"", np.bytes_(OTHER_PROVIDER), some["provider"])
