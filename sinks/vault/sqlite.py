"""The vault in one SQLite file: WAL, durable commits, and deleted bytes overwritten."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sinks.vault import Contact, KeyRefused, VaultExists, VaultMissing, VaultUnusable, WrongKey
from sinks.vault.keys import Cipher, MasterKey, new_data_key, sync_folder

_BATCH: Final = 500
_BUSY_S: Final = 30.0
_KEY_ID: Final = "key_id"
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
        try:
            with self._used() as db:
                self._master = _key_of(db, path, key_path)
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def create(cls, path: Path, key_path: Path) -> "SqliteVault":
        """Make an empty vault and its key.

        Raises
        ------
        VaultExists
            One of them is there; it is left as it is.
        KeyRefused, VaultUnusable
            The key or the vault cannot be written.
        """
        if path.exists():
            raise VaultExists(f"{path} exists: a vault is never overwritten")
        master = MasterKey.generate()
        master.save(key_path)
        part = path.with_name(f".{path.name}.part")  # a crash leaves no vault without its key's name in it
        _remove(part)
        _new_file(part)
        with _translated(part), closing(_connect(part)) as db:
            db.executescript(_TABLES)
            _write_key_check(db, master)
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
                master = self._master  # of these rows; another thread may take up a newer one
            for name, wrapped, sealed in rows:
                address, attributes = json.loads(Cipher(master.open(name, wrapped)).open(name, sealed))
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
            self._forget_log(db)
        return erased

    def count(self) -> int:
        """See `Vault.count`."""
        with self._used() as db:
            return int(db.execute("SELECT count(*) FROM contact").fetchone()[0])

    def rotate(self) -> str:
        """Wrap every data key by a new master key, which replaces the one in the key file; returns its id.

        All of it happens under the vault's write lock, so that two rotations follow one another. A crash

        - before the commit leaves `KEY.<id>.new`, which no vault names: the old key holds, the next rotation
          removes that file;
        - after the commit, before the rename leaves a vault that names the key of `KEY.<id>.new`, and the old
          key still in KEY: whoever uses the vault next finds the file by that name and renames it to KEY;
        - after the rename leaves nothing to do.

        Raises
        ------
        KeyRefused
            The key's folder cannot be written to. If that was so only at the rename, the new key holds.
        VaultError
            As `Vault.put_many`. The old key holds.
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            self._take_into_use(self._master)  # or the next line would remove it
            for unused in self._key_path.parent.glob(_beside(self._key_path, "*").name):
                unused.unlink()
            new = MasterKey.generate()
            new.save(_beside(self._key_path, new.id))
            for some in _wrapped(db):
                again = [(new.seal(name, self._master.open(name, key)), name) for name, key in some]
                db.executemany("UPDATE contact SET wrapped = ? WHERE recipient_id = ?", again)
            _write_key_check(db, new)
        self._master = new
        self._take_into_use(new)
        with self._used() as db:  # or the old key would still open what the log holds
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return new.id

    def backup(self, to: Path) -> None:
        """Copy the vault, as of one moment, to a new file that only its owner reads. The key is not in it.

        Raises
        ------
        VaultExists
            There is a file already.
        VaultUnusable
            It cannot be written; nothing is left of it.
        """
        _new_file(to)
        try:
            with _translated(to), closing(sqlite3.connect(to)) as copy, self._used() as db:
                db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        except BaseException:
            to.unlink()
            raise
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
                if _named(db, self.path).get(_KEY_ID) != self._master.id:  # rotated by another process
                    self._master = _key_of(db, self.path, self._key_path)
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # where the disk is full, SQLite has rolled back itself
                    db.execute("ROLLBACK")
                raise

    def _forget_log(self, db: sqlite3.Connection) -> None:
        """Empty the write-ahead log, which still holds what was overwritten. Raises `VaultUnusable`."""
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise VaultUnusable(
                f"{self.path}: deleted, but a reader keeps the deleted bytes in the log; do it again"
            )

    def _take_into_use(self, key: MasterKey) -> None:
        try:
            _beside(self._key_path, key.id).replace(self._key_path)
            sync_folder(self._key_path.parent)
        except FileNotFoundError:
            return  # it was before
        except OSError as error:
            raise KeyRefused(
                f"{_beside(self._key_path, key.id)} is the vault's key now and cannot be renamed to "
                f"{self._key_path}: {error.strerror}; do it by hand"
            ) from error


