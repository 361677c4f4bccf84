"""The stages suite times functions by their names, which a change elsewhere may take away."""

from typing import Any

import pytest

from benchmarks.stages import STAGES, Watch


@pytest.mark.parametrize(("owner", "name", "stage"), STAGES)
def test_what_a_stage_times_is_there(owner: Any, name: str, stage: str) -> None:
    assert callable(vars(owner)[name]), stage


def test_a_stage_inside_another_is_counted_once() -> None:
    watch = Watch()
    inner = watch.timed("inner", lambda: 1)
    assert watch.timed("outer", lambda: inner())() == 1
    assert set(watch.seconds) == {"inner", "outer"}
    assert watch.inner == pytest.approx([sum(watch.seconds.values())])
