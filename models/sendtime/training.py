"""Training: a prior of everybody, factors of the terms, and the calibration, from windows after visits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np

from models import zones
from models.sendtime.activity import GUARD, Activity, TooFew, Windows
from models.sendtime.histories import OF_HOURS, TERMS, lag_terms, levels, terms
from models.sendtime.model import QUANTUM, TIERS, HourModel
from models.sendtime.shares import Prior, active_hours

THIN: Final = 5.0  # active hours below which own hours say little; the study's figure
TEMPERATURE: Final = 0.1
FLOOR: Final = 0.02
_WINDOWS: Final = 25_000  # more do not change the five factors
_KAPPAS_DAY: Final = (5.0, 10.0, 20.0, 40.0)
_KAPPAS_WEEK: Final = (40.0, 80.0, 160.0, 320.0)
_CALIBRATED: Final = 500_000  # hours that the calibration is of, at most
_TRIED: Final = 6000  # windows with which they are tried
_FEWEST: Final = 200  # windows with an activity: below, factors are noise
_OF_ZONE: Final = 1000.0  # active hours that everybody's prior weighs against a zone's own
_PAIRS: Final = 4  # inactive hours that each active one is compared with
_FOLDS: Final = 5
_SURE: Final = 1.64  # standard errors by which own hours must win among the thin: one in twenty by chance

_OWN: Final = [0, 1, 2, 4, 5]  # terms by which own hours are told, and those of everybody: the other
_PRIOR: Final = [3, 4, 5]

Report = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A model, and what its card tells of the training."""

    model: HourModel
    facts: dict[str, Any]


def train(activity: Activity, slots: int, until: int, report: Report = lambda _: None) -> Trained:
    """Train on windows of `slots` hours that closed before the UTC hour `until`.

    `report` is told of each step as it begins. Raises `TooFew`.
    """
    report("priors")
    known = activity.picked(activity.hour < until)
    prior = priors(known)
    report("histories")
    windows = _sample(known, slots, until)
    came = windows.picked(windows.came_back)
    if len(came) < _FEWEST:
        raise TooFew(
            f"{len(came)} of {len(windows)} visits were followed by another within {slots} hours; "
            f"at least {_FEWEST} are needed"
        )
    report("kappas")
    prior = _shrunk(prior, came)
    report("factors")
    thin = active_hours(came.histories.active) < THIN
    of_thin = _thin_factors(came.picked(thin), prior)
    of_recipient = _factors(came.picked(~thin), prior, _OWN)
    of_nobody = np.zeros(len(TERMS))
    of_nobody[TERMS.index("everybody's hours")] = 1
    factors = np.stack([of_nobody, of_thin, of_recipient])
    lag = factors[:, OF_HOURS:] @ lag_terms().T
    report("calibration")
    arrays = factors[:, :OF_HOURS], lag
    plain = HourModel("", prior, *arrays, np.zeros((len(TIERS), 4)), THIN, TEMPERATURE, FLOOR)
    model = replace(plain, calibration=_calibration(plain, windows))
    facts = {
        "windows": len(windows),
        "windows_with_activity": len(came),
        "recipients": int(len(np.unique(windows.recipient))),
        "kappa_day": prior.kappa_day,
        "kappa_week": prior.kappa_week,
        "factors": {
            tier: dict(zip(TERMS, each, strict=True))
            for tier, each in zip(TIERS, factors.tolist(), strict=True)
        },
    }
    return Trained(model, facts)


def priors(activity: Activity) -> Prior:
    """Shares of everybody's active hours, and of those of each zone, shrunk to everybody's."""
    hour, weekday = activity.local % 24, zones.week_slot(activity.local) // 24
    names = np.unique(activity.zone)
    groups = [np.ones(len(activity), np.bool_)]
    named = [] if len(names) < 2 else [name for name in names if name[:1] not in (b"", b"+", b"-")]
    groups += [activity.zone == name for name in named]
    shares: list[np.ndarray] = []
    for values, count in ((hour, 24), (weekday, 7)):
        found = np.stack([np.bincount(values[group], minlength=count) for group in groups])
        everybody = (found[0] + 1) / (found[0].sum() + count)
        total = found.sum(1, keepdims=True)
        own = (found + _OF_ZONE * everybody) / (total + _OF_ZONE)
        shares.append(np.concatenate([everybody[None], own[1:]]))
    return Prior(shares[0], shares[1], np.array(named, "S32"), _KAPPAS_DAY[0], _KAPPAS_WEEK[0])


def _sample(activity: Activity, slots: int, until: int) -> Windows:
    visits = activity.visits
    closed = visits[activity.hour[visits] + GUARD + slots <= until]
    if len(closed) > _WINDOWS:
        closed = np.sort(np.random.default_rng(0).choice(closed, _WINDOWS, replace=False))
    return Windows.of(activity, closed, slots)