def restore(backup: Path, path: Path, key_path: Path, replace: bool) -> SqliteVault:
    """Put a backup in the vault's place, once it has proven whole and opens by the key.

    A vault that is there is overwritten in one transaction of its own: a crash leaves the one or the other,
    and processes that have it open go on with what was restored.

    Raises
    ------
    VaultExists
        There is a vault and it is not to be replaced.
    VaultMissing, VaultUnusable, KeyRefused, WrongKey
        The backup is none, is damaged, or needs another key; or the vault there is too damaged to write to.
    """
    if path.exists() and not replace:
        raise VaultExists(f"{path} exists; say --force to replace it")
    if not backup.is_file():
        raise VaultMissing(f"{backup} is no file")
    read_only = f"{backup.absolute().as_uri()}?mode=ro"
    with _translated(backup), closing(sqlite3.connect(read_only, uri=True)) as source:
        found = source.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            raise VaultUnusable(f"{backup} is damaged: {found}")
        _key_of(source, backup, key_path)
        if path.exists():
            _overwrite(path, source)
        else:
            part = path.with_name(f".{path.name}.restored")
            _remove(part)
            _new_file(part)
            with _translated(part), closing(sqlite3.connect(part)) as copy:
                source.backup(copy)
            part.rename(path)
            sync_folder(path.parent)
    return SqliteVault(path, key_path)


def _overwrite(path: Path, source: sqlite3.Connection) -> None:
    try:
        with _translated(path), closing(_connect(path)) as target:
            source.backup(target)
    except VaultUnusable as error:
        raise VaultUnusable(f"{error}; move it away with its -wal and -shm, then restore") from error


def _key_of(db: sqlite3.Connection, path: Path, key_path: Path) -> MasterKey:
    """The key that a vault names: in its file, or in the one beside it that a crash left."""
    before, named = None, _named(db, path)
    while named != before:  # until it holds still: another process may be rotating
        with suppress(OSError):  # not there as a rule, or the folder is not ours to write to
            _beside(key_path, named[_KEY_ID]).replace(key_path)
        master = MasterKey.load(key_path)
        if master.id == named[_KEY_ID]:
            master.open(_CHECK, named[_CHECK])
            return master
        before, named = named, _named(db, path)
    raise WrongKey(
        f"{key_path} is key {master.id}, {path} was sealed by key {named[_KEY_ID]}: find that file"
    )


def _named(db: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """What a vault says of its key: the id, and something sealed by it."""
    named = dict(db.execute("SELECT name, value FROM meta").fetchall())
    if not {_KEY_ID, _CHECK} <= named.keys():
        raise VaultUnusable(f"{path} is no contact vault")
    return named


def _wrapped(db: sqlite3.Connection) -> Iterator[list[tuple[str, bytes]]]:
    """Every recipient's id and wrapped key, some at a time; they may be changed meanwhile."""
    select, after = (
        "SELECT recipient_id, wrapped FROM contact {} ORDER BY recipient_id LIMIT ?",
        "WHERE recipient_id > ?",
    )
    some = db.execute(select.format(""), (_BATCH,)).fetchall()
    while some:
        yield some
        some = db.execute(select.format(after), (some[-1][0], _BATCH)).fetchall()


def _new_file(path: Path) -> None:
    """Make an empty file that only its owner reads. Raises `VaultExists` or `VaultUnusable`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        if path.exists():
            raise VaultExists(f"{path} exists; name a new file") from None
        raise VaultUnusable(f"{path} cannot be written: {error.strerror}") from error


def _remove(part: Path) -> None:
    """Remove what a crash may have left of an unfinished file."""
    for left in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm", "-journal"))):
        left.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    with _translated(path):
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
        except BaseException:
            db.close()
            raise
    return db


def _write_key_check(db: sqlite3.Connection, master: MasterKey) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY_ID, master.id))
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_CHECK, master.seal(_CHECK, b"opportune")))


def _beside(key_path: Path, key_id: str) -> Path:
    """Where a rotation keeps its new key until the vault names it; each key has a place of its own."""
    return key_path.with_name(f"{key_path.name}.{key_id}.new")


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
