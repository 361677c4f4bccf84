"""Evaluation times (section 2, step 5), rolling (section 2, step 1) and when a row is due (section 6)."""

import xxhash

from schemas.profile import DAY_MS, DAYS, HOUR_MS, HOURS, MINUTE_MS
from tests.reference.clock import day_of_hour, week_of_hour
from tests.reference.slots import UNCONFIRMED_MS
from tests.reference.state import Recipient

AFTER_LAST_MS = 50 * HOUR_MS


def roll(recipient: Recipient, hour: int) -> None:
    """What left the rings becomes 0, and each week boundary passed makes `active` fade."""
    for passed in range(recipient.hour + 1, hour + 1):
        if week_of_hour(passed) != week_of_hour(passed - 1):
            recipient.active = [w * 62096 >> 16 for w in recipient.active]
    recipient.hour = hour
    day = day_of_hour(hour)
    recipient.hourly = {(k, h): n for (k, h), n in recipient.hourly.items() if h > hour - HOURS}
    recipient.daily = {(k, d): n for (k, d), n in recipient.daily.items() if d > day - DAYS}
    recipient.revenue = {d: n for d, n in recipient.revenue.items() if d > day - DAYS}


def is_evaluation_time(recipient: Recipient, moment: int) -> bool:
    """A UTC midnight, or a full hour in `(L, L + 50 h]`."""
    if moment % DAY_MS == 0:
        return True
    last = max(recipient.last.values(), default=0)
    return last != 0 and moment % HOUR_MS == 0 and last < moment <= last + AFTER_LAST_MS


def latest_evaluation(recipient: Recipient, before: int, now: int) -> int | None:
    """The latest evaluation time in `(before, now]`."""
    moment = now // HOUR_MS * HOUR_MS
    while moment > before:
        if is_evaluation_time(recipient, moment):
            return moment
        moment -= HOUR_MS
    return None


def next_evaluation(recipient: Recipient, now: int) -> int:
    """The earliest evaluation time after `now`; midnight at the latest."""
    moment = (now // HOUR_MS + 1) * HOUR_MS
    while not is_evaluation_time(recipient, moment):
        moment += HOUR_MS
    return moment


def swept_at(recipient_id: str, now: int) -> int:
    """Section 6: the next moment after `now` at which the sweep is at the recipient."""
    moment = xxhash.xxh3_64(recipient_id.encode()).intdigest() % MINUTE_MS
    minute = now // MINUTE_MS * MINUTE_MS
    return minute + moment if minute + moment > now else minute + MINUTE_MS + moment


def due_at(recipient: Recipient, now: int, paused: bool) -> int:
    """Section 6. A slot that became overdue during a pause counts as soon as the pause is over."""
    times = [next_evaluation(recipient, now)]
    for slot in recipient.slots:
        if slot is None:
            continue
        if slot.released:
            times.append(slot.expires_at + UNCONFIRMED_MS)
        else:
            times.append(slot.expires_at)
            if not paused:
                times.append(slot.due_at)
    return min(times)
