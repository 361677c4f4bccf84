"""Whatever happens to its bytes, an artefact opens as it was packed or is refused; nothing else is raised."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sinks.registry import ArtefactRefused
from sinks.registry.artefact import Artefact, opened, pack

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
TRUSTED = [KEY.public_key()]
FACTS = {"schema": 1, "trained_at": "2017-05-01T04:00:00Z", "loss": 0.25}
MODEL = pack({"bias": np.array(0.5), "names": np.array(["a", "bc"]), "weights": np.ones((2, 3))}, FACTS, KEY)
FILES = {"card": MODEL.card, "npz": MODEL.npz, "signature": MODEL.signature}

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
DTYPES = st.one_of(
    arrays_of.boolean_dtypes(),
    arrays_of.integer_dtypes(),
    arrays_of.unsigned_integer_dtypes(),
    arrays_of.floating_dtypes(),
    arrays_of.byte_string_dtypes(min_len=1),
    arrays_of.unicode_string_dtypes(min_len=1),
)
ARRAYS = arrays_of.arrays(DTYPES, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=3))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def _opens_or_is_refused(artefact: Artefact) -> None:
    try:
        arrays = opened(artefact, TRUSTED, 1)
    except ArtefactRefused as refused:
        assert "; " in str(refused), "it names a remedy"
    else:
        assert all(array.dtype.kind in "biufSU" for array in arrays.values())


def _signed(card: bytes, npz: bytes) -> Artefact:
    return Artefact(card, npz, KEY.sign(card))


def _holding(npz: bytes) -> Artefact:
    facts = MODEL.facts | {"sha256": hashlib.sha256(npz).hexdigest()}
    return _signed(json.dumps(facts, separators=(",", ":"), sort_keys=True).encode(), npz)


@given(
    st.dictionaries(NAMES, ARRAYS, max_size=2),
    st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
)
def test_arrays_and_facts_come_back_as_they_were_packed(
    arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    packed = pack(arrays, facts | FACTS, KEY)
    back = opened(packed, TRUSTED, 1)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()
    made = {name: packed.facts[name] for name in ("kind", "key", "sha256")}
    assert packed.facts == facts | FACTS | made
    assert pack(back, packed.facts, KEY) == packed


@given(st.sampled_from(sorted(FILES)), st.data())
def test_an_artefact_with_any_byte_changed_is_refused(file: str, data: st.DataObject) -> None:
    content = bytearray(FILES[file])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArtefactRefused):
        opened(replace(MODEL, **{file: bytes(content)}), TRUSTED, 1)


@given(st.sampled_from(sorted(FILES)), st.data())
def test_an_artefact_cut_short_or_made_longer_is_refused(file: str, data: st.DataObject) -> None:
    content = FILES[file]
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    for changed in (cut, content + data.draw(st.binary(min_size=1))):
        with pytest.raises(ArtefactRefused):
            opened(replace(MODEL, **{file: changed}), TRUSTED, 1)


@given(st.binary(), st.binary(), st.binary())
def test_bytes_that_are_no_artefact_are_refused(card: bytes, npz: bytes, signature: bytes) -> None:
    with pytest.raises(ArtefactRefused):
        opened(Artefact(card, npz, signature), TRUSTED, 1)


@given(st.lists(st.tuples(st.integers(0, len(MODEL.npz) - 1), st.integers(1, 255)), min_size=1, max_size=8))
def test_arrays_changed_before_they_were_signed_are_plain_or_refused(changes: list[tuple[int, int]]) -> None:
    npz = bytearray(MODEL.npz)
    for place, change in changes:
        npz[place] ^= change
    _opens_or_is_refused(_holding(bytes(npz)))


@given(st.integers(0, len(MODEL.npz)), st.integers(0, len(MODEL.npz)), st.binary(max_size=64))
def test_arrays_spliced_before_they_were_signed_are_plain_or_refused(
    start: int, end: int, middle: bytes
) -> None:
    _opens_or_is_refused(_holding(MODEL.npz[:start] + middle + MODEL.npz[end:]))


@given(JSON, st.dictionaries(st.sampled_from(sorted(MODEL.facts)), JSON))
def test_a_card_of_anything_that_was_signed_is_a_card_or_refused(whole: Any, changed: dict[str, Any]) -> None:
    for facts in (whole, MODEL.facts | changed):
        card = json.dumps(facts, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()
        _opens_or_is_refused(_signed(card, MODEL.npz))
