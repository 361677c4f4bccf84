"""Policy as files: segments, campaigns, contact policy and send time, typed, checked and hashed."""

import hashlib
import tomllib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from schemas.profile import KINDS, MAX_CAMPAIGNS, MAX_SEGMENTS, SENT_SLOTS
from schemas.units import Duration, Milliseconds, PerSecond

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
OTHER_PROVIDER: Final = "other"
_SHARES_SUM: Final = 1.0
_T = TypeVar("_T", bound=BaseModel)


class PolicyError(ValueError):
    """A policy file is wrong; the message names the file, the field and what would be right."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Segment(_Strict):
    """A group of recipients: one SQL boolean expression over named features."""

    number: int = Field(ge=0, lt=MAX_SEGMENTS, description="Bit in the row; never reused.")
    name: Name
    where: str
    doc: str

    @cached_property
    def definition(self) -> str:
        """Hash that decisions and transitions carry."""
        return hashlib.sha256(f"{self.number}/{self.name}/{self.where}".encode()).hexdigest()[:12]


class Trigger(_Strict):
    """What makes a campaign ask: entering or leaving a segment, or an event of a kind."""

    enter: Name | None = None
    leave: Name | None = None
    event: Literal[KINDS] | None = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.enter, self.leave, self.event)) != 1:
            raise ValueError("a trigger has exactly one of enter, leave, event")
        return self


class Campaign(_Strict):
    """A rule: its cause, whom it is for, what it sends, and its pause."""

    number: int = Field(ge=0, lt=MAX_CAMPAIGNS, description="Column in the row; never reused.")
    name: Name
    version: int = Field(ge=1)
    doc: str
    trigger: Trigger
    audience: Name | None = None
    purpose: Literal["mail"] = "mail"
    channel: Literal["mail"] = "mail"
    template: str
    cooldown: Duration
    expiry: Duration
    guarantee: Literal["at_most_once", "at_least_once"] = Field(
        "at_most_once", description="What happens to a message whose outcome was lost: left, or sent again."
    )


def _hour(text: object) -> object:
    """Read `21:00` as 21."""
    if isinstance(text, str) and text.endswith(":00") and text[:-3].isdigit():
        return int(text[:-3])
    raise ValueError(f'{text!r} is not a full hour; write for example "21:00"')


Hour = Annotated[int, BeforeValidator(_hour), Field(ge=0, le=23)]


class Contact(_Strict):
    """How often and when a recipient may be written to."""

    cap: int = Field(ge=1, le=SENT_SLOTS, description="Marketing messages in the window.")
    cap_window: Duration
    quiet_from: Hour
    quiet_to: Hour
    default_zone: str = Field(description="IANA zone of recipients whose zone is unknown.")


class SendTime(_Strict):
    """Parameters of the empirical-Bayes hour-of-week profile."""

    kappa_day: float = Field(gt=0, description="Active hours the prior weighs in the hour-of-day profile.")
    kappa_week: float = Field(gt=0, description="Active hours the day profile weighs in the week's.")
    thin_history: float = Field(ge=0, description="Below so many active hours the prior alone decides.")
    prior_hours: tuple[float, ...] = Field(
        min_length=24, max_length=24, description="Share of each local hour."
    )
    prior_weekdays: tuple[float, ...] = Field(
        min_length=7, max_length=7, description="Share of Monday to Sunday."
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        for name in ("prior_hours", "prior_weekdays"):
            shares = getattr(self, name)
            if min(shares) <= 0 or abs(sum(shares) - _SHARES_SUM) > 1e-6:
                raise ValueError(f"{name} must be positive and sum to 1, it sums to {sum(shares):.6f}")
        return self


class Policy(_Strict):
    """Everything that decides, as of one moment."""

    segments: tuple[Segment, ...]
    campaigns: tuple[Campaign, ...]
    contact: Contact
    send_time: SendTime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, items in (("segment", self.segments), ("campaign", self.campaigns)):
            for field in ("number", "name"):
                values = [getattr(item, field) for item in items]
                twice = {str(value) for value in values if values.count(value) > 1}
                if twice:
                    raise ValueError(f"{kind} {field} used twice: {', '.join(sorted(twice))}")
        known = {segment.name for segment in self.segments}
        for campaign in self.campaigns:
            for name in (campaign.audience, campaign.trigger.enter, campaign.trigger.leave):
                if name is not None and name not in known:
                    raise ValueError(f"campaign {campaign.name} names segment {name}, which is not defined")
        return self

    @cached_property
    def digest(self) -> str:
        """Hash that the journal and decisions carry."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @cached_property
    def by_number(self) -> dict[int, Campaign]:
        """Campaigns by the number that rows store."""
        return {campaign.number: campaign for campaign in self.campaigns}

    def campaign(self, number: int) -> Campaign:
        """The campaign of this number; a nameless stand-in where the policy no longer has it."""
        stand_in: dict[str, Any] = {
            "number": number,
            "name": f"campaign-{number}",
            "version": 0,
            "purpose": "mail",
            "channel": "mail",
        }
        return self.by_number.get(number) or Campaign.model_construct(**stand_in)

    def segment(self, name: str) -> Segment:
        """The segment of this name."""
        return next(segment for segment in self.segments if segment.name == name)


