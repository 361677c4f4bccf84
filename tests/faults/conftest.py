"""One broker for the cases of a module: each has fresh topics on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import faults
from tests.support import stack as stacks
from tests.support.faults import Case
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(tmp_path_factory.mktemp("broker"), faults.PARTITIONS) as stack:
        yield stack


@pytest.fixture
def case(broker: Stack, tmp_path: Path) -> Iterator[Case]:
    with faults.case(broker, tmp_path) as fresh:
        yield fresh
