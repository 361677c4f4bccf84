"""Who may import whom, and what the core never does: the Rooms table of the design, held by reading the code.

What is written is checked, not what runs: a clock is caught where it is named, but not one fetched by
`getattr` with a computed name, nor one that a library reads on its own.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from importlinter.cli import lint_imports

ROOT: Final = Path(__file__).parents[2]
OURS: Final = ("schemas", "models", "sinks", "streams", "infra")
OUTSIDE: Final = ("tests", "benchmarks")

MAY_IMPORT: Final = {
    "schemas": {
        *("schemas", "numpy", "avro", "fastavro", "polars", "pydantic", "pydantic_settings", "xxhash"),
        *("tree_sitter", "tree_sitter_toml"),
    },
    "models": {"models", "schemas", "numpy", "polars", "sklearn", "jinja2", "sqlglot", "xxhash"},
}

# Names that the core never says. One stands for all below it; one that ends in `_` for all that begin so.
NEVER_IN_MODELS: Final = {
    "I/O": (
        *("open", "input", "print", "breakpoint", "io.open", "io.FileIO", "os", "pathlib", "shutil", "glob"),
        *("tempfile", "fileinput", "mmap", "sys.stdin", "sys.stdout", "sys.stderr", "sqlite3", "dbm"),
        *("socket", "socketserver", "ssl", "select", "selectors", "http", "urllib.request", "smtplib"),
        *("shelve", "imaplib", "poplib", "ftplib", "subprocess", "signal", "ctypes"),
        *("polars.read_", "polars.scan_"),
        *("numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile", "numpy.memmap", "numpy.save"),
        *("numpy.savez", "numpy.savez_", "numpy.savetxt", "sklearn.datasets.fetch_"),
        *("jinja2.FileSystemLoader", "jinja2.PackageLoader", "jinja2.FileSystemBytecodeCache"),
    ),
    "concurrency": ("asyncio", "threading", "multiprocessing", "concurrent"),
    "logging": ("logging", "structlog", "syslog"),
    "a clock": (
        *("time", "sched", "timeit", "datetime.datetime.now", "datetime.datetime.utcnow"),
        *("datetime.datetime.today", "datetime.date.today", "email.utils.localtime"),
        *("email.utils.formatdate", "email.utils.make_msgid"),
    ),
    "randomness without a seed": ("random", "secrets", "uuid.uuid1", "uuid.uuid4", "hash", "numpy.random"),
    "a name known only when it runs": ("__import__", "importlib", "runpy", "exec", "eval", "compile"),
}
BUT: Final = ("pathlib.PurePath", "pathlib.PurePosixPath", "numpy.random.Generator")
WITH_A_SEED: Final = ("numpy.random.default_rng", "numpy.random.SeedSequence", "numpy.random.PCG64")
# Methods that touch a file, whatever they are called on.
FILE_METHODS: Final = ("open", "read_text", "read_bytes", "write_", "sink_", "tofile", "unlink", "mkdir")

SPEAKS_FAUST: Final = ("streams/agents/", "streams/agents.py", "streams/worker/", "streams/worker.py")
ENGINE: Final = "streams/engine/"

# In two halves, or this file would be its own finding.
HOSTS: Final = (
    *("pypi" + ".org", "pythonhosted" + ".org", "crates" + ".io", "golang" + ".org", "npmjs" + ".org"),
    *("npmjs" + ".com", "maven" + ".org", "repo.maven" + ".apache", "deb.debian" + ".org", "index" + "-url"),
)
MACHINE_PATHS: Final = ("/wor" + "k/", "/far" + "m/", "/opt/whe" + "els", "bash" + "_jobs")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def begins(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p if p.endswith("_") else f"{p}.") for p in prefixes)


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, name in the module, and what it stands for, of all imports (also in functions, also for types).

    Relative imports stay within their room, since our packages are at the top, and are left out.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def foreign_imports(tree: ast.Module, room: str) -> list[str]:
    allowed = MAY_IMPORT[room] | sys.stdlib_module_names
    return [f"{line}: imports {name}" for line, _, name in imports(tree) if name.split(".")[0] not in allowed]


def imports_below(tree: ast.Module, *roots: str) -> list[str]:
    return [f"{line}: imports {name}" for line, _, name in imports(tree) if begins(name, roots)]


def misplaced_faust(tree: ast.Module, path: str) -> list[str]:
    """Faust is spoken by the engine, the agents and the worker; its transport and aiokafka by the engine."""
    if path.startswith(ENGINE):
        return []
    if path.startswith(SPEAKS_FAUST):
        return imports_below(tree, "faust.transport", "aiokafka")
    return imports_below(tree, "faust", "mode", "aiokafka")


class Impurities(ast.NodeVisitor):
    """Collects what a pure function over columns never does."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[str] = []
        self.names: dict[str, str] = {}
        for line, local, full in imports(tree):
            # `import a.b` binds `a`
            self.names[local.split(".")[0]] = full if "." not in local else full.split(".")[0]
            if not begins(full, WITH_A_SEED):
                self.judge(line, full)
        self.visit(tree)

    def judge(self, line: int, name: str) -> None:
        for why, prefixes in NEVER_IN_MODELS.items():
            if begins(name, prefixes) and not begins(name, BUT):
                self.found.append(f"{line}: {name} is {why}")

    def full_name(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute) and (base := self.full_name(node.value)):
            return f"{base}.{node.attr}"
        return None

    def visit_Name(self, node: ast.Name) -> None:  # noqa: N802 - ast's name
        if name := self.full_name(node):
            self.judge(node.lineno, name)

    def visit_Attribute(self, node: ast.Attribute) -> None:  # noqa: N802 - ast's name
        if name := self.full_name(node):
            self.judge(node.lineno, name)
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802 - ast's name
        name = self.full_name(node.func)
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        constants = [value.value for value in values if isinstance(value, ast.Constant)]
        if name and begins(name, WITH_A_SEED):
            if not values or constants[:1] == [None]:
                self.found.append(f"{node.lineno}: {name} without a seed")
        elif name == "numpy.datetime64" and constants[:1] in (["now"], ["today"]):
            self.found.append(f"{node.lineno}: {name} of {constants[0]!r} is a clock")
        elif isinstance(node.func, ast.Name) and not name:
            self.judge(node.lineno, node.func.id)
        else:
            self.visit(node.func)
            if isinstance(node.func, ast.Attribute) and not name:
                self.judge_method(node.lineno, node.func.attr, {keyword.arg for keyword in node.keywords})
        for value in values:
            self.visit(value)

    def judge_method(self, line: int, method: str, keywords: set[str | None]) -> None:
        if method == "sample" and "seed" not in keywords:
            self.found.append(f"{line}: sample without a seed")
        if any(method == m or (m.endswith("_") and method.startswith(m)) for m in FILE_METHODS):
            self.found.append(f"{line}: {method} is I/O")

    def found_async(self, node: ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await) -> None:
        self.found.append(f"{node.lineno}: async")
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_AsyncFor = visit_AsyncWith = visit_Await = found_async  # noqa: N815 - ast's names


