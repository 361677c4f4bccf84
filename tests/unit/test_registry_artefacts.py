"""Artefacts: what is none is refused before it is used, and what was packed is opened."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sinks.registry import (
    ArtefactRefused,
    Reason,
    artefact,
)
from sinks.registry.artefact import MOST_BYTES, Artefact, opened, pack
from sinks.registry.keys import fingerprint
from tests.support.artefacts import ARRAYS, FACTS, KEY, MODEL, STRANGER, TRUSTED


def _signed(card: bytes, npz: bytes = MODEL.npz) -> Artefact:
    return Artefact(card, npz, KEY.sign(card))


def _card(**changed: Any) -> bytes:
    facts = {name: value for name, value in (MODEL.facts | changed).items() if value is not None}
    return json.dumps(facts, separators=(",", ":"), sort_keys=True).encode()


def _holding(npz: bytes) -> Artefact:
    """What a trainer that was broken into could sign: right in everything but what is in the arrays' file."""
    return _signed(_card(sha256=hashlib.sha256(npz).hexdigest()), npz)


def _zip(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def _npy(array: Any, *, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version)
    return file.getvalue()


def _header(shape: object, descr: object = "<f8") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _refusal(artefact: Artefact, schema: int = 3) -> tuple[Reason, str]:
    with pytest.raises(ArtefactRefused) as refused:
        opened(artefact, TRUSTED, schema)
    return refused.value.reason, str(refused.value)


# Packing and opening


def test_what_was_packed_is_opened_and_cannot_be_written_to() -> None:
    arrays = opened(MODEL, TRUSTED, 3)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
        assert array.tolist() == ARRAYS[name].tolist()
        assert not array.flags.writeable


def test_the_same_model_gives_the_same_bytes_in_whatever_order_and_memory_it_comes() -> None:
    turned = {name: np.asfortranarray(ARRAYS[name]) for name in reversed(ARRAYS)}
    turned["bias"] = ARRAYS["bias"]  # asfortranarray gives it a dimension
    again = pack(turned, dict(reversed(FACTS.items())), KEY)
    assert again == MODEL
    with zipfile.ZipFile(io.BytesIO(MODEL.npz)) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_numpys_own_reader_reads_the_arrays() -> None:
    with np.load(io.BytesIO(MODEL.npz), allow_pickle=False) as arrays:
        assert arrays["weights"].tolist() == ARRAYS["weights"].tolist()


def test_columns_that_another_packer_wrote_in_fortran_order_come_back_in_their_places() -> None:
    weights = np.asfortranarray(ARRAYS["weights"])
    arrays = opened(_holding(_zip([("weights.npy", _npy(weights))])), TRUSTED, 3)
    assert arrays["weights"].tolist() == ARRAYS["weights"].tolist()


def test_the_version_is_the_cards_and_the_card_names_the_arrays_and_the_key() -> None:
    assert MODEL.version == "st-" + hashlib.sha256(MODEL.card).hexdigest()[:12]
    assert MODEL.facts == FACTS | {
        "kind": "sendtime",
        "key": hashlib.sha256(KEY.public_key().public_bytes_raw()).hexdigest()[:16],
        "sha256": hashlib.sha256(MODEL.npz).hexdigest(),
    }
    assert MODEL.card == _card()
    assert len(MODEL.signature) == 64


@pytest.mark.parametrize(
    ("arrays", "facts", "reason"),
    [
        ({"objects": np.array([None])}, FACTS, "arrays"),
        ({"rows": np.zeros(2, dtype=[("a", "f8")])}, FACTS, "arrays"),
        ({"../weights": np.zeros(2)}, FACTS, "arrays"),
        ({"zeros": np.zeros(MOST_BYTES, dtype=np.int8)}, FACTS, "arrays"),
        ({}, FACTS | {"loss": float("nan")}, "card"),
        ({}, FACTS | {"when": object()}, "card"),
        ({}, FACTS | {"text": "\ud800"}, "card"),
        ({}, {"schema": 3}, "card"),
        ({}, FACTS | {"schema": "3"}, "card"),
        ({}, FACTS | {"trained_at": "yesterday"}, "card"),
        ({}, FACTS | {"trained_at": "2017-05-01T04:00:00"}, "card"),
    ],
)
def test_what_could_not_be_opened_again_is_not_packed(
    arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], reason: Reason
) -> None:
    with pytest.raises(ArtefactRefused) as refused:
        pack(arrays, facts, KEY)
    assert refused.value.reason == reason


def test_objects_are_not_even_pickled() -> None:
    with pytest.raises(ArtefactRefused, match="Object arrays cannot be saved"):
        pack({"objects": np.array([None])}, FACTS, KEY)


# What is refused


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (b"", "Expecting value"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "recursion"),
        (b'["sendtime"]', "no JSON object"),
        (_card().replace(b":3,", b": 3,"), "not canonical"),
        (_card().replace(b'"kind"', b'"kind":"other","kind"'), "not canonical"),
        (_card().replace(b"0.25", b"NaN"), "Out of range"),
        (_card(sha256=None), "sha256 missing"),
        (_card(key=["a"]), "key missing, or of another type"),
        (_card(schema=True), "schema missing, or of another type"),
        (_card(trained_at="2017-05-01"), "no time zone"),
    ],
)
def test_a_card_that_is_none_is_refused_though_signed(card: bytes, says: str) -> None:
    reason, text = _refusal(_signed(card))
    assert reason == "card"
    assert says in text


def test_a_model_of_another_kind_is_refused_before_its_card_is_read_further() -> None:
    assert _refusal(_signed(b'{"kind":"churn"}'))[0] == "kind"
    assert _refusal(_signed(b"{}"))[0] == "kind"


