"""Names of segments by their numbers, as they were when a profile's segments were worked out."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from schemas.policy import Segment
from streams.engine.control import ControlReader
from streams.engine.kafka import Client, KafkaUnavailable

# Names by number, by the version of control that a row says.
SegmentNames = Callable[[int], Mapping[int, str]]
_PATIENCE_S: Final = 30.0


class ControlledNames:
    """`SegmentNames` of a deployment: of the policy files until others were put in force."""

    def __init__(self, client: Client, files: Sequence[Segment]) -> None:
        self._control = ControlReader(client)
        self._files = files

    def __call__(self, version: int) -> Mapping[int, str]:
        """Names as of a version. Raises `KafkaUnavailable` where control cannot be read up to it."""
        deadline = time.monotonic() + _PATIENCE_S
        state = self._control.poll()
        while state.version < version:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"control could not be read up to version {version} within 30 s")
            state = self._control.poll(0.1)
        known = [each.segments for each in state.segments if each.version <= version]
        return {segment.number: segment.name for segment in (known[-1] if known else self._files)}
