"""What the audit trail tells of send-time models: rewards of their choices, calibration, drift."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from models import off_policy, zones
from models.hours import CANDIDATES
from models.off_policy import Estimates, Log, RewardModel, Target, Valuation
from models.sendtime import second_head
from models.sendtime.activity import Activity, TooFew
from models.sendtime.model import Question
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.query import READ_ONLY
from streams.warehouse import Warehouse

_HOUR_S: Final = 3600
_PARTS: Final = 8  # of recipients, so that a long trail fits into a small ClickHouse's memory
# A send that was released in another hour than the model chose tells nothing of the choice. Of whom nothing
# is kept, nothing is known: not that they were not active. An hour that counts less than half is of opens
# alone, or of clicks that a machine may have made. A reward comes in the hours after that of the send, in
# whose beginning the visit that set it off may still go on.
_SQL: Final = """
SELECT cityHash64(d.recipient_id) AS unit, d.model, d.canary, d.propensity, d.hours_left,
    d.due_at = d.first_at AS first, d.due_at = d.likeliest_at AS likeliest,
    ifNull(d.shadow_model, ''), ifNull(d.shadow_propensity, 0), d.score,
    toUnixTimestamp(toStartOfHour(assumeNotNull(d.due_at))) AS went,
    arrayExists(h -> h > went AND h <= went + 3600 * %(hours)s, a.rewarding) AS rewarded,
    has(a.active, went) AS active, toHour(assumeNotNull(d.due_at)) AS slot,
    toUnixTimestamp(d.at), ifNull(d.hours_mask, 0), d.control_version, ifNull(toHour(d.first_at), 0),
    ifNull(toHour(d.likeliest_at), 0), ifNull(toHour(d.shadow_at), 0)
FROM (
    SELECT * FROM decision
    WHERE outcome = 'scheduled' AND model IS NOT NULL AND regret IS NOT NULL AND arm = 'model'
        AND at >= toDateTime64(%(since)s, 3, 'UTC') AND due_at < toDateTime64(%(until)s, 3, 'UTC')
        AND tier != 'unprofiled' AND cityHash64(recipient_id) %% %(parts)s = %(part)s
        AND recipient_id IN (
            SELECT recipient_id FROM activity WHERE cityHash64(recipient_id) %% %(parts)s = %(part)s
        )
) AS d
INNER JOIN (
    SELECT decision_id, min(at) AS released FROM release WHERE outcome = 'released'
        AND at >= toDateTime64(%(since)s, 3, 'UTC') AND cityHash64(recipient_id) %% %(parts)s = %(part)s
    GROUP BY decision_id
) AS r ON r.decision_id = d.decision_id
LEFT JOIN (
    SELECT recipient_id, groupArrayIf(toUnixTimestamp(hour), weight >= 0.5) AS active,
        groupArrayIf(toUnixTimestamp(hour), if(%(clicks)s, clicks >= 0.5, weight >= 0.5)) AS rewarding
    FROM activity
    WHERE hour >= toDateTime(%(since)s, 'UTC') AND cityHash64(recipient_id) %% %(parts)s = %(part)s
    GROUP BY recipient_id
) AS a ON a.recipient_id = d.recipient_id
WHERE toStartOfHour(r.released) = toStartOfHour(assumeNotNull(d.due_at))
"""
_NAMES: Final = (
    *("unit", "model", "canary", "propensity", "hours_left", "first", "likeliest", "shadow_model"),
    *("shadow_propensity", "score", "went", "rewarded", "active", "slot", "at", "mask", "control_version"),
    *("first_slot", "likeliest_slot", "shadow_slot"),
)


class NothingLogged(LookupError):
    """The audit trail has no send of that time whose hour a model chose; the message says what to do."""


@dataclass(frozen=True)
class Sends:
    """n sends whose hour a model drew and in which they went, by column (n,), and what came of them.

    `rewarded` is whether what was asked for happened within so many hours after that hour, `active` whether
    the recipient was active in it.
    """

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Return the number of sends."""
        return len(self.columns["unit"])

    def __getitem__(self, name: str) -> np.ndarray:
        """One of the columns."""
        return self.columns[name]

    def picked(self, which: np.ndarray) -> "Sends":
        """Some of them, by number or mask."""
        return Sends({name: values[which] for name, values in self.columns.items()})


