"""Private names of Faust, mode and aiokafka: where they may stand, and what each was when it was last read.

An upgrade may change a private name without a word. So the engine alone uses them, each is listed below with
the fingerprint of its code, and the test fails where one has changed, appeared or gone.

`python tests/architecture/test_private_names.py` prints the list as the installed packages have it: read what
changed, adapt the engine, then put the printed lines here.
"""

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
ENGINE: Final = "streams/engine"
ROOMS: Final = ("schemas", "models", "sinks", "streams", "infra", "benchmarks", "tests")
PACKAGES: Final = {"faust": "faust-streaming", "mode": "mode-streaming", "aiokafka": "aiokafka"}
# Who imports one of these holds objects of the three packages.
HOLDERS: Final = (*PACKAGES, "streams.engine.app", "streams.engine.consumer")


class Listed(NamedTuple):
    """A name, `module:Class.name`; the version it was read in, its fingerprint, what to review."""

    where: str
    version: str
    fingerprint: str
    review: str

    @property
    def name(self) -> str:
        return self.where.rpartition(".")[2]


THREAD: Final = "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread"
LISTED: Final = (
    Listed(
        "faust.transport.consumer:Consumer._drain_messages",
        "0.15.3",
        "44a2500309e83c63",
        "CutConsumer replaces it: the loop that fetches and hands messages on until the fetcher stops",
    ),
    Listed(
        "faust.transport.consumer:Consumer._unacked_messages",
        "0.15.3",
        "f9ff5641acb79239",
        "CutConsumer.ack takes messages out of it; whatever waits for it to be empty must still end",
    ),
    Listed(
        "faust.transport.consumer:ThreadDelegateConsumer._new_consumer_thread",
        "0.15.3",
        "79e9c029a91a2cb2",
        "CutConsumer replaces it, to make a CutThread",
    ),
    Listed(
        "faust.transport.consumer:ThreadDelegateConsumer._thread",
        "0.15.3",
        "8efb6d437f3cdab7",
        "the thread that keeps the membership; CutConsumer calls into it",
    ),
    Listed(
        f"{THREAD}._assignor",
        "0.15.3",
        "605836ea91901bcd",
        "CutThread sets it to the app's, which keeps a partition number together",
    ),
    Listed(
        f"{THREAD}._create_worker_consumer",
        "0.15.3",
        "c2701bfc3e6f6cad",
        "CutThread extends it: what it makes is given the assignor before it starts",
    ),
    Listed(
        f"{THREAD}._ensure_consumer",
        "0.15.3",
        "ff4a4c693b7ec63f",
        "gives the aiokafka consumer, which is paused, told of life, and commits for lag tools",
    ),
    Listed(
        "faust.web.drivers.aiohttp:Web._runner",
        "0.15.3",
        "f1a9a55ebe1d2f58",
        "HeldWeb serves through it on a socket of its own, as start_server does; stop_server ends it",
    ),
    Listed(
        "mode.services:Service._stopped",
        "0.7.1",
        "097693a1ec1eaca4",
        "the event of a stopped service: of the consumer's and the fetcher's end",
    ),
    Listed(
        "aiokafka.consumer.consumer:AIOKafkaConsumer._partition_assignment_strategy",
        "0.14.0",
        "9e917f8cadc32e16",
        "replaced between making and start, so it must be read at start and not before",
    ),
    Listed(
        "aiokafka.consumer.consumer:AIOKafkaConsumer._subscription",
        "0.14.0",
        "71868fc8356eb5b1",
        "leads to fetch_context, by which a consumer that fetches nothing shows that it lives",
    ),
    Listed(
        "aiokafka.consumer.subscription_state:SubscriptionState.fetch_context",
        "0.14.0",
        "ff2a654dca239cfe",
        "entering it must still count as a poll for max_poll_interval_ms",
    ),
)


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def below(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def imported(tree: ast.Module) -> dict[str, str]:
    """What each local name of an import stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                found[alias.asname or root] = alias.name if alias.asname else root
                found.setdefault(alias.name, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def written(tree: ast.Module) -> Iterator[tuple[int, ast.expr, str]]:
    """Line, object and name of every private attribute, also where `getattr` and its like are given one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            yield node.lineno, node.value, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            name = node.args[1]
            if (
                node.func.id in ("getattr", "setattr", "hasattr", "delattr")
                and isinstance(name, ast.Constant)
                and private(str(name.value))
            ):
                yield node.lineno, node.args[0], str(name.value)


def defined(tree: ast.AST) -> set[str]:
    """Private names that a module or class gives its own objects: methods, attributes, slots' annotations."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if private(name)}


def foreign_bases(tree: ast.Module, names: dict[str, str]) -> dict[str, tuple[type, ...]]:
    """The classes of a module that are made from ones of the three packages, and all their bases there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [resolved(ast.unparse(base), names) for base in node.bases]
            mros = [inspect.getmro(base) for base in bases if base is not None]
            found[node.name] = tuple(
                each for mro in mros for each in mro if below(each.__module__, tuple(PACKAGES))
            )
    return {name: bases for name, bases in found.items() if bases}


def resolved(text: str, names: dict[str, str]) -> type | None:
    """The class that an expression names, if it is one of the three packages or of the engine."""
    root, *rest = text.split(".")
    full = names.get(root, "")
    if not below(full, (*PACKAGES, "streams.engine")):
        return None
    found: Any = pkgutil.resolve_name(".".join([full, *rest]))
    return found if isinstance(found, type) else None


def mentions(kind: type, name: str) -> list[str]:
    """The lines of a class that name something, without their indentation."""
    return [line.strip() for line in inspect.getsource(kind).splitlines() if re.search(rf"\b{name}\b", line)]


def borrowed(tree: ast.Module) -> dict[str, int]:
    """Private names of the three packages that a module of the engine uses, and a line of each.

    Ours are those of our own classes, unless a class of the three packages, from which ours is made, says the
    same name; and those of other libraries' imported modules and classes.
    """
    names, ours = imported(tree), defined(tree)
    found: dict[str, int] = {}
    classes = foreign_bases(tree, names)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for name in defined(node):
                if any(mentions(base, name) for base in classes[node.name]):
                    found.setdefault(name, node.lineno)
    for line, owner, name in written(tree):
        root = ast.unparse(owner).partition(".")[0]
        elsewhere = root in names and not below(names[root], HOLDERS)
        if name not in ours and not elsewhere:
            found.setdefault(name, line)
    for full in names.values():
        if below(full, tuple(PACKAGES)) and (parts := [part for part in full.split(".") if private(part)]):
            found.setdefault(parts[0], 1)
    return found


def trespasses(tree: ast.Module) -> list[str]:
    """Private names that a module outside the engine uses, if it holds objects of the three packages."""
    names = imported(tree)
    if not any(below(full, HOLDERS) for full in names.values()):
        return []
    ours = defined(tree)
    return [f"{line}: {ast.unparse(owner)}.{name}" for line, owner, name in written(tree) if name not in ours]


def fingerprint(where: str) -> str:
    """The first 16 digits of the SHA-256 of what makes a name.

    A method's is its code; an attribute's are the lines of its class that name it; what is compiled has its
    signature.

    Raises
    ------
    LookupError
        There is no such name any more.
    """
    module, _, path = where.partition(":")
    owner_name, _, name = path.rpartition(".")
    owner = getattr(importlib.import_module(module), owner_name, None)
    if owner is None:
        raise LookupError(f"{module} has no {owner_name}")
    found = inspect.getattr_static(owner, name, None)
    if callable(found):
        try:
            text = inspect.getsource(found)
        except (TypeError, OSError):  # compiled
            text = f"{name}{inspect.signature(found)}"
    else:
        text = "\n".join(mentions(owner, name))
    if not text:
        raise LookupError(f"{owner_name} has no {name}")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def version_of(where: str) -> str:
    return metadata.version(PACKAGES[where.partition(":")[0].partition(".")[0]])


@pytest.mark.parametrize("listed", LISTED, ids=lambda listed: listed.name)
def test_a_private_name_is_what_it_was_when_it_was_read(listed: Listed) -> None:
    assert fingerprint(listed.where) == listed.fingerprint, (
        f"{listed.where} is not what it was in {listed.version}; installed is {version_of(listed.where)}. "
        f"Review: {listed.review}. Then run: python {name_of(Path(__file__))}"
    )


def test_the_list_holds_every_private_name_that_the_engine_uses_and_no_other() -> None:
    used = {
        name: f"{name_of(path)}:{line}"
        for path in python_files(ENGINE)
        for name, line in borrowed(tree_of(path)).items()
    }
    listed = {entry.name for entry in LISTED}
    missing = {name: place for name, place in used.items() if name not in listed}
    gone = sorted(name for name in listed - used.keys() if private(name))
    assert not missing, f"put into LISTED, with the class that has it and what to review: {missing}"
    assert not gone, f"take out of LISTED, the engine uses them no more: {gone}"


def test_nothing_outside_the_engine_reaches_for_a_private_name() -> None:
    outside = [path for path in python_files(*ROOMS) if not name_of(path).startswith(f"{ENGINE}/")]
    assert {name_of(p): found for p in outside if (found := trespasses(tree_of(p)))} == {}


# The checks themselves: each must be able to fail.


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f(fetcher): return fetcher._stopped", {"_stopped"}),
        ("def f(app): return getattr(app, '_tasks')", {"_tasks"}),
        ("import faust\nfaust.app._x()", {"_x"}),
        ("from faust._cython import streams", {"_cython"}),
        ("import faust\nclass A(faust.App):\n    def __init__(self): self._consumer = 1", {"_consumer"}),
        ("import faust\nclass A(faust.App):\n    def _new_producer(self): ...", {"_new_producer"}),
        ("import faust\nclass A(faust.App):\n    def f(self): return self._producer", {"_producer"}),
        ("import faust\nclass A(faust.App):\n    def __init__(self): self._ours_alone = 1", set()),
        ("class A:\n    def __init__(self): self._stopped = 1\ndef f(a: A): return a._stopped", set()),
        ("import os\nos._exit(1)", set()),
        ("from confluent_kafka import KafkaError\nKafkaError._FENCED", set()),
        ("def f(thing): return thing.__class__", set()),
    ],
)
def test_what_the_engine_borrows_is_found(code: str, names: set[str]) -> None:
    assert borrowed(ast.parse(code)).keys() == names


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import faust\ndef f(app): return app._producer", True),
        ("from streams.engine import app as engine\ndef f(app): return engine.build()._producer", True),
        ("import faust\ndef f(app): return getattr(app, '_producer')", True),
        ("import faust\nclass A:\n    def __init__(self): self._mine = 1", False),
        ("def f(anything): return anything._producer", False),
    ],
)
def test_a_trespass_is_found(code: str, found: bool) -> None:
    assert bool(trespasses(ast.parse(code))) is found


def test_a_name_that_has_changed_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{THREAD}._ensure_consumer"
    before = fingerprint(where)
    monkeypatch.setattr(pkgutil.resolve_name(THREAD), "_ensure_consumer", lambda thread: thread)
    assert fingerprint(where) != before


def test_a_name_that_has_gone_is_told() -> None:
    with pytest.raises(LookupError, match="_gone"):
        fingerprint("mode.services:Service._gone")


def test_a_compiled_method_has_its_signature_for_a_fingerprint() -> None:
    compiled = "faust._cython.streams:StreamIterator.after"
    assert fingerprint(compiled) != fingerprint("faust._cython.streams:StreamIterator.next")


if __name__ == "__main__":
    for each in LISTED:
        print(f'{each.where}\n    "{version_of(each.where)}",\n    "{fingerprint(each.where)}",')
