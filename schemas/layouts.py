"""Layouts of a stored row by version: rows of an older one are brought up to date as they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

# Gets old rows and new ones, in which fields of the same name, shape and parts are copied and others are
# zero; fills the rest.
Step = Callable[[np.ndarray, np.ndarray], None]
_VERSION: Final = "version"


class NewerRow(ValueError):
    """A row was written by a newer version of the program. Stop; deploy that version here."""


class NoRow(ValueError):
    """Bytes that are a row of no layout."""


@dataclass(frozen=True)
class Layouts:
    """Every layout that a kind of row ever had.

    Parameters
    ----------
    what
        A row of this kind, in words.
    versions
        Layouts of version 1, 2, and so on; the first byte of each is the version.
    steps
        How rows of version 1 become rows of version 2, and so on: one step less than there are versions.
    """

    what: str
    versions: tuple[np.dtype, ...]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.versions) - 1:
            raise AssertionError(f"{self.what}: each version after the first needs its step")
        if any(each.names is None or each.names[0] != _VERSION for each in self.versions):
            raise AssertionError(f"{self.what}: the version comes first")

    @property
    def newest(self) -> int:
        """The version that this program writes."""
        return len(self.versions)

    @property
    def dtype(self) -> np.dtype:
        """Layout of this program's version."""
        return self.versions[-1]

    def check(self, value: bytes) -> None:
        """Raise `NewerRow` or `NoRow` if a value cannot be read."""
        size = self.of(value[0] if value else 0).itemsize
        if len(value) != size:
            raise NoRow(f"{len(value)} bytes where {self.what} of version {value[0]} has {size}")

    def read(self, values: Sequence[bytes]) -> np.ndarray:
        """Rows of stored values, (n,) of this program's layout, not to be written to.

        Raises
        ------
        NewerRow
            A value was written by a newer program.
        NoRow
            A value is of no layout.
        """
        versions = {value[:1] for value in values}
        if len(versions) == 1:
            return self.upgraded(versions.pop()[0] if values[0] else 0, values)
        rows = np.empty(len(values), self.dtype)
        for version in versions:
            mine = [i for i, value in enumerate(values) if value[:1] == version]
            rows[mine] = self.upgraded(version[0] if version else 0, [values[i] for i in mine])
        return rows

    def upgraded(self, version: int, values: Sequence[bytes]) -> np.ndarray:
        """Rows of values of one version, brought to this program's. Raises as `read`."""
        size = self.of(version).itemsize
        if wrong := next((value for value in values if len(value) != size), None):
            raise NoRow(f"{len(wrong)} bytes where {self.what} of version {version} has {size}")
        return self.bring(version, np.frombuffer(b"".join(values), self.of(version)))

    def of(self, version: int) -> np.dtype:
        """Layout of a version. Raises `NewerRow` or `NoRow`."""
        if version > self.newest:
            raise NewerRow(
                f"{self.what} has version {version}, this program knows {self.newest}; "
                "deploy the newer program"
            )
        if version < 1:
            raise NoRow(f"{self.what} has no version {version}")
        return self.versions[version - 1]

    def bring(self, version: int, rows: np.ndarray) -> np.ndarray:
        """Bring rows of a version to this program's."""
        for step, dtype in zip(self.steps[version - 1 :], self.versions[version:], strict=True):
            version += 1
            new = np.zeros(len(rows), dtype)
            for name in set(rows.dtype.names or ()) & set(dtype.names or ()) - {_VERSION}:
                old, now = rows.dtype[name], dtype[name]
                if (old.shape, old.base.names) == (now.shape, now.base.names):
                    new[name] = rows[name]
            new[_VERSION] = version
            step(rows, new)
            rows = new
        return rows


def opaque(rows: np.ndarray) -> np.ndarray:
    """The same rows as plain bytes: numpy copies those at once, structured ones field by field."""
    return rows.view(f"V{rows.itemsize}")


def picked(rows: np.ndarray, which: Any) -> np.ndarray:
    """Copies of some rows, by number or mask."""
    return np.asarray(opaque(rows)[which].view(rows.dtype))
