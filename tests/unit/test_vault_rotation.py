"""Rotation of the vault's master key: killed at any step, or two at a time, it never loses a key."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from sinks.vault import Contact, VaultError, WrongKey
from sinks.vault.sqlite import SqliteVault

ANN = Contact("ann", "ann@mail.example", {"first_name": "Ann"})
PEOPLE = [Contact(f"r{i}", f"r{i}@mail.example") for i in range(1_200)]


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "vault" / "contacts.sqlite", tmp_path / "keys" / "master.key"


@pytest.fixture
def vault(paths: tuple[Path, Path]) -> Iterator[SqliteVault]:
    with closing(SqliteVault.create(*paths)) as made:
        yield made


def _child(program: str, paths: tuple[Path, Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, *map(str, paths)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )


def test_rotation_changes_the_key_and_keeps_the_contacts(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN, *PEOPLE])
    before, old = vault.key_id, paths[1].read_text()
    with closing(SqliteVault(*paths)) as other:
        assert vault.rotate() == vault.key_id != before
        assert other.get_many(["ann"]) == {"ann": ANN}, "an open vault follows"
        other.put_many([Contact("eve", "eve@mail.example")])
        assert other.key_id == vault.key_id
    with closing(SqliteVault(*paths)) as opened:
        assert len(opened.get_many(["ann", "eve", *(each.recipient_id for each in PEOPLE)])) == 1_202
    assert paths[1].stat().st_mode & 0o777 == 0o600
    assert [path.name for path in paths[1].parent.iterdir()] == ["master.key"]
    paths[1].write_text(old)
    with pytest.raises(WrongKey, match="find that file"):
        SqliteVault(*paths)


def test_after_a_rotation_no_key_that_the_old_master_opens_is_left_in_the_files(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN])
    (wrapped,) = vault._db.execute("SELECT wrapped FROM contact").fetchone()
    vault.rotate()
    assert [path.name for path in paths[0].parent.iterdir() if wrapped in path.read_bytes()] == []


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from sinks.vault import sqlite
from sinks.vault.keys import MasterKey
vault = sqlite.SqliteVault(Path(sys.argv[1]), Path(sys.argv[2]))
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
_STEPS = {
    "before the key is written": ("MasterKey.save = kill", False),
    "while the key is written": (
        "MasterKey.save = lambda key, path: (path.write_bytes(b'opportune-vault'), kill())",
        False,
    ),
    "before the keys are wrapped": ("sqlite._wrapped = kill", False),
    "before the commit": (
        "note = sqlite._write_key_check; sqlite._write_key_check = lambda *of: (note(*of), kill())",
        False,
    ),
    "before the rename": (
        "use = vault._take_into_use; old = vault.key_id; "
        "vault._take_into_use = lambda key: use(key) if key.id == old else kill()",
        True,
    ),
    "after the rename": ("sqlite.sync_folder = kill", True),
}


@pytest.mark.parametrize("step", _STEPS)
def test_a_rotation_that_is_killed_leaves_one_key_that_opens_all(
    vault: SqliteVault, paths: tuple[Path, Path], step: str
) -> None:
    fault, committed = _STEPS[step]
    vault.put_many([ANN, *PEOPLE])
    before = vault.key_id
    with _child(f"{_KILLED_AT}\n{fault}\nvault.rotate()", paths) as child:
        assert child.wait() == -signal.SIGKILL
    with closing(SqliteVault(*paths)) as opened:
        assert (opened.key_id != before) == committed
        assert len(opened.get_many([each.recipient_id for each in PEOPLE])) == len(PEOPLE)
    assert vault.get_many(["ann"]) == {"ann": ANN}, "who had it open goes on"
    vault.rotate()
    assert [path.name for path in paths[1].parent.iterdir()] == ["master.key"], "nothing is left lying about"
    with closing(SqliteVault(*paths)) as opened:
        assert opened.get_many(["ann"]) == {"ann": ANN}


def test_a_rotation_by_who_had_the_vault_open_before_another_was_killed_loses_no_key(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN])
    with _child(f"{_KILLED_AT}\n{_STEPS['before the rename'][0]}\nvault.rotate()", paths) as child:
        child.wait()
    with _child(f"{_KILLED_AT}\n{_STEPS['before the commit'][0]}\nvault.rotate()", paths) as child:
        child.wait()
    assert vault.get_many(["ann"]) == {"ann": ANN}
    with closing(SqliteVault(*paths)) as opened:
        assert opened.get_many(["ann"]) == {"ann": ANN}


def test_a_rotation_whose_contacts_do_not_all_open_changes_nothing(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN, Contact("zoe", "zoe@mail.example")])
    vault._db.execute("UPDATE contact SET wrapped = x'00' WHERE recipient_id = 'zoe'")
    before = vault.key_id
    with pytest.raises(WrongKey):
        vault.rotate()
    with closing(SqliteVault(*paths)) as opened:
        assert opened.key_id == before
        assert opened.get_many(["ann"]) == {"ann": ANN}


def test_rotations_reads_and_writes_at_once_lose_nothing(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many(PEOPLE)
    names = [each.recipient_id for each in PEOPLE]
    failed: list[Exception] = []

    def guarded(work: Callable[[SqliteVault], object]) -> None:
        try:
            with closing(SqliteVault(*paths)) as own:
                for _ in range(8):
                    work(own)
        except VaultError as error:
            failed.append(error)

    def shared() -> None:
        try:
            for _ in range(20):
                assert len(vault.get_many(names)) == len(names)
        except (VaultError, AssertionError) as error:
            failed.append(error)

    threads = [
        Thread(target=guarded, args=(lambda own: own.rotate(),)),
        Thread(target=guarded, args=(lambda own: own.rotate(),)),
        Thread(target=guarded, args=(lambda own: own.put_many(PEOPLE[:100]),)),
        Thread(target=guarded, args=(lambda own: own.get_many(names),)),
        Thread(target=shared),
        Thread(target=shared),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(SqliteVault(*paths)) as opened:
        assert len(opened.get_many(names)) == len(names)


_WRITER = """
import sys
from pathlib import Path
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
vault = SqliteVault(Path(sys.argv[1]), Path(sys.argv[2]))
n = 0
while True:
    vault.put_many(Contact(f"r{n}-{i}", f"r{n}-{i}@mail.example") for i in range(50))
    if n % 3 == 0:
        vault.rotate()
    print(n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("moment", [0.03, 0.11, 0.24, 0.4])
def test_a_vault_whose_writer_is_killed_keeps_all_that_it_confirmed(
    vault: SqliteVault, paths: tuple[Path, Path], moment: float
) -> None:
    vault.close()
    with _child(_WRITER, paths) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(moment)
        child.kill()
        confirmed = 1 + len(child.stdout.read().split())
    with closing(SqliteVault(*paths)) as opened:
        names = [f"r{n}-{i}" for n in range(confirmed) for i in range(50)]
        assert len(opened.get_many(names)) == len(names)
        assert opened.count() in (len(names), len(names) + 50)
