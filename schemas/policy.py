"""Policy as files: segments, campaigns, contact policy and send time, typed, checked and hashed."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from schemas import zones
from schemas.profile import KINDS, MAX_CAMPAIGNS, MAX_SEGMENTS, PURPOSES, SENT_SLOTS, Suppression
from schemas.routes import DEFAULT_IDENTITY, IdentityName, Routes
from schemas.units import Duration, Span

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Purpose = Literal["mail", "transactional"]  # of a message
BUILT_IN: Final = "built-in"  # version of the send-time model that a policy has in itself
SUPPRESSIONS: Final = tuple(each.name.lower() for each in Suppression if each != Suppression.NONE)
_SHARES_SUM: Final = 1.0


class PolicyError(ValueError):
    """The policy is wrong; the message names the place and what would be right, a line for each problem."""


class Strict(BaseModel):
    """What a policy file says: nothing that it does not know, and nothing that changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Segment(Strict):
    """A group of recipients: one SQL boolean expression over named features."""

    number: int = Field(strict=True, ge=0, lt=MAX_SEGMENTS, description="Bit in the row; never reused.")
    name: Name
    where: str
    doc: str

    @cached_property
    def definition(self) -> str:
        """Hash that decisions and transitions carry."""
        return hashlib.sha256(f"{self.number}/{self.name}/{self.where}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Applied:
    """All segments as they were put in force, and since which version of control; 0: since ever."""

    version: int
    segments: tuple[Segment, ...]


class Trigger(Strict):
    """What makes a campaign ask: entering or leaving a segment, or an event of a kind."""

    enter: Name | None = None
    leave: Name | None = None
    event: Literal[KINDS] | None = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.enter, self.leave, self.event)) != 1:
            raise ValueError("a trigger has exactly one of enter, leave, event")
        return self


class Arms(Strict):
    """Shares of a campaign's recipients, by a sticky hash; the model has the rest."""

    control: float = Field(0.0, ge=0, le=1, description="Whose hour is drawn from the prior.")
    hold_out: float = Field(0.0, ge=0, le=1, description="Who get nothing of this campaign.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.control + self.hold_out > 1:
            raise ValueError(f"the arms' shares exceed 1: {self.control} + {self.hold_out}")
        return self


class Campaign(Strict):
    """A rule: its cause, whom it is for, what it sends, and its pause."""

    number: int = Field(strict=True, ge=0, lt=MAX_CAMPAIGNS, description="Column in the row; never reused.")
    name: Name
    version: int = Field(strict=True, ge=1)
    doc: str
    owner: str | None = Field(None, min_length=1, description="Who answers for it.")
    trigger: Trigger
    audience: Name | None = None
    purpose: Purpose = "mail"
    channel: Literal["mail"] = "mail"
    template: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="A folder in templates/.")
    priority: int = Field(1, strict=True, ge=1, le=1000, description="Weight where several want a recipient.")
    value: float = Field(1.0, gt=0, description="What a message is worth that is read in its hour.")
    timing: Literal["best_hour", "at_once"] = "best_hour"
    when_capped: Literal["defer", "drop"] = Field(
        "defer", description="A message whose hour is capped takes another, or is dropped."
    )
    identity: IdentityName = Field(DEFAULT_IDENTITY, description="In whose name it is sent.")
    arms: Arms = Arms()
    cooldown: Duration
    expiry: Span
    guarantee: Literal["at_most_once", "at_least_once"] = Field(
        "at_most_once", description="What happens to a message whose outcome was lost: left, or sent again."
    )


def _hour(text: object) -> object:
    """Read `21:00` as 21."""
    if isinstance(text, str) and text.endswith(":00") and text[:-3].isdigit():
        return int(text[:-3])
    raise ValueError(f'{text!r} is not a full hour; write for example "21:00"')


Hour = Annotated[int, BeforeValidator(_hour), Field(ge=0, le=23)]


class Cap(Strict):
    """How many messages of some purposes a recipient gets in any window of a length."""

    most: int = Field(strict=True, ge=1, le=SENT_SLOTS, description="Messages in the window.")
    window: Span
    purposes: tuple[Purpose, ...] = Field(("mail",), min_length=1, description="What it counts and holds.")

    def __str__(self) -> str:
        """Print as `1 in 16 h`."""
        return f"{self.most} in {self.window}"


