"""The laws that make a live line, a killed one and a replayed one the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import Contact, Policy, Segment
from schemas.profile import ROW
from schemas.routes import Routes
from streams.engine.cut import Cut, Handled
from streams.engine.store import NEVER, SlabStore
from tests.reference.rules import Reference
from tests.support.cuts import PARTITIONS, POLICY, Fast, bodies, changelog, for_reference, split, stories
from tests.support.pipeline import _comparable, _ordered


def _said(handled: list[Handled]) -> Counter[str]:
    return Counter(repr(_ordered((who, body))) for h in handled for who, body in bodies(h))


@given(stories(), st.data())
def test_a_cut_split_anywhere_gives_the_same_rows_and_decisions(cuts: list[Cut], data: st.DataObject) -> None:
    whole, parts = Fast(), Fast()
    for cut in cuts:
        count = sum(len(records) for records in cut.records.values())
        first, second = split(cut, data.draw(st.integers(0, count)))
        told = _said([whole.handle(cut)])
        assert _said([parts.handle(first), parts.handle(second)]) == told
        assert parts.rows() == whole.rows()
        assert parts.due() == whole.due()


@given(stories())
def test_handling_a_stored_cut_again_gives_the_same_outputs(cuts: list[Cut]) -> None:
    fast = Fast()
    for cut in cuts:
        [once] = fast.decider.handle([(cut, fast.store)])
        [again] = fast.decider.handle([(cut, fast.store)])
        assert once.outputs == again.outputs
        assert changelog(once) == changelog(again)
        assert once.tallies == again.tallies
        once.apply(fast.store)


@given(stories(), st.data())
def test_a_cut_gives_the_same_alone_and_in_a_turn_with_others(cuts: list[Cut], data: st.DataObject) -> None:
    alone, together = [Fast() for _ in range(4)], [Fast() for _ in range(4)]
    for cut in cuts:
        count = sum(len(records) for records in cut.records.values())
        # All about the same few recipients, more than a turn can bring; on partition 1 nearly all are
        # misrouted.
        parts = [cut, *split(cut, data.draw(st.integers(0, count))), replace(cut, partition=1)]
        wanted = [fast.handle(part) for fast, part in zip(alone, parts, strict=True)]
        for fast, part in zip(together, parts, strict=True):
            fast.observe(part)
        found = together[0].decider.handle(
            [(part, fast.store) for part, fast in zip(parts, together, strict=True)]
        )
        for fast, one, other in zip(together, found, wanted, strict=True):
            one.apply(fast.store)
            assert one.outputs == other.outputs
            assert changelog(one) == changelog(other)
            assert (one.tallies, one.figures, one.changes) == (other.tallies, other.figures, other.changes)
        assert [fast.rows() for fast in together] == [fast.rows() for fast in alone]
        assert [fast.due() for fast in together] == [fast.due() for fast in alone]


@given(stories())
def test_a_recovered_table_equals_the_live_one_byte_by_byte_and_in_when_rows_are_due(cuts: list[Cut]) -> None:
    live = Fast()
    compacted: dict[bytes, bytes] = {}
    for cut in cuts:
        compacted |= changelog(live.handle(cut))
    recovered = Fast()
    rows = np.frombuffer(b"".join(compacted.values()), ROW)
    recovered.store = SlabStore(ROW)
    recovered.store.put_many(list(compacted), rows, np.full(len(rows), NEVER))
    assert recovered.rows() == live.rows()
    for slots, keys, some in recovered.store.batches():
        recovered.store.set_due(slots, recovered.decider.due_at(keys, some, cuts[-1].now, cuts[-1].control))
    assert recovered.due() == live.due()


@given(stories())
def test_the_columns_decide_as_the_plain_reference_does(cuts: list[Cut]) -> None:
    fast, plain = Fast(), Reference(POLICY, PARTITIONS)
    for cut in cuts:
        handled, expected = fast.handle(cut), plain.handle(for_reference(cut))
        told = Counter(repr(_ordered((who, _comparable(body)))) for who, body in bodies(handled))
        wanted = Counter(repr(_ordered((who, _comparable(body)))) for who, body in expected.audit)
        assert told == wanted
        assert fast.rows() == plain.rows(0)
        for tally in handled.tallies:
            fates = expected.fates[tally.topic]
            assert {name: getattr(tally, name) for name in fates} == fates


def _with(**changes: Any) -> Policy:
    """The policy with other parts."""
    return Policy(**{name: getattr(POLICY, name) for name in Policy.model_fields} | changes)


def _contact(**changes: Any) -> Policy:
    return _with(contact=Contact.model_validate(POLICY.contact.model_dump(by_alias=True) | changes))


def _redefined(segment: Segment) -> Segment:
    return segment.model_copy(update={"where": "views_24h >= 2 OR purchases_7d >= 1"})


QUIET = {"default": {"from": "09:00", "to": "17:00"}}
OTHER_POLICIES = [
    *(_with(campaigns=tuple(c for c in POLICY.campaigns if c != gone)) for gone in POLICY.campaigns),
    _with(segments=tuple(map(_redefined, POLICY.segments[:1])) + POLICY.segments[1:]),
    _contact(profiling="opt_out", quiet=QUIET),
    _contact(cap=[{"most": 1, "window": "20 h", "purposes": ["transactional", "mail"]}], quiet=QUIET),
    _contact(cap=[], hold_out=0.0, quiet=QUIET),
    _with(campaigns=()),
    _with(routes=Routes({"shop": 1, "news": 7}, {"gmail": 5})),
    _with(segments=(), campaigns=POLICY.campaigns[4:]),
]


@given(stories(), st.sampled_from(OTHER_POLICIES))
def test_a_policy_that_changes_midway_is_taken_up_alike_in_both_readings(
    cuts: list[Cut], other: Policy
) -> None:
    """Before the last cut, as when a worker is started again with other files."""
    before, fast, plain = Fast(), Fast(other), Reference(other, PARTITIONS)
    for cut in cuts[:-1]:
        before.handle(cut)
    fast.store = before.store
    for slots, keys, some in fast.store.batches():  # as the take-over of a line does
        fast.store.set_due(slots, fast.decider.due_at(keys, some, cuts[-1].before, cuts[-1].control))
    plain.load(0, before.rows())
    handled, expected = fast.handle(cuts[-1]), plain.handle(for_reference(cuts[-1]))
    told = Counter(repr(_ordered((who, _comparable(body)))) for who, body in bodies(handled))
    wanted = Counter(repr(_ordered((who, _comparable(body)))) for who, body in expected.audit)
    assert told == wanted
    assert fast.rows() == plain.rows(0)