def test_a_model_of_an_untrusted_key_is_refused_and_both_keys_are_named() -> None:
    with pytest.raises(ArtefactRefused) as refused:
        opened(MODEL, [STRANGER.public_key()], 3)
    assert refused.value.reason == "key"
    assert fingerprint(KEY.public_key()) in str(refused.value)
    assert fingerprint(STRANGER.public_key()) in str(refused.value)
    with pytest.raises(ArtefactRefused, match="trusted are none"):
        opened(MODEL, [], 3)


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), MODEL.signature[:-1], MODEL.signature + b"\0", STRANGER.sign(MODEL.card)],
    ids=["none", "zeros", "short", "long", "of another trusted key"],
)
def test_an_unsigned_or_wrongly_signed_model_is_refused(signature: bytes) -> None:
    assert _refusal(replace(MODEL, signature=signature))[0] == "signature"


def test_a_changed_card_is_refused() -> None:
    assert _refusal(replace(MODEL, card=_card(loss=0.125)))[0] == "signature"


def test_another_models_arrays_are_refused() -> None:
    other = pack({"weights": np.ones(3)}, FACTS, KEY)
    assert _refusal(replace(MODEL, npz=other.npz))[0] == "digest"
    assert _refusal(replace(MODEL, npz=MODEL.npz[:-1]))[0] == "digest"


def test_arrays_of_another_layout_are_refused_with_both_numbers() -> None:
    reason, text = _refusal(MODEL, schema=4)
    assert reason == "schema"
    assert "by schema 3, this release reads 4" in text


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("form", ["object array", "object field", "no zip at all"])
def test_a_pickle_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    npz = {
        "object array": lambda: _zip([("a.npy", _npy(np.array([Payload(made)], dtype=object)))]),
        "object field": lambda: _zip([("a.npy", _npy(np.array([(Payload(made),)], dtype=[("a", object)])))]),
        "no zip at all": lambda: pickle.dumps(Payload(made)),
    }[form]()
    assert _refusal(_holding(npz))[0] == "arrays"
    assert not made.exists()
    loaded = np.load(io.BytesIO(npz), allow_pickle=True)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            loaded["a"]
    assert made.exists(), "it is a live one"


def _overlapping() -> bytes:
    """64 entries of a zip's directory that all stand for the same 300 kB: small as a file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", _npy(np.zeros(300_000, np.int8)))
        [first] = archive.infolist()
        for number in range(63):
            entry = zipfile.ZipInfo(f"a{number}.npy")
            entry.header_offset, entry.CRC = first.header_offset, first.CRC
            entry.compress_size = entry.file_size = first.file_size
            archive.filelist.append(entry)
        archive._didModify = True  # type: ignore[attr-defined]
    return file.getvalue()


@pytest.mark.parametrize(
    ("npz", "says"),
    [
        (_zip([("a.npy", bytes(MOST_BYTES + 1))], zipfile.ZIP_DEFLATED), f"it takes {MOST_BYTES + 1} bytes"),
        (_zip([("a.npy", bytes(MOST_BYTES))], zipfile.ZIP_LZMA), "compressed"),
        (_overlapping(), "bytes, and"),
        (b" " * MOST_BYTES + MODEL.npz, "bytes, and"),
        (_zip([(f"a{n}.npy", _npy(0)) for n in range(65)]), "65 members"),
    ],
    ids=["deflated", "its directory is right, the method unbounded", "overlapping", "padded", "many"],
)
def test_a_zip_bomb_is_refused_by_its_directory_alone(
    npz: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_members: list[object] = []
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, name, *_: opened_members.append(name))
    reason, text = _refusal(_holding(npz))
    assert reason == "arrays"
    assert says in text
    assert opened_members == []


@pytest.mark.parametrize(
    ("npz", "says"),
    [
        (b"", "not a zip file"),
        (_zip([("../a.npy", _npy(0))]), "no plain name"),
        (_zip([("/a.npy", _npy(0))]), "no plain name"),
        (_zip([("a.npy\n", _npy(0))]), "no plain name"),
        (_zip([("a.txt", _npy(0))]), "no plain name"),
        (_zip([("a.npy", _npy(0)), ("a.npy", _npy(1))]), "one name"),
        (_zip([("a.npy", b"numbers")]), "magic string"),
        (_zip([("a.npy", _npy(0, version=(2, 0)))]), "format (2, 0)"),
        (_zip([("a.npy", _npy(np.zeros(2)) + b"\0")]), "not whole"),
        (_zip([("a.npy", _npy(np.zeros(2))[:-1])]), "not whole"),
        (_zip([("a.npy", _header((2**60,)))]), "not whole"),
        (_zip([("a.npy", _header((-1, -2)) + bytes(16))]), "negative"),
        (_zip([("a.npy", _header((2,), [("a", "<f8")]) + bytes(16))]), "neither numbers nor text"),
        (_zip([("a.npy", _npy(np.zeros(2, "M8[s]")))]), "neither numbers nor text"),
        (_zip([("a.npy", _npy(np.zeros(2)))]).replace(bytes(16), bytes(15) + b"\1"), "Bad CRC"),
    ],
)
def test_what_is_more_or_less_than_plain_arrays_is_refused_though_signed(npz: bytes, says: str) -> None:
    reason, text = _refusal(_holding(npz))
    assert reason == "arrays"
    assert says in text


def test_an_error_without_words_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(npz: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(artefact, "_arrays", too_much)
    assert "MemoryError; pack the model again" in _refusal(MODEL)[1]
