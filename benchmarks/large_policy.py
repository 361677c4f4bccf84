"""A policy of 50 segments and 20 campaigns: the benchmarks' own, and as many more made by rule."""

import shutil
from pathlib import Path
from typing import Final

from schemas import policy_files

SEGMENTS: Final = 50
CAMPAIGNS: Final = 20
_KINDS: Final = ("views", "clicks", "scrolls", "searches", "carts", "opens", "purchases")
_WINDOWS: Final = ("1h", "6h", "24h", "48h", "7d", "14d", "30d")


def make(base: Path, folder: Path) -> Path:
    """Write the policy into a folder that does not exist yet; `base` is the smaller one."""
    small = policy_files.load(base)
    shutil.copytree(base, folder)
    for n in range(SEGMENTS - len(small.segments)):
        number = 1 + max(segment.number for segment in small.segments) + n
        text = f'number = {number}\nname = "made_{n}"\ndoc = "Made by rule."\nwhere = "{_where(n)}"\n'
        (folder / "segments" / f"made_{n}.toml").write_text(text)
    for n in range(CAMPAIGNS - len(small.campaigns)):
        number = 1 + max(campaign.number for campaign in small.campaigns) + n
        trigger = (f'enter = "made_{n}"', f'leave = "made_{n + 12}"')[n % 2]
        trigger = 'event = "purchase"' if n == 0 else trigger  # one in eight, as in the smaller one
        text = (
            f'number = {number}\nname = "made_{n}"\nversion = 1\ndoc = "Made by rule."\ntrigger.{trigger}\n'
            f'template = "win_back"\npriority = {1 + n % 5}\ncooldown = "{1 + n} days"\nexpiry = "24 h"\n'
            "arms = { control = 0.1, hold_out = 0.05 }\n"
        )
        (folder / "campaigns" / f"made_{n}.toml").write_text(text)
    return folder


def _where(n: int) -> str:
    one, other = _KINDS[n % 7], _KINDS[(n * 3 + 1) % 7]
    short, long = _WINDOWS[n % 7], _WINDOWS[(n * 2 + 3) % 7]
    if n % 3:
        return f"{one}_{short} >= {1 + n % 4} AND {other}_{long} < {2 + n % 5}"
    spent = f"revenue_{_WINDOWS[4 + n % 3]} < {10_000 * (1 + n)}"
    return f"({one}_{short} >= {2 + n % 3} OR {other}_{long} >= {3 + n % 4}) AND {spent}"
