"""The model registry: what is no artefact is refused before it is used, and what is put stays as it is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sinks.registry import (
    ArtefactRefused,
    KeyExists,
    KeyRefused,
    Reason,
    RegistryUnusable,
    VersionExists,
    VersionUnknown,
    artefact,
)
from sinks.registry.artefact import MOST_BYTES, Artefact, opened, pack
from sinks.registry.folder import Registry
from sinks.registry.keys import fingerprint, load_private, load_public, make_pair, public_path

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
TRUSTED = [STRANGER.public_key(), KEY.public_key()]
FACTS = {"schema": 3, "trained_at": "2017-05-01T04:00:00+00:00", "rows": 120_000, "loss": 0.25}
ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array(0.5),
    "names": np.array(["log_rate", "größe"]),
    "none": np.zeros((0, 4), dtype=np.int64),
}
MODEL = pack(ARRAYS, FACTS, KEY)


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


# Keys


def test_a_pair_that_is_made_signs_what_its_public_half_opens(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "models.pem"
    made = make_pair(path)
    signed = pack(ARRAYS, FACTS, load_private(path))
    assert opened(signed, [load_public(public_path(path))], 3).keys() == ARRAYS.keys()
    assert signed.facts["key"] == fingerprint(made)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert public_path(path).read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize("there", ["models.pem", "models.pem.pub"])
def test_a_key_is_never_overwritten_and_no_half_of_a_pair_is_left(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(KeyExists, match="move it away"):
        make_pair(tmp_path / "models.pem")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_pair_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(KeyRefused, match="cannot be written"):
        make_pair(Path("/dev/null/models.pem"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_private_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "models.pem"
    make_pair(path)
    path.chmod(mode)
    with pytest.raises(KeyRefused, match="chmod 600"):
        load_private(path)


def _pem(key: Any, encryption: Any = NoEncryption()) -> bytes:  # noqa: B008 - has no state
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem


def _public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


OTHER_KIND = generate_private_key(SECP256R1())


@pytest.mark.parametrize(
    ("load", "content", "says"),
    [
        (load_private, None, "no key at"),
        (load_private, b"nonsense", "no private key"),
        (load_private, _public_pem(KEY), "no private key"),
        (load_private, _pem(KEY)[:60], "no private key"),
        (load_private, _pem(KEY, BestAvailableEncryption(b"word")), "without a passphrase"),
        (load_private, _pem(OTHER_KIND), "another kind"),
        (load_public, None, "no key at"),
        (load_public, b"nonsense", "no public key"),
        (load_public, _pem(KEY), "no public key"),
        (load_public, _public_pem(OTHER_KIND), "another kind"),
    ],
)
def test_a_bad_key_file_is_refused_with_the_remedy(
    tmp_path: Path, load: Callable[[Path], object], content: bytes | None, says: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(KeyRefused, match=says):
        load(path)


def test_a_key_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="cannot be read"):
        load_public(tmp_path)


# The folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "var" / "models")


def _folder(tmp_path: Path, version: str = MODEL.version) -> Path:
    return tmp_path / "var" / "models" / version


def _of(trained_at: str, **facts: Any) -> Artefact:
    return pack(ARRAYS, FACTS | {"trained_at": trained_at} | facts, KEY)


def test_what_was_put_is_got_and_putting_it_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    assert registry.put(MODEL) == MODEL.version
    before = _folder(tmp_path).stat()
    assert registry.put(MODEL) == MODEL.version
    assert registry.get(MODEL.version) == MODEL
    assert _folder(tmp_path).stat() == before
    assert [path.name for path in _folder(tmp_path).parent.iterdir()] == [MODEL.version]
    assert {path.name for path in _folder(tmp_path).iterdir()} == {"card.json", "model.npz", "signature"}


def test_a_version_is_never_overwritten(registry: Registry, tmp_path: Path) -> None:
    registry.put(MODEL)
    with pytest.raises(VersionExists, match="move it away"):
        registry.put(replace(MODEL, signature=bytes(64)))
    assert registry.get(MODEL.version) == MODEL
    assert [path.name for path in _folder(tmp_path).parent.iterdir()] == [MODEL.version]


def test_what_has_no_card_is_not_put(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ArtefactRefused):
        registry.put(Artefact(b"{}", MODEL.npz, MODEL.signature))
    assert not _folder(tmp_path).parent.exists()


def test_everything_is_durable_before_it_has_its_name_and_then_the_name(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    before: list[int] = []
    real_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        before.extend(synced)
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(Path, "rename", rename)
    registry.put(MODEL)
    folder = _folder(tmp_path)
    assert set(before) == {folder.stat().st_ino, *(path.stat().st_ino for path in folder.iterdir())}
    assert synced[len(before) :] == [folder.parent.stat().st_ino]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.rename"])
def test_a_put_that_fails_leaves_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(RegistryUnusable, match="No space left"):
        registry.put(MODEL)
    assert [*_folder(tmp_path).parent.iterdir()] == []


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from sinks.registry.artefact import Artefact
from sinks.registry.folder import Registry
Path.rename = lambda path, target: os.kill(os.getpid(), signal.SIGKILL)
Registry(Path(sys.argv[1])).put(Artefact(*(bytes.fromhex(part) for part in sys.stdin.read().split())))
"""


