"""What becomes of dispatches, cut by cut."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from models.deliver import Claim, Kind, Result, Stop
from models.pacing import Standing
from schemas import codec, topics
from schemas.dispatch import KEPT_MS, LAYOUTS, State
from schemas.lanes import Lane, Lanes
from schemas.policy import Policy
from schemas.scopes import Scoped
from schemas.units import Milliseconds, Rate
from streams.agents.deliver import MOST_AT_ONCE, Deliverer, Feedback, Paced
from streams.agents.dispatches import DispatchStore
from streams.engine.batch import Batch
from streams.engine.control import Clock, Control
from streams.engine.cut import Cut, Handled
from streams.engine.journal import Entry
from streams.engine.kafka import Record
from tests.support.cuts import PACKAGED

T0 = 1_700_000_000_000
HOUR = 3_600_000
LANES = Lanes(default=Lane(rate=Rate.parse("10/s"), expiry=Milliseconds.parse("24 h")))
ONE, TWO, THREE, FOUR = (str(uuid.UUID(int=n)) for n in (1, 2, 3, 4))


class World:
    """A partition of DELIVER: cuts are handled and applied as a line does."""

    def __init__(self, policy: Policy = PACKAGED) -> None:
        self.handler, self.store = Deliverer(policy, LANES), DispatchStore()
        self.control, self.number, self.offset, self.now = Control(), 0, 0, T0
        self.standing = {"pending": 0, "in_flight": 0}

    def cut(
        self,
        *records: tuple[str, dict[str, Any]],
        results: Sequence[Result] = (),
        room: int | Callable[[str], int] = 0,
        resumed: bool = False,
        after: int = 0,
    ) -> Handled:
        asked = (lambda lane, _: room(lane)) if callable(room) else (lambda *_: room)
        return self.cut_of(Feedback(resumed, results, asked), *records, after=after)

    def cut_of(self, feedback: Feedback, *records: tuple[str, dict[str, Any]], after: int = 0) -> Handled:
        self.number, self.now = self.number + 1, self.now + after
        by_topic: dict[str, list[Record]] = {topic.name: [] for topic in topics.DISPATCH_SOURCES}
        for topic, fields in records:
            self.offset += 1
            key = fields["lane"].encode()
            by_topic[topic].append(Record(self.offset, T0, key, codec.encode(topic, fields), ()))
        nexts = dict.fromkeys(by_topic, self.offset + 1)
        taken = {topic: Batch.of(records) for topic, records in by_topic.items()}
        cut = Cut(0, self.number, self.now, self.now, self.control, 0, None, False, taken, nexts, feedback)
        [handled] = self.handler.handle([(cut, self.store)])
        handled.apply(self.store)
        for name, change in handled.changes.items():
            self.standing[name] += change
        return handled

    def state(self, dispatch: str) -> State:
        slot = self.store.find([dispatch.encode()])
        return State(int(self.store.gather(slot)["state"][0]))


def command(dispatch: str, released_at: int = T0, **more: Any) -> tuple[str, dict[str, Any]]:
    fields = {
        "dispatch_id": dispatch,
        "decision_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, dispatch)),
        "recipient_id": f"r-{dispatch[-1]}",
        "campaign": "win_back",
        "template": "win_back",
        "purpose": "mail",
        "channel": "mail",
        "lane": "gmail",
        "due_at": released_at,
        "released_at": released_at,
        "expires_at": released_at + 16 * HOUR,
        "history": False,
    }
    return topics.COMMANDS.name, fields | more


def recall(dispatch: str) -> tuple[str, dict[str, Any]]:
    fields = {
        "dispatch_id": dispatch,
        "recipient_id": f"r-{dispatch[-1]}",
        "lane": "gmail",
        "reason": "withdrawn",
        "recalled_at": T0,
        "expires_at": T0 + 16 * HOUR,
    }
    return topics.RECALLS.name, fields


def result(dispatch: str, kind: Kind, **more: Any) -> Result:
    return Result(dispatch, kind, T0, **more)


def told(handled: Handled) -> list[tuple[str, str]]:
    """Kinds of the audit records, each with its dispatch."""
    found = [codec.decode(o.topic, o.value or b"") for o in handled.outputs if o.topic == topics.AUDIT.name]
    return [(record["body"]["dispatch_id"], record["body"]["kind"]) for record in found]


def events(handled: Handled) -> list[str]:
    return [
        codec.decode(o.topic, o.value or b"")["kind"]
        for o in handled.outputs
        if o.topic == topics.DELIVERY.name
    ]


@pytest.fixture
def world() -> World:
    return World()


def test_a_command_waits_until_its_lane_has_room(world: World) -> None:
    assert world.cut(command(ONE)).effects == []
    assert (world.state(ONE), world.standing) == (State.WAITING, {"pending": 1, "in_flight": 0})
    [claim] = world.cut(room=1).effects
    assert claim == Claim(ONE, "r-1", "win_back", "win_back", "gmail", T0 + 16 * HOUR, 1)
    assert (world.state(ONE), world.standing) == (State.CLAIMED, {"pending": 0, "in_flight": 1})


def test_a_command_that_finds_room_is_claimed_in_the_cut_that_brings_it(world: World) -> None:
    assert [effect.dispatch_id for effect in world.cut(command(ONE), command(TWO), room=1).effects] == [ONE]


def test_of_a_campaign_the_earliest_deadline_goes_first_also_before_those_that_wait(world: World) -> None:
    world.cut(command(ONE, expires_at=T0 + 5 * HOUR), command(TWO, expires_at=T0 + 3 * HOUR))
    handled = world.cut(command(THREE, expires_at=T0 + 4 * HOUR), room=3)
    assert [effect.dispatch_id for effect in handled.effects] == [TWO, THREE, ONE]


def ranked(**changed: dict[str, Any]) -> Policy:
    """The packaged policy with other campaigns, by their names."""
    campaigns = [c.model_copy(update=changed.get(c.name, {})) for c in PACKAGED.campaigns]
    return PACKAGED.model_copy(update={"campaigns": tuple(campaigns)})


def test_a_campaign_of_more_priority_goes_first_and_a_transactional_one_before_it() -> None:
    world = World(ranked(replenishment={"priority": 9}, post_purchase={"purpose": "transactional"}))
    world.cut(
        command(ONE, campaign="win_back", expires_at=T0 + HOUR),
        command(TWO, campaign="replenishment", expires_at=T0 + 9 * HOUR),
        command(THREE, campaign="post_purchase", expires_at=T0 + 16 * HOUR),
    )
    claims = world.cut(room=3).effects
    assert [(claim.dispatch_id, claim.urgent) for claim in claims] == [
        (THREE, True),
        (TWO, False),
        (ONE, False),
    ]


def test_what_expires_at_once_is_ended_in_portions_meanwhile_none_of_it_goes_and_others_do(
    world: World,
) -> None:
    count = 2 * MOST_AT_ONCE + 1
    ids = [str(uuid.UUID(int=n)) for n in range(1000, 1000 + count)]
    world.cut(
        *(command(each, expires_at=T0 + HOUR) for each in ids), command(ONE), command(TWO, lane="yahoo")
    )
    cuts = [world.cut(room=1, after=HOUR), world.cut(), world.cut(), world.cut()]
    assert [(handled.figures["expired"], handled.more) for handled in cuts] == [
        (MOST_AT_ONCE, True),
        (MOST_AT_ONCE, True),
        (1, False),
        (0, False),
    ]
    assert {claim.dispatch_id for claim in cuts[0].effects} == {ONE, TWO}
    assert world.standing == {"pending": 0, "in_flight": 2}


def test_campaigns_of_one_priority_take_turns_over_many_cuts(world: World) -> None:
    ids = [str(uuid.UUID(int=n)) for n in range(10, 40)]
    many = [command(each, campaign="win_back", expires_at=T0 + HOUR) for each in ids[:24]]
    few = [command(each, campaign="replenishment", expires_at=T0 + 9 * HOUR) for each in ids[24:]]
    world.cut(*many, *few)
    went = [world.cut(room=1).effects[0].campaign for _ in range(12)]
    assert went.count("replenishment") == 6
    assert {*went[:2]} == {*went[10:]} == {"win_back", "replenishment"}


def test_campaigns_of_one_priority_take_turns_while_more_urgent_ones_go_between(world: World) -> None:
    world = World(ranked(post_purchase={"purpose": "transactional"}))
    ids = [str(uuid.UUID(int=n)) for n in range(100, 400)]
    a = [command(each, campaign="win_back", expires_at=T0 + HOUR) for each in ids[:60]]
    b = [command(each, campaign="replenishment", expires_at=T0 + 9 * HOUR) for each in ids[60:120]]
    world.cut(*a, *b)
    went = []
    for urgent in ids[120:180]:
        world.cut(command(urgent, campaign="post_purchase"), room=1)
        went.append(world.cut(room=1).effects[0].campaign)
    assert went.count("win_back") == went.count("replenishment") == 30


def test_room_in_the_reserve_is_for_urgent_messages_alone() -> None:
    world = World(ranked(post_purchase={"purpose": "transactional"}))
    world.cut(command(ONE), command(TWO))
    feedback = Feedback(False, [], lambda _, urgent: 5 if urgent else 0)
    assert world.cut_of(feedback).effects == []
    handled = world.cut_of(feedback, command(THREE, campaign="post_purchase"))
    assert [claim.dispatch_id for claim in handled.effects] == [THREE]


def test_what_a_lane_has_learnt_is_in_the_journal_with_what_waits_after_the_cut(world: World) -> None:
    learnt = {"gmail": Paced(Standing(factor=0.25, begun=7), 2.5, 1), "yahoo": Paced(Standing(), 1.0, 0)}
    world.cut(command(ONE), command(TWO))
    handled = world.cut_of(
        Feedback(False, [], lambda *_: 1, learnt), command(THREE), command(FOUR, lane="yahoo")
    )
    gmail, yahoo = handled.figures["lanes"]
    assert [each["lane"] for each in world.cut(command(ONE, lane="apple")).figures["lanes"]] == ["gmail"]
    assert (gmail["lane"], gmail["waiting"], gmail["rate"], gmail["factor"]) == ("gmail", 2, 2.5, 0.25)
    assert (yahoo["lane"], yahoo["waiting"], yahoo["begun"]) == ("yahoo", 0, 0)
    entry = Entry(0, 1, T0, 0, "p", figures=handled.figures | world.standing)
    journal = topics.DELIVER_JOURNAL.name
    [again, _] = Entry.decode(journal, entry.encode(journal)).figures["lanes"]
    assert (again["lane"], again["factor"], codec.millis(again["stopped_until"])) == ("gmail", 0.25, 0)


def test_a_lane_gets_no_more_than_it_has_room_for_and_lanes_do_not_share(world: World) -> None:
    world.cut(command(ONE), command(TWO, lane="yahoo"), command(THREE))
    handled = world.cut(room=lambda lane: {"gmail": 1}.get(lane, 0))
    assert [effect.dispatch_id for effect in handled.effects] == [ONE]


@pytest.mark.parametrize(
    ("kind", "state", "told_decide"),
    [
        ("delivered", State.DELIVERED, ["delivered"]),
        ("bounced", State.BOUNCED, ["bounced"]),
        ("unknown", State.UNKNOWN, ["unknown"]),
        ("deferred", State.WAITING, []),
    ],
)
def test_an_outcome_is_written_down_and_decide_learns_of_ends(
    world: World, kind: Kind, state: State, told_decide: list[str]
) -> None:
    world.cut(command(ONE), room=1)
    handled = world.cut(results=[result(ONE, kind)])
    assert (world.state(ONE), told(handled), events(handled)) == (state, [(ONE, kind)], told_decide)
    assert handled.figures[kind] == 1
    assert world.standing == {"pending": int(kind == "deferred"), "in_flight": 0}


def test_a_deferred_message_is_tried_again_later_and_its_attempt_is_counted(world: World) -> None:
    world.cut(command(ONE), room=1)
    world.cut(results=[result(ONE, "deferred", code=450)], room=1)
    assert world.cut(room=1, after=4 * 60_000).effects == []
    [claim] = world.cut(room=1, after=60_000).effects
    assert isinstance(claim, Claim)
    assert claim.attempt == 2


def test_a_claim_that_is_given_back_goes_again_without_a_word(world: World) -> None:
    world.cut(command(ONE), room=1)
    handled = world.cut(results=[result(ONE, "returned")])
    assert (told(handled), handled.figures["returned"]) == ([], 1)
    [claim] = world.cut(room=1).effects
    assert isinstance(claim, Claim)
    assert claim.attempt == 1


def test_a_claim_whose_owner_died_is_unknown_and_never_sent_again(world: World) -> None:
    world.cut(command(ONE), command(TWO), room=1)
    handled = world.cut(resumed=True, room=2)
    assert told(handled) == [(ONE, "unknown")]
    assert [effect.dispatch_id for effect in handled.effects] == [TWO]


def test_a_campaign_may_ask_for_at_least_once(world: World) -> None:
    campaigns = tuple(c.model_copy(update={"guarantee": "at_least_once"}) for c in PACKAGED.campaigns)
    world = World(PACKAGED.model_copy(update={"campaigns": campaigns}))
    world.cut(command(ONE), room=1)
    handled = world.cut(resumed=True)
    assert (told(handled), world.state(ONE)) == ([(ONE, "deferred")], State.WAITING)


def test_a_repeated_command_is_ignored_and_written_down(world: World) -> None:
    world.cut(command(ONE), room=1)
    handled = world.cut(command(ONE), results=[result(ONE, "delivered")], room=1)
    assert sorted(told(handled)) == [(ONE, "delivered"), (ONE, "duplicate")]
    assert (world.state(ONE), handled.effects) == (State.DELIVERED, [])
    tally = handled.tallies[1]
    assert (tally.consumed, tally.accepted, tally.filtered) == (1, 0, 1)


def test_history_is_recorded_at_its_own_time_and_never_sent(world: World) -> None:
    handled = world.cut(command(ONE, T0 - 9 * HOUR, history=True), room=5)
    [record] = [codec.decode(o.topic, o.value or b"") for o in handled.outputs]
    assert (record["body"]["kind"], codec.millis(record["at"])) == ("history", T0 - 9 * HOUR)
    assert (len(world.store), handled.effects, world.standing["pending"]) == (0, [], 0)


def test_a_recall_ends_what_waits(world: World) -> None:
    world.cut(command(ONE))
    handled = world.cut(recall(ONE), room=1)
    assert (told(handled), handled.effects, world.state(ONE)) == ([(ONE, "recalled")], [], State.RECALLED)


def test_a_recall_before_its_command_drops_the_command(world: World) -> None:
    world.cut(recall(ONE))
    assert world.standing == {"pending": 0, "in_flight": 0}
    handled = world.cut(command(ONE), room=1)
    assert (told(handled), handled.effects, handled.figures["recalled"]) == ([(ONE, "recalled")], [], 1)


def test_a_recall_in_the_same_cut_counts_before_its_command(world: World) -> None:
    handled = world.cut(command(ONE), recall(ONE), room=1)
    assert (told(handled), handled.effects) == ([(ONE, "recalled")], [])


@pytest.mark.parametrize("kind", ["returned", "deferred"])
def test_a_recall_stops_a_claim_and_what_comes_back_is_not_tried_again(world: World, kind: Kind) -> None:
    world.cut(command(ONE), room=1)
    assert world.cut(recall(ONE)).effects == [Stop(ONE)]
    handled = world.cut(results=[result(ONE, kind)], room=1)
    assert (world.state(ONE), told(handled)[-1], handled.effects) == (State.RECALLED, (ONE, "recalled"), [])


def test_a_recall_that_comes_too_late_changes_nothing(world: World) -> None:
    world.cut(command(ONE), room=1)
    world.cut(results=[result(ONE, "delivered")])
    handled = world.cut(recall(ONE))
    assert (told(handled), handled.tallies[0].filtered, world.state(ONE)) == ([], 1, State.DELIVERED)


def test_what_waits_expires_at_the_campaigns_or_the_lanes_limit(world: World) -> None:
    world.cut(command(ONE, expires_at=T0 + HOUR), command(TWO, expires_at=T0 + 99 * HOUR))
    handled = world.cut(after=HOUR, room=0)
    assert (told(handled), events(handled)) == ([(ONE, "expired")], ["expired"])
    assert told(world.cut(after=23 * HOUR, room=1)) == [(TWO, "expired")]
    assert world.standing == {"pending": 0, "in_flight": 0}


def test_a_pause_holds_everything_or_what_is_in_its_scope(world: World) -> None:
    messages = [
        command(ONE),
        command(TWO, campaign="replenishment", model="st-1"),
        command(THREE, lane="yahoo#1", template="older"),
    ]

    def claimed(*fresh: tuple[str, dict[str, Any]], **control: Any) -> list[str]:
        world.control = Control(**control)
        lanes = {"gmail": 2, "yahoo#1": 1}
        handled = world.cut(*fresh, room=lambda lane: lanes[lane])
        ids = [effect.dispatch_id for effect in handled.effects]
        world.cut(results=[result(each, "returned") for each in ids])
        return ids

    assert claimed(*messages, paused=True) == []
    assert claimed(held=frozenset({("segment", "lapsing"), ("model", "built-in")})) == [TWO]
    assert claimed(held=frozenset({("template", "win_back"), ("model", "st-1")})) == [THREE]
    assert claimed(held=frozenset({("provider", "yahoo"), ("lane", "news/gmail")})) == [ONE, TWO]
    assert claimed(held=frozenset({("lane", "yahoo")})) == [ONE, TWO]
    assert claimed(held=frozenset({("campaign", "win_back")})) == [TWO]
    assert claimed(held=frozenset({("lane", "gmail")})) == [THREE]
    assert claimed(clock=Clock()) == [ONE, TWO, THREE]


@pytest.mark.parametrize("of", [("campaign", "win_back"), ("segment", "lapsing"), ("model", "st-1")])
def test_what_is_held_already_when_it_comes_is_not_claimed(world: World, of: Scoped) -> None:
    world.control = Control(held=frozenset({of}))
    assert world.cut(command(ONE, model="st-1"), room=1).effects == []
    assert world.state(ONE) == State.WAITING


def test_a_command_and_a_row_of_before_models_were_told_are_read(world: World) -> None:
    topic, fields = command(ONE)
    old = codec.ids_of(topic)[0]
    record = Record(1, T0, b"gmail", codec.header(old) + codec.body(old, fields), ())
    nexts = dict.fromkeys([t.name for t in topics.DISPATCH_SOURCES], 2)
    feedback = Feedback(False, [], lambda *_: 1)
    cut = Cut(0, 1, T0, T0, Control(), 0, None, False, {topic: Batch.of([record])}, nexts, feedback)
    [handled] = world.handler.handle([(cut, world.store)])
    [claim] = handled.effects
    assert (claim.dispatch_id, claim.model) == (ONE, "")

    first = np.zeros(1, LAYOUTS.of(1))
    first["version"], first["lane"], first["expires_at"] = 1, b"gmail", T0
    [row] = LAYOUTS.read([first.tobytes()])
    assert (row["lane"], row["expires_at"], row["model"]) == (b"gmail", T0, b"")


def test_an_ended_dispatch_is_remembered_as_long_as_its_command_can_come_again(world: World) -> None:
    world.cut(command(ONE), room=1)
    world.cut(results=[result(ONE, "delivered")])
    world.cut(after=16 * HOUR + KEPT_MS - 1)
    assert len(world.store) == 1
    assert world.cut(after=1).forgotten == [ONE.encode()]
    assert len(world.store) == 0


def test_records_that_are_no_commands_become_dead_letters(world: World) -> None:
    topic, fields = command(ONE)
    bad = [
        Record(1, T0, b"gmail", b"nonsense", ()),
        Record(2, T0, b"yahoo", codec.encode(topic, fields), ()),
        Record(3, T0, b"gmail", codec.encode(topic, fields | {"campaign": "x" * 64}), ()),
    ]
    feedback = Feedback(False, [], lambda *_: 1)
    nexts = dict.fromkeys([t.name for t in topics.DISPATCH_SOURCES], 4)
    cut = Cut(0, 1, T0, T0, Control(), 0, None, False, {topic: Batch.of(bad)}, nexts, feedback)
    [handled] = world.handler.handle([(cut, world.store)])
    letters = [codec.decode(o.topic, o.value or b"")["reason"] for o in handled.outputs]
    assert letters == ["malformed", "key_mismatch", "invalid"]
    assert (handled.tallies[1].dead_lettered, handled.effects) == (3, [])


def test_a_recovered_table_knows_what_may_go_next(world: World) -> None:
    world.cut(command(ONE, T0 + 2), command(TWO, T0 + 1), command(THREE), room=1)
    world.cut(results=[result(THREE, "deferred")])
    recovered = DispatchStore()
    for _, keys, rows in world.store.batches():
        recovered.put_many(keys, rows, np.zeros(len(rows), np.int64))
    ready = recovered.ready("gmail", T0 + HOUR, lambda *_: False, T0 + HOUR)
    assert {name: [key.decode() for _, key in waiting] for name, waiting in ready.items()} == {
        "win_back": [THREE, TWO, ONE]
    }
    assert recovered.claimed == set()


def test_an_outcome_that_came_while_no_clock_ran_stands_at_the_cut(world: World) -> None:
    world.cut(command(ONE), room=1)
    handled = world.cut(results=[Result(ONE, "delivered", 0)], after=HOUR)
    [event] = [
        codec.decode(o.topic, o.value or b"") for o in handled.outputs if o.topic == topics.DELIVERY.name
    ]
    assert codec.millis(event["occurred_at"]) == T0 + HOUR


@pytest.mark.parametrize("field", ["dispatch_id", "decision_id"])
def test_a_command_whose_ids_are_none_becomes_a_dead_letter(world: World, field: str) -> None:
    topic, fields = command(ONE)
    fields[field] = "not-a-uuid\r\n"
    feedback = Feedback(False, [], lambda *_: 1)
    bad = Record(1, T0, b"gmail", codec.encode(topic, fields), ())
    nexts = dict.fromkeys([t.name for t in topics.DISPATCH_SOURCES], 2)
    cut = Cut(0, 1, T0, T0, Control(), 0, None, False, {topic: Batch.of([bad])}, nexts, feedback)
    [handled] = world.handler.handle([(cut, world.store)])
    assert [codec.decode(o.topic, o.value or b"")["reason"] for o in handled.outputs] == ["invalid"]
