"""Every log event is in the guide that whoever reads a log at night has at hand."""

import re
from pathlib import Path

from streams import events

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\|(?P<names>[^|]+)\|", re.MULTILINE)


def test_the_operating_guide_explains_every_log_event() -> None:
    guide = (_ROOT / "docs" / "operating.md").read_text()
    explained = {name for row in _ROW.finditer(guide) for name in re.findall(r"`(\w+)`", row["names"])}
    known = {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}
    assert known - explained == set()