def test_a_put_that_is_killed_half_way_is_not_seen_and_can_be_done_again(
    registry: Registry, tmp_path: Path
) -> None:
    folder = _folder(tmp_path).parent
    killed = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", KILLED, str(folder)],
        input=" ".join(part.hex() for part in (MODEL.card, MODEL.npz, MODEL.signature)),
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len([*folder.iterdir()]) == 1, "it had begun"
    assert registry.versions() == []
    with pytest.raises(VersionUnknown):
        registry.get(MODEL.version)
    assert registry.put(MODEL) == MODEL.version
    assert registry.versions() == [MODEL.version]


def test_several_may_put_the_same_at_once(registry: Registry, tmp_path: Path) -> None:
    put: list[str] = []
    threads = [Thread(target=lambda: put.append(registry.put(MODEL))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert put == [MODEL.version] * 8
    assert [path.name for path in _folder(tmp_path).parent.iterdir()] == [MODEL.version]


def test_versions_are_listed_as_they_were_trained_and_nothing_else_is(
    registry: Registry, tmp_path: Path
) -> None:
    late, early = _of("2017-05-03T00:00:00+00:00"), _of("2017-05-01T00:00:00Z")
    between = _of("2017-05-03T01:00:00+02:00")  # an hour before late, though its text sorts behind it
    same = [_of("2017-05-02T00:00:00Z", rows=rows) for rows in range(4)]
    for model in (late, *same, between, early):
        registry.put(model)
    for other in ("notes.txt", "st-0", f"{late.version}.old"):
        (_folder(tmp_path).parent / other).mkdir()
    ids = sorted(model.version for model in same)
    assert registry.versions() == [early.version, *ids, between.version, late.version]


def test_the_beginning_of_an_id_is_enough_where_only_one_has_it(registry: Registry) -> None:
    models = {
        model.version: model for model in (_of("2017-05-01T00:00:00Z", rows=rows) for rows in range(17))
    }
    for model in models.values():
        registry.put(model)
    for version, model in models.items():
        for length in range(4, 15):
            found = [name for name in models if name.startswith(version[:length])]
            if len(found) == 1:
                assert registry.get(version[:length]) == model
            else:
                with pytest.raises(VersionUnknown, match="write more of it") as unknown:
                    registry.get(version[:length])
                assert ", ".join(sorted(found)) in str(unknown.value)
    assert any(version[:4] != other[:4] for version in models for other in models)


def test_an_unknown_id_is_answered_with_those_near_it(registry: Registry) -> None:
    registry.put(MODEL)
    other = "0" if MODEL.version[-1] != "0" else "1"
    with pytest.raises(VersionUnknown, match=f"near it are {MODEL.version}"):
        registry.get(MODEL.version[:-1] + other)
    with pytest.raises(VersionUnknown, match=f"near it are {MODEL.version}"):
        registry.get(MODEL.version.upper().replace("ST", "st") + "X")
    with pytest.raises(VersionUnknown, match="there are 1, none like it"):
        registry.get("no-such-thing")


@pytest.mark.parametrize("asked", ["", "st-", "../others/{}", "{}/", "./{}", "{}\n", "/{}", "{}0"])
def test_only_an_id_leads_to_a_folder(registry: Registry, tmp_path: Path, asked: str) -> None:
    registry.put(MODEL)
    Registry(tmp_path / "var" / "others").put(MODEL)
    with pytest.raises(VersionUnknown, match="no id of a model"):
        registry.get(asked.format(MODEL.version))


def test_a_folder_with_the_name_of_another_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.put(MODEL)
    _folder(tmp_path).rename(_folder(tmp_path, "st-000000000000"))
    for ask in (lambda: registry.get("st-000000000000"), registry.versions):
        with pytest.raises(ArtefactRefused, match=f"holds {MODEL.version}") as refused:
            ask()
        assert refused.value.reason == "folder"


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 2**40], ids=["a byte", "more than any memory"])
@pytest.mark.parametrize("file", ["card.json", "model.npz", "signature"])
def test_a_version_with_a_file_missing_or_too_large_is_refused(
    registry: Registry, tmp_path: Path, file: str, size: int
) -> None:
    registry.put(MODEL)
    path = _folder(tmp_path) / file
    with path.open("r+b") as content:
        content.truncate(size)
    with pytest.raises(ArtefactRefused, match=f"{file} is larger"):
        registry.get(MODEL.version)
    path.unlink()
    with pytest.raises(ArtefactRefused, match=f"{file} is missing") as refused:
        registry.get(MODEL.version)
    assert refused.value.reason == "folder"


def test_a_registry_that_is_not_there_or_no_folder_says_so(registry: Registry, tmp_path: Path) -> None:
    for ask in (lambda: registry.get(MODEL.version), registry.versions):
        with pytest.raises(RegistryUnusable, match="no model registry at"):
            ask()
    (tmp_path / "var").touch()
    with pytest.raises(RegistryUnusable, match="Not a directory"):
        registry.versions()
    with pytest.raises(RegistryUnusable, match="Not a directory"):
        registry.put(MODEL)
