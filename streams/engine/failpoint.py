"""Named places at which a fault test lets a worker die, freeze or hang.

`OPPORTUNE_FAILPOINT=role.point:action@n`; several are joined by commas. `n` is the visit at which it
happens, 1 if not given. Unset, a visit costs one look at an empty dict.

`kill` is SIGKILL; `stop` is SIGSTOP, until somebody continues the process; `hang` never returns; `fail`
raises.
"""

import os
import re
import signal
import sys
import threading
from typing import Final, NoReturn

# Of a role's line: decide.x and deliver.x
POINTS: Final = (
    "after_fence",  # take-over: the former owner is fenced
    "after_recover",  # take-over: the table stands
    "after_seek",  # take-over: the sources are sought, the line is not yet live
    "after_fetch",  # records are in the buffers
    "before_handle",  # a cut is made
    "after_handle",  # its rows are staged
    "after_begin",  # its transaction is open and holds nothing
    "mid_produce",  # half of its records are produced
    "after_produce",  # all are, and none is committed
    "after_commit",  # it has committed and this process does not know it yet
    "after_settle",  # the line goes on
    "on_revoke",  # partitions are about to leave
)
# Of DELIVER's sender: deliver.x
SENDER_POINTS: Final = (
    "before_send",  # its claim has committed, and the transport is about to be asked
    "after_accept",  # the transport has answered, and nobody else knows
    "before_record",  # results are about to go into a cut
)
# Of the recorder: record.x
RECORD_POINTS: Final = (
    "before_insert",  # the end of the batch is committed, and nothing of it inserted
    "after_insert",  # ClickHouse has a block of it
    "before_commit",  # ClickHouse has all of it
)
# Of the thread that writes snapshots: snapshot.x
SNAPSHOT_POINTS: Final = (
    "mid_write",  # half of a file is written
    "before_rename",  # all of it is, under a name that nobody reads
)


class BadFailpoint(ValueError):
    """OPPORTUNE_FAILPOINT is not understood: write name:action or name:action@visit, joined by commas."""


class Failed(RuntimeError):
    """A failpoint's `fail` was reached."""


_ACTIONS: Final = ("kill", "stop", "hang", "fail")
_POINTS: Final = (*POINTS, *SENDER_POINTS, *RECORD_POINTS, *SNAPSHOT_POINTS)
_VISIT: Final = re.compile("[1-9][0-9]*")


def _parse(text: str) -> dict[str, tuple[str, int]]:
    out = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition(":")
        action, _, visit = rest.partition("@")
        if not name or action not in _ACTIONS or not _VISIT.fullmatch(visit or "1"):
            raise BadFailpoint(f"{part!r}: write name:action@visit, action one of {', '.join(_ACTIONS)}")
        if name.partition(".")[2] not in _POINTS:  # of any role: tests have apps of their own
            raise BadFailpoint(f"{name!r} is no failpoint; after the role comes one of {', '.join(_POINTS)}")
        out[name] = (action, int(visit or "1"))
    return out


def _armed_by_environment() -> dict[str, tuple[str, int]]:
    try:
        return _parse(os.environ.get("OPPORTUNE_FAILPOINT", ""))
    except BadFailpoint as error:
        sys.exit(f"error: OPPORTUNE_FAILPOINT: {error}")


_armed: Final = _armed_by_environment()
_visits: Final[dict[str, int]] = {}
_lock: Final = threading.Lock()


def reach(role: str, point: str) -> None:
    """Visit a failpoint of a role. Raises `Failed` where that is what is asked for."""
    if not _armed:
        return
    name = f"{role}.{point}"
    if name not in _armed:
        return
    action, at = _armed[name]
    with _lock:
        _visits[name] = _visits.get(name, 0) + 1
        if _visits[name] != at:
            return
    _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "hang":
        _hang()
    else:
        raise Failed(name)


def _hang() -> NoReturn:
    while True:
        threading.Event().wait()
