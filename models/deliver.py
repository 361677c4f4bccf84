"""What becomes of dispatches in one cut of DELIVER. Pure: rows, commands, outcomes in; rows, records out.

A dispatch waits, is claimed, and ends as delivered, bounced, expired, recalled or unknown. It is claimed at
most once for each time that it may go: a claim whose outcome was lost ends as unknown, never as waiting,
unless its campaign asks for `at_least_once`.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from models.lanes import retry_at
from models.order import Ranks
from schemas import ids
from schemas.dispatch import KEPT_MS, State, empty
from schemas.lanes import Lanes
from schemas.policy import Policy
from schemas.routes import LaneName
from schemas.scopes import Marks

NEVER: Final = np.iinfo(np.int64).max

Kind = Literal["delivered", "deferred", "bounced", "unknown", "returned"]
# A recalled send is over in DECIDE already, and a deferred one changes nothing there.
_REPORTED: Final = ("delivered", "bounced", "expired", "unknown")
_FIGURES: Final = (
    "historic",
    "duplicate",
    "delivered",
    "deferred",
    "bounced",
    "expired",
    "recalled",
    "unknown",
    "claimed",
    "returned",
)


@dataclass(frozen=True)
class Claim:
    """A message to send: whose, what, on which lane, not after when (UTC ms), the how-manieth attempt.

    An `urgent` one goes before others, and from its lane's reserve. `model` chose its hour; empty: none did.
    """

    dispatch_id: str
    recipient_id: str
    campaign: str
    template: str
    lane: str
    expires_at: int
    attempt: int
    urgent: bool = False
    model: str = ""

    @property
    def marks(self) -> Marks:
        """What it is held by."""
        return Marks(self.lane, self.campaign, self.template, self.model)


@dataclass(frozen=True)
class Stop:
    """A claimed message was recalled: do not send it if that is still possible."""

    dispatch_id: str


@dataclass(frozen=True)
class Result:
    """What became of a claim, at `at` UTC ms (0: the clock did not say).

    `returned`: it was not begun, and may be claimed again. One that is deferred is not tried again within
    `pause` ms.
    """

    dispatch_id: str
    kind: Kind
    at: int
    code: int | None = None
    detail: str | None = None
    permanent: bool = False
    template: str | None = None
    pause: int = 0


@dataclass
class Delivering:
    """One cut's dispatches: `rows` by place in `keys`, owned; of state 0 where nothing was known.

    The steps are called in their order: `settle` results, `recall`, `accept` commands, `expire`, `claim`.
    What they say gathers in the lists and in `figures`. Commands and recalls are decoded, times UTC ms.
    """

    keys: list[bytes]
    rows: np.ndarray
    now: int
    policy: Policy
    lanes: Lanes
    audit: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)  # recipient, at, Delivery
    events: list[dict[str, Any]] = field(default_factory=list)  # delivery.events
    stops: list[Stop] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_FIGURES, 0))
    _place: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._place = {key: i for i, key in enumerate(self.keys)}

    def settle(self, results: Iterable[Result]) -> None:
        """Write down what became of claims; those of dispatches that are not claimed any more are over."""
        for result in results:
            row = self._row(result.dispatch_id)
            if row["state"] == State.CLAIMED:
                self._settle(row, result)

    def _settle(self, row: np.void, result: Result) -> None:
        at, kind = min(result.at or self.now, self.now), result.kind
        if kind == "returned":
            self.figures["returned"] += 1
            self._wait_or_end(row, result.dispatch_id, self.now)
            return
        row["attempts"] += 1
        detail = result.detail
        if kind == "unknown" and self._guarantee(row) == "at_least_once":
            kind, detail = "deferred", f"outcome lost ({detail}); sent again: the campaign is at_least_once"
        if kind == "deferred":
            self._tell(row, result.dispatch_id, kind, at, result, detail)
            again = max(retry_at(self.now, int(row["attempts"])), self.now + result.pause)
            self._wait_or_end(row, result.dispatch_id, again)
            return
        row["state"] = State[kind.upper()]
        self._tell(row, result.dispatch_id, kind, at, result, detail)

    def _wait_or_end(self, row: np.void, dispatch_id: str, not_before: int) -> None:
        """Let a message wait again, or end it where it was recalled meanwhile."""
        if row["recalled"]:
            row["state"] = State.RECALLED
            self._tell(row, dispatch_id, "recalled", self.now, detail="recalled before it went")
        else:
            row["state"], row["not_before"] = State.WAITING, not_before

    def recall(self, recall: Mapping[str, Any]) -> bool:
        """Apply a decoded DispatchRecall; whether it had an effect."""
        dispatch_id, row = recall["dispatch_id"], self._row(recall["dispatch_id"])
        if row["state"] == 0:
            row["state"], row["expires_at"] = State.AWAITED, recall["expires_at"]
            row["recipient"], row["lane"] = recall["recipient_id"].encode(), recall["lane"].encode()
        elif row["state"] == State.WAITING:
            row["state"] = State.RECALLED
            self._tell(row, dispatch_id, "recalled", self.now, detail=recall["reason"])
        elif row["state"] == State.CLAIMED and not row["recalled"]:
            row["recalled"] = 1
            self.stops.append(Stop(dispatch_id))
        else:
            return False
        return True

    def accept(self, command: Mapping[str, Any], offset: int) -> bool:
        """Take up a decoded DispatchCommand; False where it had come before."""
        dispatch_id = command["dispatch_id"]
        if command["history"]:
            row = empty(1)[0]
            self._fill(row, command)
            self._tell(row, dispatch_id, "history", command["released_at"])
            return True
        row = self._row(dispatch_id)
        if row["state"] == State.AWAITED:
            self._fill(row, command)
            row["state"] = State.RECALLED
            self._tell(row, dispatch_id, "recalled", self.now, detail="recalled before its command came")
            return True
        if row["state"]:
            self._tell(row, dispatch_id, "duplicate", self.now, which=offset)
            return False
        self._fill(row, command)
        row["state"] = State.WAITING
        return True

    def _fill(self, row: np.void, command: Mapping[str, Any]) -> None:
        longest = command["released_at"] + self.lanes.of(command["lane"]).expiry
        row["released_at"] = command["released_at"]
        row["expires_at"] = min(command["expires_at"], longest)
        row["decision"] = bytes.fromhex(command["decision_id"].replace("-", ""))
        row["recipient"] = command["recipient_id"].encode()
        row["model"] = (command["model"] or "").encode()
        for name in ("campaign", "template", "lane"):
            row[name] = command[name].encode()

    def expire(self) -> list[bytes]:
        """End what waited too long; returns the keys that need not be remembered any more."""
        late = (self.rows["state"] == State.WAITING) & (self.rows["expires_at"] <= self.now)
        for i in np.flatnonzero(late).tolist():
            self.rows[i]["state"] = State.EXPIRED
            self._tell(self.rows[i], self.keys[i].decode(), "expired", self.now)
        over = (self.rows["state"] != 0) & (due_at(self.rows) <= self.now)
        return [self.keys[i] for i in np.flatnonzero(over).tolist()]

    def claim(self, chosen: Sequence[bytes], ranks: Ranks) -> list[Claim]:
        """Claim messages that wait, of `keys`, for sending once the cut has committed."""
        claims = []
        for key in chosen:
            row = self.rows[self._place[key]]
            row["state"] = State.CLAIMED
            self.figures["claimed"] += 1
            claims.append(
                Claim(
                    key.decode(),
                    row["recipient"].decode(),
                    row["campaign"].decode(),
                    row["template"].decode(),
                    row["lane"].decode(),
                    int(row["expires_at"]),
                    int(row["attempts"]) + 1,
                    ranks.urgent(row["campaign"].decode()),
                    row["model"].decode(),
                )
            )
        return claims

    def _row(self, dispatch_id: str) -> np.void:
        row: np.void = self.rows[self._place[dispatch_id.encode()]]
        return row

    def _guarantee(self, row: np.void) -> str:
        campaigns = {campaign.name: campaign for campaign in self.policy.campaigns}
        campaign = campaigns.get(row["campaign"].decode())
        return "at_most_once" if campaign is None else campaign.guarantee

    def _tell(
        self,
        row: np.void,
        dispatch_id: str,
        kind: str,
        at: int,
        result: Result | None = None,
        detail: str | None = None,
        which: int | None = None,
    ) -> None:
        """Write an audit record, and a delivery event where DECIDE is to learn of it."""
        attempt = int(row["attempts"])
        event_id = ids.delivery_event_id(dispatch_id, kind, attempt if which is None else which)
        recipient, lane = row["recipient"].decode(), row["lane"].decode()
        self.figures["historic" if kind == "history" else kind] += 1
        body = {
            "delivery_event_id": event_id,
            "dispatch_id": dispatch_id,
            "decision_id": str(uuid.UUID(bytes=bytes(row["decision"]))),
            "campaign": row["campaign"].decode(),
            "lane": lane,
            "kind": kind,
            "attempt": attempt,
            "occurred_at": at,
            "code": result and result.code,
            "detail": detail,
            "permanent": bool(result and result.permanent),
            "template": result and result.template,
        }
        self.audit.append((recipient, at if kind == "history" else self.now, body))
        if kind in _REPORTED:
            self.events.append(
                {
                    "recipient_id": recipient,
                    "event_id": event_id,
                    "occurred_at": at,
                    "dispatch_id": dispatch_id,
                    "kind": kind,
                    "permanent": body["permanent"],
                    "provider": LaneName.of(lane).provider,
                    "detail": detail,
                }
            )


def due_at(rows: np.ndarray) -> np.ndarray:
    """When each row is due, int64 (n,): a waiting one at its expiry, an ended one when it is forgotten."""
    due = rows["expires_at"] + np.where(rows["state"] == State.WAITING, 0, KEPT_MS)
    return np.where(rows["state"] == State.CLAIMED, NEVER, due)


def standing(rows: np.ndarray) -> dict[str, int]:
    """How many dispatches wait, and how many are claimed without outcome."""
    return {
        "pending": int((rows["state"] == State.WAITING).sum()),
        "in_flight": int((rows["state"] == State.CLAIMED).sum()),
    }


def lost(dispatch_id: str, now: int) -> Result:
    """What becomes of a claim that a former owner of the line left without outcome."""
    return Result(dispatch_id, "unknown", now, detail="the worker ended before it learnt the outcome")
