"""The choice of docs/decisions.md, section 4, item 6, one hour at a time, with a model's arrays."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from models.sendtime.model import HourModel
from schemas.profile import HOUR_MS, WEEK_HOURS, WEIGHT_ONE
from tests.reference.clock import local_week_hour
from tests.reference.state import Recipient

PRIOR, THIN, RECIPIENT = "prior", "thin", "recipient"
TIERS = (PRIOR, THIN, RECIPIENT)
QUANTA = 4096
SIX_WEEKS = 1008


@dataclass(frozen=True)
class Candidate:
    """An hour in which the message might go."""

    hour: int
    due_at: int


@dataclass(frozen=True)
class Choice:
    """The hour that was chosen and how."""

    tier: str
    chosen: Candidate
    score: float
    runner_up: Candidate | None
    runner_up_score: float | None
    propensity: float


@dataclass(frozen=True)
class Judged:
    """Candidates with a whole-number score each, in 1/4096 of a logit, by one tier."""

    tier: str
    candidates: list[Candidate]
    scores: list[int]

    @property
    def best(self) -> int:
        """The place of the highest score, the earliest of equals."""
        return self.scores.index(max(self.scores))


def tier_of(model: HourModel, recipient: Recipient, known: bool) -> str:
    """What is known of a recipient: nothing, little, or enough."""
    n = sum(recipient.active) / WEIGHT_ONE
    if not known or n == 0:
        return PRIOR
    return THIN if n < model.thin else RECIPIENT


def judge(
    model: HourModel, recipient: Recipient, zone: str, candidates: Sequence[Candidate], tier: str
) -> Judged:
    """Score candidates."""
    return Judged(
        tier, [*candidates], [_score(model, recipient, zone, each.hour, tier) for each in candidates]
    )


def terms(
    model: HourModel, recipient: Recipient, zone: str, allowed: Sequence[Candidate], tier: str, chosen: int
) -> dict[str, float]:
    """How far each kind of term puts the chosen hour above the mean of the allowed."""
    parts = [_parts(model, recipient, zone, each.hour, tier) for each in allowed]
    above = {name: parts[chosen][name] - sum(part[name] for part in parts) / len(parts) for name in parts[0]}
    told = {name: round(value * QUANTA) / QUANTA for name, value in above.items()}
    return {name: value for name, value in told.items() if value}


def chance(
    model: HourModel,
    recipient: Recipient,
    zone: str,
    allowed: Sequence[Candidate],
    tier: str,
    of: Candidate,
) -> float:
    """With which probability that candidate would be drawn."""
    judged = judge(model, recipient, zone, allowed, tier)
    weights = [_weight(model, tier, max(judged.scores) - score) for score in judged.scores]
    drawn = (1 - model.floor) * (weights[allowed.index(of)] / sum(weights))
    return drawn + model.floor * (1 / len(weights))


def _score(model: HourModel, recipient: Recipient, zone: str, hour: int, tier: str) -> int:
    return round(sum(_parts(model, recipient, zone, hour, tier).values()) * QUANTA)


def _parts(model: HourModel, recipient: Recipient, zone: str, hour: int, tier: str) -> dict[str, float]:
    prior, a = model.prior, recipient.active
    names = [name.decode() for name in prior.zones.tolist()]
    group = names.index(zone) + 1 if zone in names else 0
    hours, weekdays = prior.hours[group].tolist(), prior.weekdays[group].tolist()
    n = sum(a) / WEIGHT_ONE
    s = local_week_hour(zone, hour)
    h, weekday = s % 24, s // 24
    b = [sum(a[day * 24 + i] for day in range(7)) for i in range(24)]
    day = b[(h - 1) % 24] + 2 * b[h] + b[(h + 1) % 24]
    week = a[(s - 1) % WEEK_HOURS] + 2 * a[s] + a[(s + 1) % WEEK_HOURS]
    day_share = (day / 1024 + prior.kappa_day * hours[h]) / (n + prior.kappa_day)
    week_share = (week / 1024 + prior.kappa_week * (day_share * weekdays[weekday])) / (n + prior.kappa_week)
    row = TIERS.index(tier)
    of_day, of_week, of_trust, of_prior = (float(each) for each in model.weights[row])
    last = max(recipient.last.values(), default=0)
    lag = min(max(hour - last // HOUR_MS, 0), SIX_WEEKS) if last else SIX_WEEKS
    own = of_day * math.log(24 * day_share)
    own += (of_week + of_trust * (n / (n + 20))) * math.log(168 * week_share)
    return {
        "own hours": own,
        "everybody's hours": of_prior * math.log(168 * (weekdays[weekday] * hours[h])),
        "time since the last activity": float(model.lag[row, lag]),
    }


def probability(model: HourModel, recipient: Recipient, now: int, tier: str, score: int) -> float:
    """How likely the recipient is active in an hour of that score; in 1/1048576."""
    n = sum(recipient.active) / WEIGHT_ONE
    age = max(now // HOUR_MS - recipient.first // HOUR_MS, 0) if recipient.first else 0
    fade = math.log(2) / (90 * 24)
    observed = -math.expm1(-fade * age) / fade
    constant, slope, of_rate, of_number = model.calibration[TIERS.index(tier)].tolist()
    rate, number = math.log((n + 1) / (observed + 168)), math.log1p(n)
    odds = (constant + of_rate * rate + of_number * number) + slope * (score / QUANTA)
    return round(2**20 / (1 + math.exp(-odds))) / 2**20


def choose(
    model: HourModel,
    recipient: Recipient,
    zone: str,
    decision: uuid.UUID,
    allowed: Sequence[Candidate],
    tier: str,
    now: int,
) -> Choice:
    """The draw among the allowed, of which there is at least one."""
    judged = judge(model, recipient, zone, allowed, tier)
    weights = [_weight(model, tier, max(judged.scores) - score) for score in judged.scores]
    u = int.from_bytes(decision.bytes[0:8], "big") / 2**64
    if u < model.floor:
        place = _drawn(u / model.floor, [1] * len(weights))
    else:
        place = _drawn((u - model.floor) / (1 - model.floor), weights)
    runner_up: int | None = None
    for index, score in enumerate(judged.scores):
        if index != place and (runner_up is None or score > judged.scores[runner_up]):
            runner_up = index
    drawn = (1 - model.floor) * (weights[place] / sum(weights))

    def told(index: int) -> float:
        return probability(model, recipient, now, tier, judged.scores[index])

    return Choice(
        tier=tier,
        chosen=allowed[place],
        score=told(place),
        runner_up=None if runner_up is None else allowed[runner_up],
        runner_up_score=None if runner_up is None else told(runner_up),
        propensity=drawn + model.floor / len(weights),
    )


def _weight(model: HourModel, tier: str, behind: int) -> int:
    """How many lots an hour has that is so far behind the best: 2^30 of that one."""
    if tier == PRIOR:
        behind = round(behind * model.temperature)
    return round(2**30 * math.exp(-behind / QUANTA / model.temperature))


def _drawn(share: float, weights: list[int]) -> int:
    running = 0
    last = 0
    for index, weight in enumerate(weights):
        running += weight
        last = index if weight else last
        if running > share * sum(weights):
            return index
    return last
