"""The sandbox's stored messages against DELIVER's dispatches. Only their file names are read."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas import topics
from schemas.dispatch import State
from streams.reconciling.cuts import listed
from streams.reconciling.deliveries import Deliveries, Place

# A message may have reached the server, whatever became of its dispatch afterwards.
_MAY_HAVE_GONE: Final = ("delivered", "unknown")
_TAKEN: Final = (State.CLAIMED, State.DELIVERED, State.UNKNOWN)


@dataclass
class Mail:
    """Messages in the sandbox: how many, of how many dispatches, how many of them repeats that may be."""

    messages: int = 0
    dispatches: int = 0
    repeats: int = 0


def stored(folder: Path) -> Counter[str]:
    """How many messages of each dispatch a sandbox's mail folder holds, by names `<dispatch id>.<n>.eml`."""
    return Counter(path.name.partition(".")[0] for path in folder.glob("*/*.eml"))


def compare(
    mails: Mapping[str, int], deliver: Deliveries, begins: Collection[Place], at_least_once: Collection[str]
) -> tuple[Mail, list[str]]:
    """Hold each message against its dispatch, and each delivered dispatch against its message. Pure.

    `begins` are the partitions of which retention deleted the beginning; `at_least_once` the campaigns that
    may send one dispatch twice.
    """
    mail = Mail(sum(mails.values()), len(mails))
    repeated = []
    for dispatch in (dispatch for dispatch, count in mails.items() if count > 1):
        if _campaign(deliver, dispatch) in at_least_once:
            mail.repeats += mails[dispatch] - 1
        else:
            repeated.append(dispatch)
    off = [*listed("dispatch", "has more than one message", repeated), *_unaccounted(mails, deliver, begins)]
    delivered = {
        dispatch
        for dispatch, end in deliver.ends.items()
        if end.kind == "delivered" and deliver.within_journal(end)
    }
    off += listed("dispatch", "was delivered, but has no message in the sandbox", delivered - mails.keys())
    return mail, off


def _campaign(deliver: Deliveries, dispatch: str) -> str | None:
    known = deliver.commands.get(dispatch) or deliver.ends.get(dispatch) or deliver.rows.get(dispatch)
    return known.campaign if known else None


def _unaccounted(mails: Mapping[str, int], deliver: Deliveries, begins: Collection[Place]) -> Iterator[str]:
    """Find messages whose dispatch cannot have been handed over."""
    whole = not any(topic in (topics.AUDIT.name, topics.COMMANDS.name) for topic, _ in begins)
    unknown, wrong = [], dict[str, list[str]]()
    for dispatch in mails:
        end, row = deliver.ends.get(dispatch), deliver.rows.get(dispatch)
        if dispatch in deliver.deferred or (end and end.kind in _MAY_HAVE_GONE):
            continue
        if row and (row.state in _TAKEN or (row.state == State.WAITING and row.attempts)):
            continue
        if end:
            wrong.setdefault(f"was {end.kind}", []).append(dispatch)
        elif row:
            wrong.setdefault(f"is {row.state.name.lower()} and was never tried", []).append(dispatch)
        elif dispatch in deliver.commands and deliver.commands[dispatch].history:
            wrong.setdefault("is of loaded history", []).append(dispatch)
        elif whole:
            unknown.append(dispatch)
    for how, dispatches in sorted(wrong.items()):
        yield from listed("dispatch", f"{how}, but has a message in the sandbox", dispatches)
    yield from listed("dispatch", "has a message in the sandbox, but DELIVER does not know it", unknown)