class Lane(_Strict):
    """How fast messages may go to one mailbox provider, and over how many connections."""

    rate: PerSecond
    burst: int | None = Field(
        None, ge=1, description="Messages that may go at once after a rest; default: a tenth of a second's."
    )
    connections: int = Field(4, ge=1, description="SMTP connections at once.")
    messages_per_connection: int = Field(100, ge=1, description="Then a fresh connection is made.")
    expiry: Duration = Field(
        Milliseconds.parse("24 h"), description="Longest wait in the lane; a campaign's own may be shorter."
    )


class Lanes(_Strict):
    """Pacing of every lane: named ones, and what holds for all others."""

    default: Lane
    lane: dict[str, Lane] = Field(default_factory=dict)

    def of(self, name: str) -> Lane:
        """The lane of this name."""
        return self.lane.get(name, self.default)


ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,11}$")]


class Providers(_Strict):
    """Which mailbox provider a domain belongs to."""

    provider: dict[ProviderName, tuple[str, ...]]

    @cached_property
    def _of(self) -> dict[str, str]:
        return {domain: name for name, domains in self.provider.items() for domain in domains}

    def of(self, domain: str) -> str:
        """The provider of a domain; `other` where none is known."""
        return self._of.get(domain.lower(), OTHER_PROVIDER)


def load_providers(folder: Path) -> Providers:
    """Read `providers.toml`. Raises PolicyError as `load`."""
    return _read(folder / "providers.toml", Providers)


def load_lanes(folder: Path) -> Lanes:
    """Read `lanes.toml`. Raises PolicyError as `load`."""
    return _read(folder / "lanes.toml", Lanes)


def load(folder: Path) -> Policy:
    """Read `segments/*.toml`, `campaigns/*.toml`, `contact.toml` and `sendtime.toml`.

    Raises
    ------
    PolicyError
        A file is missing, is not TOML, or holds a value that its type refuses.
    """
    segments = [_read(path, Segment) for path in sorted((folder / "segments").glob("*.toml"))]
    campaigns = [_read(path, Campaign) for path in sorted((folder / "campaigns").glob("*.toml"))]
    contact = _read(folder / "contact.toml", Contact)
    send_time = _read(folder / "sendtime.toml", SendTime)

    def build(_: dict[str, Any]) -> Policy:
        return Policy(
            segments=tuple(sorted(segments, key=lambda s: s.number)),
            campaigns=tuple(sorted(campaigns, key=lambda c: c.number)),
            contact=contact,
            send_time=send_time,
        )

    return _checked(folder, build, {})


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}; a policy folder needs this file") from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{path}: {error}") from error
    return _checked(path, lambda v: kind(**v), values)


def _checked(path: Path, build: Callable[[dict[str, Any]], _T], values: dict[str, Any]) -> _T:
    try:
        return build(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'policy'}: {e['msg']}" for e in error.errors()]
        raise PolicyError(f"{path}:\n" + "\n".join(lines)) from error
