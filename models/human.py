"""How probable a person is behind a click or an open: machines follow links and load images too."""

from typing import Final

import numpy as np

from models import columns
from schemas.profile import CLICK, HOUR_MS, KINDS, OPEN, SECOND_MS, UNITS

# Doubt is a byte: how often what the producer declares halves the probability, and a bit for links of mail.
MACHINE: Final = 255  # no person did it
OF_MAIL: Final = 16
_DECLARED: Final = OF_MAIL - 1
_SCANNER: Final = "scanner"
_PROXY: Final = "proxy"
_PREFETCHES: Final = "privacy_proxy"
_DATACENTER: Final = "datacenter"
_OF_DATACENTER: Final = 2  # judgement, as all that follows
# By the time since the latest release to the recipient: links are checked on arrival.
_AT_ONCE_MS: Final = 10 * SECOND_MS
_SOON_MS: Final = 60 * SECOND_MS
# By the time between two clicks of a recipient: several links followed in a burst.
_BURST_MS: Final = 1 * SECOND_MS
_QUICK_MS: Final = 3 * SECOND_MS


def doubt(kind: str, agent: str | None, network: str | None, of_mail: bool) -> int:
    """The doubt of an event, by what its producer tells; `of_mail`: of a dispatch."""
    if agent == _SCANNER or (kind == KINDS[OPEN] and network == _PREFETCHES):
        return MACHINE
    clicks = kind == KINDS[CLICK]
    # A mailbox provider's proxy stands in a data centre, and asks when a person opens.
    doubted = clicks or (kind == KINDS[OPEN] and agent != _PROXY)
    return _OF_DATACENTER * (doubted and network == _DATACENTER) + OF_MAIL * (clicks and of_mail)


def weights(
    who: tuple[np.ndarray, np.ndarray],
    kind: np.ndarray,
    at: np.ndarray,
    kept: np.ndarray,
    doubts: np.ndarray,
    last: np.ndarray,
    sent: np.ndarray,
    now: int,
) -> np.ndarray:
    """What n events count, int64 (n,): clicks and opens in quarters, at least one; all others one.

    Parameters
    ----------
    who, kind, at, kept
        Row and life of each event, and the rest as in `profile.Events`, in its order.
    doubts
        Of each event, u1: never `MACHINE`.
    last
        Time of the latest click before any of the events, UTC ms, 0 never, by life.
    sent
        Latest releases, UTC s, rounded up, 0 for none, (rows, k).
    """
    row, life = who
    halvings = doubts.astype(np.int64) & _DECLARED
    clicks = np.flatnonzero(doubts & OF_MAIL)
    if len(clicks):
        # Not of late ones: a release in this cut may have driven theirs out of the row's memory.
        timely = clicks[at[clicks] > now - HOUR_MS]
        halvings[timely] += _since_release(np.minimum(at[timely], now), sent[row[timely]])
        latest = _latest(life, np.where(kept & (kind == CLICK), at, 0), last)[clicks]
        between = np.where(latest > 0, np.abs(at[clicks] - latest), _QUICK_MS)
        halvings[clicks] += _halvings(between, _BURST_MS, _QUICK_MS)
    unit = UNITS[kind]
    return np.where(unit > 1, np.maximum(unit >> halvings, 1), 1)


def _latest(life: np.ndarray, times: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Latest of the times of a life before each, UTC ms, 0 for none; `last` before the first."""
    upto = columns.running_max(times, life)
    before = np.where(columns.starts(life), 0, np.roll(upto, 1))
    return np.asarray(np.maximum(before, last[life]))


def _since_release(at: np.ndarray, sent: np.ndarray) -> np.ndarray:
    waits = at[:, None] - sent.astype(np.int64) * SECOND_MS
    since = np.where((sent > 0) & (waits > 0), waits, _SOON_MS).min(1)
    return _halvings(since, _AT_ONCE_MS, _SOON_MS)


def _halvings(time: np.ndarray, short: int, longer: int) -> np.ndarray:
    """Two below the first bound, one below the second."""
    return (time < short).astype(np.int64) + (time < longer)