def impurities(tree: ast.Module) -> list[str]:
    return Impurities(tree).found


def machine_words(text: str) -> list[str]:
    return [word for word in (*HOSTS, *MACHINE_PATHS) if word in text]


def text_files() -> Iterator[tuple[str, str]]:
    """Name and text of what git has or would take; what holds a zero byte is no text."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603 - fixed words
    for name in sorted(set(listed.stdout.decode().split("\0")) - {""}):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, content.decode(errors="replace")


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_schemas_and_models_import_only_what_their_line_of_the_table_allows(room: str) -> None:
    found = {name_of(p): found for p in python_files(room) if (found := foreign_imports(tree_of(p), room))}
    assert found == {}


def test_models_are_pure() -> None:
    found = {name_of(p): found for p in python_files("models") if (found := impurities(tree_of(p)))}
    assert found == {}


def test_faust_is_named_only_by_the_engine_the_agents_and_the_worker() -> None:
    found = {name_of(p): f for p in python_files(*OURS) if (f := misplaced_faust(tree_of(p), name_of(p)))}
    assert found == {}


def test_infra_imports_nothing_of_ours() -> None:
    others = [room for room in OURS if room != "infra"]
    found = {name_of(p): f for p in python_files("infra") if (f := imports_below(tree_of(p), *others))}
    assert found == {}


def test_no_package_imports_tests() -> None:
    found = {name_of(p): f for p in python_files(*OURS) if (f := imports_below(tree_of(p), "tests"))}
    assert found == {}


def test_benchmarks_import_of_tests_only_the_reference_which_is_a_peer() -> None:
    others = {name_of(p): imports_below(tree_of(p), "tests") for p in python_files("benchmarks")}
    found = [text for texts in others.values() for text in texts if "tests.reference." not in text]
    assert found == []


def test_every_folder_with_code_is_a_package_and_so_part_of_the_wheel() -> None:
    bare = {name_of(p.parent) for p in python_files(*OURS) if not (p.parent / "__init__.py").exists()}
    assert bare == set()


def test_import_linter_keeps_its_contracts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_no_text_names_a_registry_or_a_path_of_one_machine() -> None:
    found = {name: words for name, text in text_files() if (words := machine_words(text))}
    assert found == {}


# The checks themselves: each must be able to fail.


@pytest.mark.parametrize(
    "code",
    [
        "async def f(): ...",
        "async def f(): await g()",
        "open('rows.csv')",
        "print(1)",
        "import os",
        "from pathlib import Path",
        "def f(path): return path.read_text()",
        "import socket",
        "import polars as pl\npl.read_csv('rows.csv')",
        "def f(frame): frame.write_parquet('rows')",
        "import numpy as np\nnp.load('rows')",
        "import logging",
        "def f():\n    import structlog",
        "import time",
        "from time import monotonic",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "from datetime import datetime\nclock = datetime.utcnow",
        "from datetime import date\ndate.today()",
        "import numpy as np\nnp.datetime64('now')",
        "import random",
        "from uuid import uuid4",
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.random.default_rng()",
        "import numpy as np\nnp.random.default_rng(None)",
        "import numpy as np\nmake = np.random.default_rng",
        "from numpy.random import default_rng\ndefault_rng()",
        "def f(frame): return frame.sample(3)",
        "hash('recipient')",
        "__import__('time')",
    ],
)
def test_an_impure_line_is_found(code: str) -> None:
    assert impurities(ast.parse(code)) != []


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np\ndef f(seed): return np.random.default_rng(seed).integers(3)",
        "import numpy as np\ndef f(rng: np.random.Generator): return rng.random()",
        "from numpy.random import default_rng\ndefault_rng(seed=7)",
        "from datetime import datetime, UTC\ndef f(now): return datetime.fromtimestamp(now, UTC)",
        "import numpy as np\ndef f(time, hash): return np.datetime64(time, 'ms') + hash",
        "import polars as pl\ndef f(frame): return frame.sample(3, seed=1).select(pl.col('hash'))",
        "from pathlib import PurePath\ndef f(name): return PurePath(name).suffix",
        "import io\nimport json\nio.BytesIO(json.dumps(1).encode())",
    ],
)
def test_a_pure_line_is_not_found(code: str) -> None:
    assert impurities(ast.parse(code)) == []


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("schemas", "import jinja2"),
        ("schemas", "from models import profile"),
        ("schemas", "def f():\n    import structlog"),
        ("models", "import pandas as pd"),
        ("models", "from streams.engine import table"),
        ("models", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import faust"),
    ],
)
def test_a_foreign_import_is_found(room: str, code: str) -> None:
    assert len(foreign_imports(ast.parse(code), room)) == 1


@pytest.mark.parametrize(
    ("path", "code", "allowed"),
    [
        ("streams/engine/consumer.py", "from faust.transport import base", True),
        ("streams/engine/consumer.py", "import aiokafka", True),
        ("streams/agents/decide.py", "import faust", True),
        ("streams/agents/decide.py", "from faust import transport", False),
        ("streams/worker.py", "import faust.transport.consumer", False),
        ("streams/worker/run.py", "from aiokafka.errors import KafkaError", False),
        ("streams/cli/main.py", "import faust", False),
        ("sinks/clickhouse.py", "from mode import Service", False),
    ],
)
def test_a_misplaced_faust_import_is_found(path: str, code: str, allowed: bool) -> None:
    assert (misplaced_faust(ast.parse(code), path) == []) is allowed


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("schemas", "models"),
        ("models", "sinks"),
        ("sinks", "streams"),
        ("infra", "schemas"),
        ("streams", "tests"),
        ("streams", "benchmarks"),
    ],
)
def test_import_linter_breaks_on_a_bad_import(importer: str, imported: str, tmp_path: Path) -> None:
    for package in (*OURS, *OUTSIDE):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / importer / "bad.py").write_text(f"import {imported}\n")
    # Another process: this one has the real packages loaded.
    lint = str(Path(sys.executable).with_name("lint-imports"))
    command = [lint, "--no-cache", str(ROOT / "pyproject.toml")]
    linted = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert linted.returncode == 1, linted.stderr
    assert "1 broken" in linted.stdout


@pytest.mark.parametrize("word", [*HOSTS, *MACHINE_PATHS])
def test_a_machine_word_is_found(word: str) -> None:
    assert machine_words(f"see {word}x") == [word]
