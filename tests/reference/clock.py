"""Hours, days, weeks and local time: the head of docs/decisions.md and the hour-of-week rule of section 3."""

from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

from schemas.policy import Contact
from schemas.profile import HOUR_MS


def hour_of(moment: int) -> int:
    """Hour h of a time."""
    return moment // HOUR_MS


def day_of_hour(hour: int) -> int:
    """Day d of an hour."""
    return hour // 24


def week_of_hour(hour: int) -> int:
    """Week w of an hour; weeks begin on Monday."""
    return (day_of_hour(hour) + 3) // 7


@cache
def offset_minutes(zone: str, hour: int) -> int:
    """The zone's UTC offset in minutes at the start of UTC hour `hour`."""
    start = datetime.fromtimestamp(hour * 3600, UTC).astimezone(ZoneInfo(zone))
    offset = start.utcoffset()
    if offset is None:
        raise ValueError(f"zone {zone} has no UTC offset")
    return int(offset.total_seconds() // 60)


def local_week_hour(zone: str, hour: int) -> int:
    """Hour of the local week, Monday 00:00 first, of UTC hour `hour`. 1970-01-01 was a Thursday: 72."""
    local = (hour * 60 + offset_minutes(zone, hour)) // 60
    return (local + 72) % 168


def local_hour(zone: str, hour: int) -> int:
    """Local hour of day of UTC hour `hour`."""
    return local_week_hour(zone, hour) % 24


def is_quiet(contact: Contact, zone: str, hour: int) -> bool:
    """Whether UTC hour `hour` is quiet there; equal bounds mean that no hour is."""
    local = local_hour(zone, hour)
    if contact.quiet_from <= contact.quiet_to:
        return contact.quiet_from <= local < contact.quiet_to
    return local >= contact.quiet_from or local < contact.quiet_to
