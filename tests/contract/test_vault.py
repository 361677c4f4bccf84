"""What every contact vault promises, and what the one in SQLite promises besides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
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


def test_an_erasure_that_a_reader_keeps_in_the_log_says_so_and_is_finished_by_another(
    vault: SqliteVault, paths: tuple[Path, Path]
) -> None:
    vault.put_many([ANN])
    row = vault._db.execute("SELECT wrapped, sealed FROM contact").fetchone()
    with closing(SqliteVault(*paths)) as reader:
        reader._db.execute("BEGIN")
        reader._db.execute("SELECT count(*) FROM contact").fetchone()
        vault._db.execute("PRAGMA busy_timeout = 50")
        with pytest.raises(VaultUnusable, match="do it again"):
            vault.erase(["ann"])
        assert vault.get_many(["ann"]) == {}
        reader._db.execute("COMMIT")
    vault.erase(["ann"])
    left = _everything(paths[0].parent)
    assert [part for part in row if part in left] == []


def test_a_contact_that_is_cut_short_does_not_open(vault: SqliteVault) -> None:
    vault.put_many([ANN])
    vault._db.execute("UPDATE contact SET sealed = x'00'")
    with pytest.raises(WrongKey, match="does not open"):
        vault.get_many(["ann"])


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
        (None, 0o600, "put the vault's key there"),
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
    copy.chmod(0o400)
    restore(copy, *paths, replace=True).close()
    assert vault.get_many(["ann", "ben"]) == {"ann": ANN}, "who has it open goes on with what was restored"
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.sqlite"]
    vault.close()
    paths[0].unlink()
    with closing(restore(copy, *paths, replace=False)) as back:
        assert (back.get_many(["ann"]), back.count()) == ({"ann": ANN}, 1)
    assert paths[0].stat().st_mode & 0o777 == 0o600


def test_a_backup_that_fails_leaves_no_file(vault: SqliteVault, tmp_path: Path) -> None:
    with pytest.raises(VaultUnusable, match="cannot be written"):
        vault.backup(Path("/dev/null/backup.sqlite"))
    vault.close()
    with pytest.raises(VaultUnusable):
        vault.backup(tmp_path / "backup.sqlite")
    assert not (tmp_path / "backup.sqlite").exists()


def test_a_vault_too_damaged_to_be_overwritten_is_to_be_moved_away(
    vault: SqliteVault, paths: tuple[Path, Path], tmp_path: Path
) -> None:
    vault.put_many([ANN])
    vault.backup(tmp_path / "backup.sqlite")
    vault.close()
    paths[0].write_bytes(b"not a database at all" * 500)
    with pytest.raises(VaultUnusable, match="move it away"):
        restore(tmp_path / "backup.sqlite", *paths, replace=True)
    paths[0].unlink()
    with closing(restore(tmp_path / "backup.sqlite", *paths, replace=False)) as back:
        assert back.get_many(["ann"]) == {"ann": ANN}


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
    reader.close()
    assert failed == [], "each read is of one moment"