def _shrunk(prior: Prior, came: Windows) -> Prior:
    """The prior with the kappas under which the fitted terms tell best when recipients come back."""
    some = came.picked(np.arange(0, len(came), -(-len(came) // _TRIED)))
    rows, first = np.arange(len(some)), np.argmax(some.active, axis=1)
    best, least = prior, np.inf
    for kappa_day, kappa_week in product(_KAPPAS_DAY, _KAPPAS_WEEK):
        tried = replace(prior, kappa_day=kappa_day, kappa_week=kappa_week)
        found = terms(some.histories, some.hours, some.local, tried)[..., _OWN]
        scores = found @ _compared(found, some.active)
        loss = float((np.log(np.exp(scores).sum(1)) - scores[rows, first]).mean())
        if loss < least:
            best, least = tried, loss
    return best


def _factors(windows: Windows, prior: Prior, of: list[int]) -> np.ndarray:
    """Factors of `TERMS`, of some of them, by which active hours are told from others, float64 (6,)."""
    factors = np.zeros(len(TERMS))
    if len(windows) >= _FEWEST:
        found = terms(windows.histories, windows.hours, windows.local, prior)
        factors[of] = _compared(found[..., of], windows.active)
    else:
        factors[TERMS.index("everybody's hours" if of is _PRIOR else "own hours of the week")] = 1
    return factors


def _compared(found: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Logistic regression on differences between an active and an inactive hour of a window.

    What is the same in all hours of a window, a recipient's pace above all, cancels out: so the factors are
    those of a choice, where the hazard's would be those of people too. Each window has the weight of one
    active hour.
    """
    chance = np.random.default_rng(0)
    window, one = (np.repeat(each, _PAIRS) for each in np.nonzero(active))
    other = chance.integers(0, active.shape[1], len(window))
    differ = ~active[window, other]
    window, one, other = window[differ], one[differ], other[differ]
    first = chance.random(len(window)) < 0.5
    difference = found[window, one] - found[window, other]
    difference[~first] *= -1
    scale = difference.std(0) + 1e-12
    _, factors = fitted(difference / scale, first, 1 / active.sum(1)[window], intercept=False)
    return np.asarray(factors / scale)


def _thin_factors(windows: Windows, prior: Prior) -> np.ndarray:
    """Factors for recipients of whom little is known.

    Everybody's hours and the time since the last activity, so that the choice lies between the best hour for
    all and at once. Own hours instead of everybody's only where that surely wins among recipients that were
    not trained on: they mislead where few of them say little.
    """
    if len(windows) < _FEWEST:
        return _factors(windows, prior, _PRIOR)
    folds = np.random.default_rng(0).integers(0, _FOLDS, windows.recipient.max() + 1)[windows.recipient]
    gain = np.zeros(len(windows))
    found = terms(windows.histories, windows.hours, windows.local, prior)
    for fold in range(_FOLDS):
        rest, mine = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for of, sign in ((_OWN, 1), (_PRIOR, -1)):
            factors = _compared(found[rest][..., of], windows.active[rest])
            best = np.argmax(found[mine][..., of] @ factors, axis=1)
            gain[mine] += sign * windows.active[mine, best]
    _, of_recipient = np.unique(windows.recipient, return_inverse=True)
    spread = np.bincount(of_recipient, gain - gain.mean())
    sure = gain.sum() > _SURE * np.sqrt((spread**2).sum())
    return _factors(windows, prior, _OWN if sure else _PRIOR)


def _calibration(model: HourModel, windows: Windows) -> np.ndarray:
    """By tier, what turns scores and levels into log-odds, float64 (3, 4); of too few windows, of all."""
    tiers = model.tier_of(windows.histories, np.ones(len(windows), np.bool_))
    calibration = []
    for tier in range(len(TIERS)):
        some = windows.picked(tiers == tier)
        if some.came_back.sum() < _FEWEST:
            some = windows
        some = some.picked(np.arange(0, len(some), -(-some.active.size // _CALIBRATED)))
        of = np.full(len(some), tier)
        scores = model.scores(some.histories, of, some.hours, some.local) * QUANTUM
        level = np.broadcast_to(levels(some.histories, some.at)[:, None], (*scores.shape, 2))
        found = np.concatenate([scores[..., None], level], axis=-1)
        constant, of_found = fitted(found.reshape(-1, 3), some.active.ravel(), strength=10.0)
        calibration.append([constant, *of_found])
    return np.array(calibration)


def fitted(
    found: np.ndarray,
    answers: np.ndarray,
    weights: np.ndarray | None = None,
    strength: float = 1.0,
    intercept: bool = True,
) -> tuple[float, np.ndarray]:
    """Logistic regression: its constant and factors."""
    # Here, since it takes as long to load as all the rest, and every command and worker would wait for it.
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(C=strength, fit_intercept=intercept, max_iter=300)
    made.fit(found, answers, sample_weight=weights)
    return float(made.intercept_[0]) if intercept else 0.0, np.asarray(made.coef_[0])
