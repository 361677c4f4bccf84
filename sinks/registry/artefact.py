"""What a trained send-time model is kept as: its arrays, its card, and a signature over the card.

Nothing in an artefact is ever run. The arrays are numbers and text that stand in the file as their header
says, so they are taken as they are, and no reader that knows pickle is asked.
"""

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sinks.registry import ArtefactRefused, Reason
from sinks.registry.keys import fingerprint

KIND: Final = "sendtime"
MOST_BYTES: Final = 16 * 2**20
"""Of the arrays together, and of a file: far more than a model has, far less than would hurt a worker."""

_MOST_ARRAYS: Final = 64
_PLAIN: Final = "biufSU"  # numpy's kinds: booleans, integers, floats, bytes, text
_MEMBER: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\.npy")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # a zip knows no earlier one; that of today would change the bytes
_CARD: Final = {"key": str, "schema": int, "sha256": str, "trained_at": str}
_FETCH: Final = "it was changed or cut short on its way: fetch it again"


@dataclass(frozen=True)
class Artefact:
    """The bytes of `card.json`, `model.npz` and `signature`. Whether they may be used, `opened` says."""

    card: bytes = field(repr=False)
    npz: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def version(self) -> str:
        """The id, which follows from the card: `st-` and 12 hex digits."""
        return f"st-{hashlib.sha256(self.card).hexdigest()[:12]}"

    @property
    def facts(self) -> dict[str, Any]:
        """What the card says. Raises `ArtefactRefused` if it is no card of a send-time model."""
        with _refused("card", f"card.json of {self.version}", _FETCH):
            facts = json.loads(self.card.decode())
            if not isinstance(facts, dict):
                raise ValueError("it is no JSON object")
            if _canonical(facts) != self.card:
                raise ValueError("it is not canonical: sorted keys, each once, no spaces")
        if facts.get("kind") != KIND:
            raise ArtefactRefused(
                "kind",
                f"{self.version} is a model of kind {str(facts.get('kind'))[:16]!r}, not {KIND!r}; "
                "name another version",
            )
        with _refused("card", f"card.json of {self.version}", "pack it again with what a card needs"):
            if bad := [name for name, kind in _CARD.items() if type(facts.get(name)) is not kind]:
                raise ValueError(f"{', '.join(bad)} missing, or of another type")
            if datetime.fromisoformat(facts["trained_at"]).tzinfo is None:
                raise ValueError("trained_at has no time zone")
        return facts

    @property
    def trained_at(self) -> datetime:
        """When, with its time zone. Raises as `facts`."""
        return datetime.fromisoformat(self.facts["trained_at"])


def pack(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], key: Ed25519PrivateKey) -> Artefact:
    """Make an artefact, signed by `key`. The same arguments give the same bytes.

    `facts` become the card. `schema`, the number of the arrays' layout, and `trained_at`, ISO 8601 with a
    time zone, must be among them; `kind`, `key` and `sha256` are set here. Arrays are of numbers, booleans or
    text, under names such as `hour_weights`.

    Raises
    ------
    ArtefactRefused
        It could not be opened again: what is the matter with the facts or arrays.
    """
    npz = _npz(arrays)
    made = {"kind": KIND, "key": fingerprint(key.public_key()), "sha256": hashlib.sha256(npz).hexdigest()}
    with _refused("card", "the facts of a model", "give what JSON can hold"):
        card = _canonical({**facts, **made})
    artefact = Artefact(card, npz, key.sign(card))
    opened(artefact, [key.public_key()], artefact.facts["schema"])
    return artefact


def opened(artefact: Artefact, trusted: Sequence[Ed25519PublicKey], schema: int) -> dict[str, np.ndarray]:
    """Return the arrays by name, read-only, once all of the artefact has proven right.

    It is the card of a send-time model; a key that is trusted signed it; it names these arrays, laid out by
    `schema`; and they are plain, whole and no more than `MOST_BYTES`. Checked in this order.

    Raises
    ------
    ArtefactRefused
        The first that is not so.
    """
    facts, version = artefact.facts, artefact.version
    signer = next((key for key in trusted if fingerprint(key) == facts["key"]), None)
    if signer is None:
        raise ArtefactRefused(
            "key",
            f"{version} names key {facts['key'][:16]!r}, and trusted are "
            f"{', '.join(map(fingerprint, trusted)) or 'none'}; trust that key, or sign by a trusted one",
        )
    with _refused("signature", f"signature of {version}", _FETCH):
        signer.verify(artefact.signature, artefact.card)
    if hashlib.sha256(artefact.npz).hexdigest() != facts["sha256"]:
        raise ArtefactRefused(
            "digest", f"model.npz of {version} is not the one that its card names; {_FETCH}"
        )
    if facts["schema"] != schema:
        raise ArtefactRefused(
            "schema",
            f"the arrays of {version} are laid out by schema {facts['schema']}, this release reads {schema}; "
            "train a model with this release, or run the one that trained it",
        )
    with _refused("arrays", f"model.npz of {version}", "pack the model again"):
        return _arrays(artefact.npz)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    with (
        _refused("arrays", "the arrays of a model", "give plain arrays"),
        zipfile.ZipFile(file, "w") as archive,
    ):
        for name in sorted(arrays):
            member = io.BytesIO()
            rows = np.asarray(arrays[name], order="C")
            np.lib.format.write_array(member, rows, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return file.getvalue()


def _arrays(npz: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(npz)) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        size = max(len(npz), sum(member.file_size for member in members))  # members may share bytes
        if len(members) > _MOST_ARRAYS:
            raise ValueError(f"it has {len(members)} members, and {_MOST_ARRAYS} are the most")
        if size > MOST_BYTES:
            raise ValueError(f"it takes {size} bytes, and {MOST_BYTES} are the most")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if bad := [name for name in names if not _MEMBER.fullmatch(name)]:
            raise ValueError(f"{bad[0]!r} is no plain name")
        if len(set(names)) < len(names):
            raise ValueError("two of its members have one name")
        return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}


def _array(member: bytes) -> np.ndarray:
    """An array over the bytes of a .npy file, which it has to fill."""
    file = io.BytesIO(member)
    if (made := np.lib.format.read_magic(file)) != (1, 0):
        raise ValueError(f"an array is of format {made}, not (1, 0)")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in _PLAIN:
        raise ValueError(f"an array of {dtype} holds neither numbers nor text")
    start = file.tell()
    if math.prod(shape) * dtype.itemsize != len(member) - start:
        raise ValueError(f"an array of shape {shape} is not whole")
    return np.ndarray(shape, dtype, member, start, order="F" if by_columns else "C")


def _canonical(facts: Mapping[str, Any]) -> bytes:
    written = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return written.encode()


@contextmanager
def _refused(reason: Reason, what: str, remedy: str) -> Iterator[None]:
    """Translate what is raised over bytes or values that are not as they should be.

    Any exception: over hostile bytes json, zipfile and numpy raise more kinds than they document, among them
    RecursionError, MemoryError, NotImplementedError and tokenize.TokenError. One without words is named.
    """
    try:
        yield
    except Exception as error:
        cause = str(error)[:200] or type(error).__name__
        raise ArtefactRefused(reason, f"{what}: {cause}; {remedy}") from error
