"""How many records of a topic a cut takes: few while that keeps up, many while it does not."""

from typing import Final

_LEAST: Final = 500  # below this a cut's own cost outweighs its records'
_BEHIND: Final = 4  # cuts' worth of waiting records from which on the target is missed anyway
_MEMORY: Final = 0.8


class CutSize:
    """Learns what a record costs, and answers how many are handled and committed within a target.

    `target_s` is that target in seconds, `most` the most records of one topic that a cut may hold. A line
    that is behind takes as many as it may: its records cost less in larger cuts, and so it catches up.
    """

    def __init__(self, target_s: float, most: int) -> None:
        self._target_s, self._most = target_s, most
        self._each_s = target_s / most

    def limit(self, waiting: int) -> int:
        """Most records of a topic for the next cut; `waiting` are those of the topic with most of them."""
        fits = max(_LEAST, int(self._target_s / self._each_s))
        return self._most if waiting > _BEHIND * fits else min(fits, self._most)

    def settled(self, records: int, seconds: float) -> None:
        """Learn from a cut: records of the topic with most of them, and seconds from made to committed."""
        if records >= _LEAST:
            self._each_s = _MEMORY * self._each_s + (1 - _MEMORY) * seconds / records
