"""What every contact vault promises, and what the one in SQLite promises besides."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from sinks.vault import Contact, KeyRefused, VaultExists, VaultMissing, VaultUnusable, WrongKey
from sinks.vault.sqlite import SqliteVault, restore

ANN = Contact("ann", "ann@mail.example", {"first_name": "Ann"})
BEN = Contact("ben", "ben@mail.example")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "vault" / "contacts.sqlite", tmp_path / "keys" / "master.key"


@pytest.fixture
def vault(paths: tuple[Path, Path]) -> Iterator[SqliteVault]:
    made = SqliteVault.create(*paths)
    yield made
    made.close()


def _everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_contacts_come_back_as_they_were_put(vault: SqliteVault) -> None:
    vault.put_many([ANN, BEN])
    assert vault.get_many(["ben", "ann", "nobody", "ann"]) == {"ann": ANN, "ben": BEN}
    assert vault.count() == 2


def test_a_contact_that_is_put_again_is_replaced(vault: SqliteVault) -> None:
    vault.put_many([ANN])
    vault.put_many([Contact("ann", "ann@other.example")])
    assert vault.get_many(["ann"])["ann"].address == "ann@other.example"
    assert vault.count() == 1


def test_thousands_are_found_at_once(vault: SqliteVault) -> None:
    vault.put_many(Contact(f"r{i}", f"r{i}@mail.example") for i in range(2_001))
    found = vault.get_many([f"r{i}" for i in range(2_001)])
    assert found["r2000"].address == "r2000@mail.example"
    assert len(found) == 2_001


def test_a_put_that_fails_half_way_leaves_nothing(vault: SqliteVault) -> None:
    def contacts() -> Iterator[Contact]:
        yield ANN
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        vault.put_many(contacts())
    assert vault.count() == 0


def test_an_erased_contact_is_gone_and_erasing_again_is_fine(vault: SqliteVault) -> None:
    vault.put_many([ANN, BEN])
    assert (vault.erase(["ann", "nobody"]), vault.erase(["ann"])) == (1, 0)
    assert vault.get_many(["ann", "ben"]) == {"ben": BEN}


def test_no_bytes_of_an_erased_contact_stay_in_any_file(vault: SqliteVault, paths: tuple[Path, Path]) -> None:
    vault.put_many([ANN])
    row = vault._db.execute("SELECT wrapped, sealed FROM contact").fetchone()
    assert all(part in _everything(paths[0].parent) for part in row), "they were there"
    vault.erase(["ann"])
    left = _everything(paths[0].parent)
    assert [part for part in row if part in left] == []


def test_nothing_in_the_vaults_files_can_be_read(vault: SqliteVault, paths: tuple[Path, Path]) -> None:
    vault.put_many([ANN])
    written = _everything(paths[0].parent)
    assert [word for word in (b"ann@", b"mail.example", b"first_name", b"Ann") if word in written] == []


def test_a_contact_does_not_show_its_address() -> None:
    assert repr(ANN) == "Contact(recipient_id='ann')"


def test_a_sealed_contact_opens_under_no_other_name(vault: SqliteVault) -> None:
    vault.put_many([ANN, BEN])
    vault._db.execute(
        "UPDATE contact SET wrapped = other.wrapped, sealed = other.sealed "
        "FROM (SELECT * FROM contact WHERE recipient_id = 'ann') AS other WHERE contact.recipient_id = 'ben'"
    )
    with pytest.raises(WrongKey, match="does not open"):
        vault.get_many(["ben"])


def test_rotation_changes_the_key_and_keeps_the_contacts(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN, BEN])
    other, before, old = SqliteVault(*paths), vault.key_id, paths[1].read_text()
    assert vault.rotate() != before
    assert other.get_many(["ann"]) == {"ann": ANN}, "an open vault follows"
    other.put_many([Contact("eve", "eve@mail.example")])
    other.close()
    assert len(SqliteVault(*paths).get_many(["ann", "ben", "eve"])) == 3
    paths[1].write_text(old)
    with pytest.raises(WrongKey, match="find that file"):
        SqliteVault(*paths)


def test_a_rotation_that_died_before_its_commit_leaves_the_old_key_in_use(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    from sinks.vault.keys import MasterKey

    vault.put_many([ANN])
    MasterKey.create(paths[1].with_name("master.key.new"))
    assert SqliteVault(*paths).get_many(["ann"]) == {"ann": ANN}
    vault.rotate()
    assert SqliteVault(*paths).get_many(["ann"]) == {"ann": ANN}


def test_a_rotation_that_died_after_its_commit_is_finished_by_who_opens_next(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN])
    old = paths[1].read_text()
    vault.rotate()
    paths[1].rename(paths[1].with_name("master.key.new"))
    paths[1].write_text(old)
    paths[1].chmod(0o600)
    assert SqliteVault(*paths).get_many(["ann"]) == {"ann": ANN}
    assert not paths[1].with_name("master.key.new").exists()


def test_a_vault_is_made_once_and_its_key_is_its_owners(vault: SqliteVault, paths: tuple[Path, Path]) -> None:
    assert paths[1].stat().st_mode & 0o777 == 0o600
    assert paths[0].stat().st_mode & 0o777 == 0o600
    with pytest.raises(VaultExists):
        SqliteVault.create(*paths)
    with pytest.raises(VaultExists, match="never overwritten"):
        SqliteVault.create(paths[0].with_name("other.sqlite"), paths[1])


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (None, 0o600, "vault init"),
        ("opportune-vault-key-1 AAAA\n", 0o600, "cut short"),
        ("nonsense", 0o600, "no key file"),
        ("kept", 0o644, "chmod 600"),
    ],
)
def test_a_bad_key_file_is_refused_with_the_remedy(
    vault: SqliteVault, paths: tuple[Path, Path], text: str | None, mode: int, says: str
) -> None:
    if text is None:
        paths[1].unlink()
    else:
        if text != "kept":
            paths[1].write_text(text)
        paths[1].chmod(mode)
    with pytest.raises(KeyRefused, match=says):
        SqliteVault(*paths)


def test_without_a_vault_the_error_says_how_to_make_one(paths: tuple[Path, Path]) -> None:
    with pytest.raises(VaultMissing, match="opportune vault init"):
        SqliteVault(*paths)


def test_a_backup_is_restored_and_holds_no_key(
    vault: SqliteVault, paths: tuple[Path, Path], tmp_path: Path
) -> None:
    vault.put_many([ANN])
    copy = tmp_path / "backup.sqlite"
    vault.backup(copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    with pytest.raises(VaultExists):
        vault.backup(copy)
    vault.put_many([BEN])
    with pytest.raises(VaultExists, match="--force"):
        restore(copy, *paths, replace=False)
    vault.close()
    back = restore(copy, *paths, replace=True)
    assert (back.get_many(["ann", "ben"]), back.count()) == ({"ann": ANN}, 1)


def test_a_backup_of_another_key_or_a_damaged_one_replaces_nothing(
    vault: SqliteVault, paths: tuple[Path, Path], tmp_path: Path
) -> None:
    vault.put_many([ANN])
    stranger = SqliteVault.create(tmp_path / "s" / "s.sqlite", tmp_path / "s" / "s.key")
    stranger.backup(tmp_path / "stranger.sqlite")
    (tmp_path / "damaged.sqlite").write_bytes(b"not a database at all" * 500)
    with pytest.raises(WrongKey):
        restore(tmp_path / "stranger.sqlite", *paths, replace=True)
    with pytest.raises(VaultUnusable):
        restore(tmp_path / "damaged.sqlite", *paths, replace=True)
    assert SqliteVault(*paths).get_many(["ann"]) == {"ann": ANN}


def test_readers_and_a_writer_do_not_disturb_each_other(vault: SqliteVault, paths: tuple[Path, Path]) -> None:
    vault.put_many(Contact(f"r{i}", "first@mail.example") for i in range(200))
    reader, failed = SqliteVault(*paths), []

    def write() -> None:
        for _ in range(10):
            vault.put_many(Contact(f"r{i}", "second@mail.example") for i in range(200))

    writer = Thread(target=write)
    writer.start()
    while writer.is_alive():
        found = {contact.address for contact in reader.get_many([f"r{i}" for i in range(200)]).values()}
        failed += [found] if len(found) != 1 else []
    writer.join()
    assert failed == [], "each read is of one moment"


_CHILD = """
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
    child = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", _CHILD, *map(str, paths)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(moment)
    child.kill()
    child.wait()
    confirmed = 1 + len(child.stdout.read().split())
    child.stdout.close()
    opened = SqliteVault(*paths)
    names = [f"r{n}-{i}" for n in range(confirmed) for i in range(50)]
    assert len(opened.get_many(names)) == len(names)
    assert opened.count() in (len(names), len(names) + 50)
