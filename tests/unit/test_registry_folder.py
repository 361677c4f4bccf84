"""The folder of models: what is put stays as it is, through kills and races."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sinks.registry import (
    ArtefactRefused,
    RegistryUnusable,
    VersionExists,
    VersionUnknown,
)
from sinks.registry.artefact import MOST_BYTES, Artefact, pack
from sinks.registry.folder import Registry
from tests.support.artefacts import ARRAYS, FACTS, KEY, MODEL


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