def sends(house: Warehouse, since: int, until: int, hours: int, reward: Literal["any", "click"]) -> Sends:
    """Sends decided from `since` on and due before `until` (UTC ms), with rewards within so many hours.

    Raises
    ------
    NothingLogged
        There are none.
    ClickHouseError
        It did not answer, or its tables are not up to date.
    """
    span = {"since": since / 1000, "until": until / 1000, "hours": hours, "parts": _PARTS}
    span["clicks"] = int(reward == "click")
    parts: list[Sequence[Sequence[Any]]] = []
    with closing(ClickHouse(house.address, READ_ONLY, house.views)) as client:
        for part in range(_PARTS):
            parts.append(client.columns(_SQL, span | {"part": part}))
    found = [part for part in parts if part]
    if not found:
        raise NothingLogged(
            "no send of that time had its hour chosen by a model: ask for more --days, or wait for the "
            "recorder"
        )
    columns = [np.concatenate([np.array(part[i]) for part in found]) for i in range(len(_NAMES))]
    made = dict(zip(_NAMES, columns, strict=True))
    made["hash"] = made["unit"]
    made["unit"] = np.unique(made["unit"], return_inverse=True)[1]
    return Sends(made)


def as_asked(found: Sends, activity: Activity, hashes: np.ndarray, default_zone: str) -> second_head.Sends:
    """Sends as a model was asked about them, from the activity of their recipients.

    `hashes` are those of the activity's recipients, by number. Sends whose hour is not one of the 24, or
    whose hours are not known, are left out.
    """
    hour = found["at"].astype(np.int64) // _HOUR_S
    slot, mask = found["went"].astype(np.int64) // _HOUR_S - hour - 1, found["mask"].astype(np.int64)
    whole = (slot >= 0) & (slot < CANDIDATES)
    which = np.flatnonzero(whole & (mask >> np.where(whole, slot, 0) & 1 > 0))
    some, hour, slot, mask = found.picked(which), hour[which], slot[which], mask[which]
    if not len(hashes):
        raise TooFew("nobody's activity is in the table activity: there is nothing to learn from")
    place = np.minimum(np.searchsorted(hashes, some["hash"]), len(hashes) - 1)
    histories = activity.histories_at(np.where(hashes[place] == some["hash"], place, -1), hour)
    zone = np.where(histories.zone == b"", default_zone.encode(), histories.zone).astype("S32")
    hours = hour[:, None] + 1 + np.arange(CANDIDATES)
    n = len(which)
    question = Question(
        replace(histories, zone=zone),
        np.ones(n, np.bool_),
        np.zeros(n, np.bool_),
        hour,
        hours,
        zones.local_hours(zone, hours),
        (mask[:, None] >> np.arange(CANDIDATES) & 1).astype(np.bool_),
        np.zeros(n),
    )
    return second_head.Sends(
        question, slot, some["propensity"], some["rewarded"].astype(np.float64), some["unit"]
    )


@dataclass(frozen=True)
class Valued:
    """A policy's value on the log, and what it is above that of the policy that chose; `rows` counted."""

    policy: str
    rows: int
    value: Valuation
    gain: Estimates


def valued(found: Sends) -> list[Valued]:
    """Value the policies that the log can tell of: what chose, chance, at once, the best hour, the shadow.

    Three ways each; the reward model of DR is the mean reward by hour of day, of other recipients.
    """
    n, slot = len(found), found["slot"].astype(np.int64)
    reward = found["rewarded"].astype(np.float64)
    model = RewardModel.of(reward, slot, found["unit"], CANDIDATES)
    log = Log(reward, found["propensity"], found["unit"], model.expects(slot))
    everyone = np.ones(n, np.bool_)
    policies = {
        "logged": (everyone, found["propensity"], model.expects(slot)),
        "uniform": (everyone, 1 / found["hours_left"], model.expected(_evenly(found))),
        **{
            name: (everyone, found[column].astype(np.float64), model.expects(found[f"{column}_slot"]))
            for name, column in (("send_now", "first"), ("likeliest", "likeliest"))
        },
    }
    of_shadow = found["shadow_propensity"], model.expects(found["shadow_slot"])
    for name in sorted({*found["shadow_model"].tolist()} - {""}):
        policies[f"shadow {name}"] = (found["shadow_model"] == name, *of_shadow)
    made = []
    for name, (which, chance, expected) in policies.items():
        mine, logged, target = log, Target(log.logged, log.q_logged), Target(chance, expected)
        if not which.all():
            mine, logged, target = log.picked(which), logged.picked(which), target.picked(which)
        gain = off_policy.difference(mine, target, logged)
        made.append(Valued(name, int(which.sum()), off_policy.value(mine, target), gain))
    return made


def _evenly(found: Sends) -> np.ndarray:
    """Chance of each UTC hour of day where one of the hours that were left is drawn evenly, (n, 24)."""
    first = found["at"].astype(np.int64) // _HOUR_S + 1
    place = (np.arange(CANDIDATES) - first[:, None]) % CANDIDATES  # of an hour of day among the candidates
    allowed = (found["mask"].astype(np.int64)[:, None] >> place & 1).astype(np.float32)
    return np.asarray(allowed / np.maximum(allowed.sum(1, keepdims=True), 1))
