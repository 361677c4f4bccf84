"""The vault in one SQLite file: WAL, durable commits, and deleted bytes overwritten."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sinks.vault import Contact, VaultExists, VaultMissing, VaultUnusable, WrongKey
from sinks.vault.keys import Cipher, MasterKey, new_data_key, sync_folder

_BATCH: Final = 500
_BUSY_S: Final = 30.0
_CHECK: Final = "check"
_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE contact (
    recipient_id TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL, -- its data key, sealed by the master key
    sealed BLOB NOT NULL   -- address and attributes, sealed by the data key
) WITHOUT ROWID;
"""


class SqliteVault:
    """The port `sinks.vault.Vault` over a file. Several processes may open it; one writes at a time.

    Raises
    ------
    VaultMissing, KeyRefused, WrongKey
        It cannot be opened; see `sinks.vault`.
    """

    def __init__(self, path: Path, key_path: Path) -> None:
        if not path.is_file():
            raise VaultMissing(f"no contact vault at {path}; make one with `opportune vault init`")
        self.path, self._key_path = path, key_path
        self._lock = threading.Lock()
        self._db = _connect(path)
        with self._used():
            self._master = self._open_key()

    @classmethod
    def create(cls, path: Path, key_path: Path) -> "SqliteVault":
        """Make an empty vault and its key. Raises `VaultExists` if either is there."""
        if path.exists():
            raise VaultExists(f"{path} exists: a vault is never overwritten")
        path.parent.mkdir(parents=True, exist_ok=True)
        master = MasterKey.create(key_path)
        part = path.with_name(f".{path.name}.part")  # a crash leaves no vault without its key's name in it
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
        db = _connect(part)
        with _translated(part):
            db.executescript(_TABLES)
            _write_key_check(db, master)
        db.close()
        part.rename(path)
        sync_folder(path.parent)
        return cls(path, key_path)

    @property
    def key_id(self) -> str:
        """Which master key wraps the contacts."""
        return self._master.id

    def put_many(self, contacts: Iterable[Contact]) -> None:
        """See `Vault.put_many`."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            for contact in contacts:
                key, name = new_data_key(), contact.recipient_id
                plain = json.dumps([contact.address, dict(contact.attributes)]).encode()
                db.execute(
                    "INSERT OR REPLACE INTO contact VALUES (?, ?, ?)",
                    (name, self._master.seal(name, key), Cipher(key).seal(name, plain)),
                )

    def get_many(self, recipient_ids: Sequence[str]) -> dict[str, Contact]:
        """See `Vault.get_many`."""
        found: dict[str, Contact] = {}
        for some in _batches(recipient_ids):
            marks = ",".join("?" * len(some))
            with self._transaction("BEGIN") as db:
                rows = db.execute(
                    f"SELECT recipient_id, wrapped, sealed FROM contact WHERE recipient_id IN ({marks})",  # noqa: S608 - only marks
                    some,
                ).fetchall()
            for name, wrapped, sealed in rows:
                address, attributes = json.loads(Cipher(self._master.open(name, wrapped)).open(name, sealed))
                found[name] = Contact(name, address, attributes)
        return found

    def erase(self, recipient_ids: Sequence[str]) -> int:
        """See `Vault.erase`."""
        erased = 0
        with self._transaction("BEGIN IMMEDIATE") as db:
            for some in _batches(recipient_ids):
                marks = ",".join("?" * len(some))
                erased += db.execute(f"DELETE FROM contact WHERE recipient_id IN ({marks})", some).rowcount  # noqa: S608 - only marks
        with self._used() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still holds what was deleted
        return erased

    def count(self) -> int:
        """See `Vault.count`."""
        with self._used() as db:
            return int(db.execute("SELECT count(*) FROM contact").fetchone()[0])

    def rotate(self) -> str:
        """Wrap every data key by a new master key, which replaces the one in the key file; returns its id.

        The new key is first written beside the old one, `….new`; then all keys are wrapped anew in one
        transaction; then the file takes its name. After a crash the vault's own note says which key holds,
        and opening it takes the `….new` file into use, or passes it over.
        """
        new_path = _beside(self._key_path)
        new_path.unlink(missing_ok=True)
        new = MasterKey.create(new_path)
        with self._transaction("BEGIN IMMEDIATE") as db:
            for name, wrapped in db.execute("SELECT recipient_id, wrapped FROM contact").fetchall():
                again = new.seal(name, self._master.open(name, wrapped))
                db.execute("UPDATE contact SET wrapped = ? WHERE recipient_id = ?", (again, name))
            _write_key_check(db, new)
        self._take_into_use(new_path)
        self._master = new
        return new.id

    def backup(self, to: Path) -> None:
        """Copy the vault, as of one moment, to a new file that only its owner reads. The key is not in it.

        Raises `VaultExists`.
        """
        try:
            os.close(os.open(to, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise VaultExists(f"{to} exists; name a new file") from None
        copy = sqlite3.connect(to)
        with _translated(to), self._used() as db:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        copy.close()
        sync_folder(to.absolute().parent)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated(self.path):
            yield self._db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._used() as db:
            db.execute(begin)
            try:
                self._follow_rotation()
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _follow_rotation(self) -> None:
        """Take up the key that another process has rotated to meanwhile."""
        if self._noted() != self._master.id:
            self._master = self._open_key()

    def _noted(self) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE name = 'key_id'").fetchone()
        if row is None:
            raise VaultUnusable(f"{self.path} is no contact vault")
        return str(row[0])

    def _open_key(self) -> MasterKey:
        """The key that the vault names: of its file, or the one that a crash left beside it."""
        noted, new_path = self._noted(), _beside(self._key_path)
        if new_path.exists():
            new = MasterKey.load(new_path)
            if new.id == noted:
                self._take_into_use(new_path)
                return new
        master = MasterKey.load(self._key_path)
        if master.id != noted:
            raise WrongKey(
                f"{self._key_path} is key {master.id}, {self.path} was sealed by key {noted}: find that file"
            )
        sealed = self._db.execute("SELECT value FROM meta WHERE name = ?", (_CHECK,)).fetchone()[0]
        master.open(_CHECK, sealed)
        return master

    def _take_into_use(self, new_path: Path) -> None:
        with suppress(FileNotFoundError):  # another process was quicker
            new_path.replace(self._key_path)
        sync_folder(self._key_path.parent)


def restore(backup: Path, path: Path, key_path: Path, replace: bool) -> SqliteVault:
    """Put a backup in the vault's place, once it has proven whole and opens by the key.

    Raises
    ------
    VaultExists
        There is a vault and it is not to be replaced.
    VaultMissing, VaultUnusable, KeyRefused, WrongKey
        The backup is none, is damaged, or needs another key.
    """
    if path.exists() and not replace:
        raise VaultExists(f"{path} exists; stop DELIVER and say --force to replace it")
    part = path.with_name(f".{path.name}.restored")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in (part, *_logs(part)):
        left.unlink(missing_ok=True)
    if not backup.is_file():
        raise VaultMissing(f"{backup} is no file")
    try:
        source = _connect(backup)
        with _translated(backup):
            found = source.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise VaultUnusable(f"{backup} is damaged: {found}")
            os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
            copy = sqlite3.connect(part)
            source.backup(copy)
            copy.close()
        source.close()
        SqliteVault(part, key_path).close()  # proves the key
        for log in _logs(path):
            log.unlink(missing_ok=True)
        part.replace(path)
        sync_folder(path.parent)
    finally:
        for left in (part, *_logs(part)):
            left.unlink(missing_ok=True)
    return SqliteVault(path, key_path)


def _connect(path: Path) -> sqlite3.Connection:
    with _translated(path):
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
    return db


def _write_key_check(db: sqlite3.Connection, master: MasterKey) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES ('key_id', ?)", (master.id,))
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_CHECK, master.seal(_CHECK, b"opportune")))


def _beside(key_path: Path) -> Path:
    return key_path.with_name(f"{key_path.name}.new")


def _logs(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("-wal", "-shm")]


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    unique = [*dict.fromkeys(names)]
    for start in range(0, len(unique), _BATCH):
        yield unique[start : start + _BATCH]


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise VaultUnusable(f"{path}: {error}") from error
