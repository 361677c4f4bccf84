"""The size of a cut: what fits into the target while that keeps up, as much as may be while it does not."""

from streams.engine.cutsize import CutSize

TARGET_S, MOST = 0.05, 8000


def learnt(each_s: float) -> CutSize:
    size = CutSize(TARGET_S, MOST)
    for _ in range(60):
        size.settled(1000, 1000 * each_s)
    return size


def test_a_cut_holds_what_is_expected_to_commit_within_the_target() -> None:
    size = learnt(each_s=TARGET_S / 2000)
    assert 1990 <= size.limit(waiting=2500) <= 2010


def test_a_line_that_is_behind_takes_as_many_as_it_may() -> None:
    size = learnt(each_s=TARGET_S / 2000)
    assert size.limit(waiting=10_000) == MOST


def test_slow_records_never_make_cuts_that_cost_more_than_their_records() -> None:
    assert learnt(each_s=TARGET_S).limit(waiting=600) == 500


def test_fast_records_make_no_cut_larger_than_it_may_be() -> None:
    assert learnt(each_s=1e-7).limit(waiting=10_000) == MOST


def test_small_cuts_teach_nothing() -> None:
    size = learnt(each_s=TARGET_S / 2000)
    size.settled(3, 1.0)
    assert 1990 <= size.limit(waiting=2500) <= 2010
