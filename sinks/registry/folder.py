"""The registry in a folder: one subfolder for each version, named by its id, written once."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from sinks.registry import ArtefactRefused, RegistryUnusable, VersionExists, VersionUnknown
from sinks.registry.artefact import MOST_BYTES, Artefact
from sinks.vault.keys import sync_folder

_ID: Final = re.compile(r"st-[0-9a-f]{12}")
_BEGINNING: Final = re.compile(r"st-[0-9a-f]{1,12}")
_CARD: Final = "card.json"
_NPZ: Final = "model.npz"
_SIGNATURE: Final = "signature"


class Registry:
    """Artefacts in a folder, kept unchanged. Several processes and threads may use one folder.

    Whether what `get` gives is whole and to be trusted, `sinks.registry.artefact.opened` says. A process that
    dies in `put` leaves at most a hidden `.ID.*.part`, which nothing reads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, artefact: Artefact) -> str:
        """Write an artefact, durably, all of it or nothing; returns its id. The same again changes nothing.

        Raises
        ------
        ArtefactRefused
            It has no card of a model, or the folder of its id is damaged.
        VersionExists
            Its id is there with other bytes, which are left as they are.
        RegistryUnusable
            The folder cannot be written to.
        """
        artefact.facts  # noqa: B018 - raises: what has no card could not be listed
        version = artefact.version
        part = self._folder / f".{version}.{secrets.token_hex(4)}.part"
        with self._translated():
            try:
                part.mkdir(parents=True)
                _write(part / _NPZ, artefact.npz)
                _write(part / _CARD, artefact.card)
                _write(part / _SIGNATURE, artefact.signature)
                sync_folder(part)
                moved = _moved(part, self._folder / version)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            sync_folder(self._folder)
        if not moved and self._read(version) != artefact:
            raise VersionExists(
                f"{self._folder / version} holds other bytes of this id, so one of the two is damaged; "
                "if it is that one, move it away"
            )
        return version

    def get(self, version: str) -> Artefact:
        """Read the artefact of an id, or of a beginning that only one has.

        Raises
        ------
        VersionUnknown
            There is none, or there are several.
        ArtefactRefused
            Its folder is damaged, or was renamed.
        RegistryUnusable
            The folder cannot be read.
        """
        names = self._names()
        if not _BEGINNING.fullmatch(version):
            raise VersionUnknown(
                f"{version!r} is no id of a model: st- and 12 hex digits, or the first of them"
                f"{_near(version, names)}"
            )
        found = [name for name in names if name.startswith(version)]
        if not found:
            raise VersionUnknown(f"no model {version} in {self._folder}{_near(version, names)}")
        if len(found) > 1:
            raise VersionUnknown(f"several models begin with {version}: {', '.join(found)}; write more of it")
        return self._read(found[0])

    def versions(self) -> list[str]:
        """All ids, the model that was trained first before the others.

        Raises
        ------
        ArtefactRefused
            A version's folder is damaged, or was renamed; it is named.
        RegistryUnusable
            The folder cannot be read.
        """
        return sorted(self._names(), key=lambda name: (self._read(name).trained_at, name))

    def _names(self) -> list[str]:
        with self._translated():
            return sorted(path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name))

    def _read(self, name: str) -> Artefact:
        folder = self._folder / name
        with self._translated():
            artefact = Artefact(*(_content(folder / file) for file in (_CARD, _NPZ, _SIGNATURE)))
        if artefact.version != name:
            raise ArtefactRefused(
                "folder",
                f"{folder} holds {artefact.version}: it was renamed, or its card changed; "
                f"move it away and put {name} again",
            )
        return artefact

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise RegistryUnusable(
                f"no model registry at {self._folder}; name another folder, or put the first model there"
            ) from None
        except OSError as error:
            raise RegistryUnusable(
                f"{error.filename or self._folder}: {error.strerror}; let who runs this use the registry"
            ) from error


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _moved(part: Path, target: Path) -> bool:
    """Give the finished folder its name, unless another has it."""
    try:
        part.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _content(path: Path) -> bytes:
    """Of one file, which may have been exchanged for one that would not fit into memory."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ArtefactRefused(
            "folder", f"{path} is missing; move {path.parent} away and put the model again"
        ) from None
    if len(content) > MOST_BYTES:
        raise ArtefactRefused(
            "folder",
            f"{path} is larger than {MOST_BYTES} bytes; move {path.parent} away and put the model again",
        )
    return content


def _near(version: str, names: list[str]) -> str:
    near = get_close_matches(version, names)
    return f"; near it are {', '.join(near)}" if near else f"; there are {len(names)}, none like it"
