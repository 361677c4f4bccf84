"""Campaigns as columns: what each asks and allows, for many triggers at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np

from models import contact
from models.segments import Segments
from schemas.policy import Campaign, Policy, Purpose
from schemas.profile import PURPOSES, Consent, Suppression

EVERYONE: Final = -1  # audience
_PURPOSES: Final[tuple[str, ...]] = get_args(Purpose)[::-1]  # what is owed comes first


@dataclass(frozen=True)
class Campaigns:
    """The c campaigns of a policy, in its order.

    `rank` orders purposes; `audience` is a column of the segments, or `EVERYONE`; `consent` a column of the
    row's consents, the last of which stands for none; `consented` (c, 3) and `suppressed` (c, 4) say by state
    whether it may go, and whether it is held back.
    """

    definitions: tuple[Campaign, ...]
    number: np.ndarray
    rank: np.ndarray
    audience: np.ndarray
    expiry: np.ndarray  # ms
    at_once: np.ndarray
    drops: np.ndarray
    heeds_quiet: np.ndarray
    heeds_room: np.ndarray
    consent: np.ndarray
    consented: np.ndarray
    suppressed: np.ndarray

    @classmethod
    def compile(cls, policy: Policy, segments: Segments) -> "Campaigns":
        """Work the columns out."""
        all_of, rules = policy.campaigns, [policy.rule(campaign) for campaign in policy.campaigns]

        def column(values: Sequence[object], kind: type = np.bool_) -> np.ndarray:
            return np.array(values, kind)

        audiences = [EVERYONE if c.audience is None else segments.column(c.audience) for c in all_of]
        consents = [PURPOSES.index(c.purpose) if c.purpose in PURPOSES else len(PURPOSES) for c in all_of]
        return cls(
            all_of,
            column([c.number for c in all_of], np.int64),
            column([_PURPOSES.index(c.purpose) for c in all_of], np.int64),
            column(audiences, np.int64),
            column([int(c.expiry) for c in all_of], np.int64),
            column([c.timing == "at_once" for c in all_of]),
            column([c.when_capped == "drop" for c in all_of]),
            column([rule.quiet_hours for rule in rules]),
            column([c.purpose != "transactional" for c in all_of]),  # those go from the lanes' reserve
            column(consents, np.int64),
            column([[contact.consented(rule, state) for state in Consent] for rule in rules]).reshape(-1, 3),
            column([[contact.suppresses(rule, why) for why in Suppression] for rule in rules]).reshape(-1, 4),
        )
