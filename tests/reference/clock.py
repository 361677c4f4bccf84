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


def quiet_hours(contact: Contact, place: str) -> set[int]:
    """The quiet hours of day of a place: those of its region, else of its country, else the default's."""
    country = place.partition("-")[0]
    quiet = contact.quiet.get(place) or contact.quiet.get(country) or contact.quiet.get("default")
    hours: set[int] = set()
    if quiet is not None:
        hour = quiet.start
        while hour != quiet.end:
            hours.add(hour)
            hour = (hour + 1) % 24
    return hours


def is_quiet(contact: Contact, place: str, zone: str, hour: int) -> bool:
    """Whether UTC hour `hour` is quiet there."""
    return local_hour(zone, hour) in quiet_hours(contact, place)