class Quiet(Strict):
    """Hours of the recipient's clock in which nothing is sent; they may span midnight."""

    start: Hour = Field(alias="from")
    end: Hour = Field(alias="to", description="The same hour as `from`: never quiet.")

    def __str__(self) -> str:
        """Print as `21:00 to 08:00`."""
        return f"{self.start:02}:00 to {self.end:02}:00"


class PurposeRule(Strict):
    """What messages of a purpose need, and what holds them back."""

    consent: Literal["opt_in", "opt_out", "not_needed"] = Field(
        description="Consent must be granted, must not be withdrawn, or is not asked."
    )
    quiet_hours: bool = Field(True, description="Whether quiet hours hold it back.")
    suppressed_by: tuple[Literal[SUPPRESSIONS], ...] = Field(  # type: ignore[valid-type]
        SUPPRESSIONS, description="Suppressions that hold it back."
    )
    hold_out: bool = Field(True, description="Whether the global hold-out goes without it.")

    @field_validator("suppressed_by")
    @classmethod
    def _graver_too(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if {*names} != {*SUPPRESSIONS[: len(names)]}:  # a row keeps the gravest only
            raise ValueError(
                f"what a suppression stops, a graver one stops: name {', '.join(SUPPRESSIONS)} up to yours"
            )
        return names


DEFAULT_PLACE: Final = "default"


def _place(name: str) -> str:
    """Check a country or a region, by ISO 3166 as far as its form goes."""
    if name != DEFAULT_PLACE and not re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", name):
        raise ValueError(f"{name!r} is no place; write a country (DE), a region (US-OH), or default")
    return name


Place = Annotated[str, AfterValidator(_place)]


class Contact(Strict):
    """How often and when a recipient may be written to, and for what."""

    default_zone: str = Field(description="IANA zone of recipients whose zone is unknown.")
    profiling: Literal["opt_in", "opt_out"] = Field(
        "opt_in", description="A profile is kept once consent to it is granted, or until it is withdrawn."
    )
    hold_out: float = Field(0.0, ge=0, lt=1, description="Share of recipients whom no campaign reaches.")
    purpose: dict[Purpose, PurposeRule]
    cap: tuple[Cap, ...] = ()
    quiet: dict[Place, Quiet] = Field(default_factory=dict, description="By region, country, or default.")

    @field_validator("default_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        if name not in zones.NAMES:
            raise ValueError(f"{name!r} is no IANA time zone{meant(name, zones.NAMES)}")
        return name

    @field_validator("purpose")
    @classmethod
    def _grantable(cls, rules: dict[str, PurposeRule]) -> dict[str, PurposeRule]:
        for name, rule in rules.items():
            if name not in PURPOSES and rule.consent != "not_needed":
                raise ValueError(f'nobody can consent to {name}; write consent = "not_needed"')
        return rules

    @field_validator("cap")
    @classmethod
    def _all_matter(cls, caps: tuple[Cap, ...]) -> tuple[Cap, ...]:
        for cap in caps:
            for other in caps:
                covers = other is not cap and set(other.purposes) >= set(cap.purposes)
                if covers and other.window >= cap.window and other.most <= cap.most:
                    raise ValueError(f"the cap of {cap} is never reached: that of {other} holds before it")
        counted = {purpose for cap in caps for purpose in cap.purposes}
        for cap in caps:
            if cap.most > SENT_SLOTS // len(counted):
                held = f"{SENT_SLOTS // len(counted)} is the most where caps count {len(counted)} purposes"
                raise ValueError(f"the cap of {cap} counts more sends than a row remembers: {held}")
        return caps


class SendTime(Strict):
    """Parameters of the built-in send-time model, which serves until a trained one is promoted."""

    kappa_day: float = Field(gt=0, description="Active hours the prior weighs in the hour-of-day profile.")
    kappa_week: float = Field(gt=0, description="Active hours the day profile weighs in the week's.")
    thin_history: float = Field(ge=0, description="Below so many active hours the prior alone decides.")
    temperature: float = Field(
        0.1, ge=0.01, le=10, description="Of the draw: the lower, the more surely the best hour is taken."
    )
    floor: float = Field(0.02, ge=0, lt=1, description="Share of hours drawn evenly, so that all are tried.")
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


@dataclass(frozen=True)
class Fault:
    """A segment or campaign that does not go with the others: the field at fault, and what is wrong."""

    of: Segment | Campaign
    field: tuple[str, ...]
    text: str


NAMING: Final = (("audience",), ("trigger", "enter"), ("trigger", "leave"))  # a campaign's segments


def faults(
    segments: Sequence[Segment],
    campaigns: Sequence[Campaign],
    contact: Contact | None,
    routes: Routes | None,
) -> list[Fault]:
    """What is wrong with definitions that are each right by themselves; None: what is not known."""
    found: list[Fault] = []
    for kind, items in (("segment", segments), ("campaign", campaigns)):
        for field in ("number", "name"):
            first: dict[object, Segment | Campaign] = {}
            for item in items:
                value = getattr(item, field)
                if first.setdefault(value, item) is not item:
                    text = f"{field} {value} is that of {kind} {first[value].name} too: each has its own"
                    found.append(Fault(item, (field,), text))
    names = [segment.name for segment in segments]
    for campaign in campaigns:
        trigger = campaign.trigger
        for place, name in zip(NAMING, (campaign.audience, trigger.enter, trigger.leave), strict=True):
            if name is not None and name not in names:
                found.append(Fault(campaign, place, f"there is no segment {name}{meant(name, names)}"))
        if contact is not None and campaign.purpose not in contact.purpose:
            text = f"contact.toml has no rule for {campaign.purpose}: add [purpose.{campaign.purpose}]"
            found.append(Fault(campaign, ("purpose",), text))
        if routes is not None and campaign.identity not in (DEFAULT_IDENTITY, *routes.identities):
            asked = meant(campaign.identity, routes.identities)
            text = (
                f"lanes.toml has no identity {campaign.identity}{asked}: add it to identities, with a number"
            )
            found.append(Fault(campaign, ("identity",), text))
    return found


def meant(word: str, words: Iterable[str]) -> str:
    """A question after a word that is none of `words`: what was probably meant; empty if nothing is near."""
    near = get_close_matches(word, [*words], 1)
    return f"; did you mean {near[0]}?" if near else ""


class Policy(Strict):
    """Everything that decides, as of one moment."""

    segments: tuple[Segment, ...]
    campaigns: tuple[Campaign, ...]
    contact: Contact
    send_time: SendTime
    routes: Routes = Routes()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = faults(self.segments, self.campaigns, self.contact, self.routes)
        if found:
            raise ValueError("; ".join(f"{fault.of.name}: {fault.text}" for fault in found))
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

    @cached_property
    def counted(self) -> tuple[np.ndarray, ...]:
        """For each cap and number of a campaign, whether it counts and holds its messages, bool (256,)."""
        purposes = [self.campaign(number).purpose for number in range(256)]
        return tuple(np.array([each in cap.purposes for each in purposes]) for cap in self.contact.cap)

    @cached_property
    def _caps_of(self) -> dict[str, tuple[tuple[int, Cap], ...]]:
        return {
            purpose: tuple((i, cap) for i, cap in enumerate(self.contact.cap) if purpose in cap.purposes)
            for purpose in get_args(Purpose)
        }

    def caps_of(self, campaign: Campaign) -> tuple[tuple[int, Cap], ...]:
        """The caps that hold a campaign's messages, each with its place in the contact policy."""
        return self._caps_of[campaign.purpose]

    @cached_property
    def _caps_told(self) -> dict[str, str]:
        return {purpose: " and ".join(str(cap) for _, cap in caps) for purpose, caps in self._caps_of.items()}

    def caps_told(self, campaign: Campaign) -> str:
        """Those caps in words: `1 in 16 h and 5 in 30 d`."""
        return self._caps_told[campaign.purpose]

    def rule(self, campaign: Campaign) -> PurposeRule:
        """The rule of a campaign's purpose; the strictest for a stand-in's where there is none."""
        return self.contact.purpose.get(campaign.purpose) or PurposeRule(consent="opt_in")


def with_segments(policy: Policy, segments: tuple[Segment, ...]) -> Policy:
    """The policy with other segments. Raises PolicyError where its campaigns do not go with them."""
    found = faults(segments, policy.campaigns, policy.contact, policy.routes)
    if found:
        raise PolicyError("\n".join(f"{fault.of.name}: {fault.text}" for fault in found))
    return Policy(
        segments=segments,
        campaigns=policy.campaigns,
        contact=policy.contact,
        send_time=policy.send_time,
        routes=policy.routes,
    )
