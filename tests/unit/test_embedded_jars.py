"""Pinned jars: read, fetched, checked and refused; no network is used."""

import hashlib
from pathlib import Path

import pytest

from infra.embedded.jars import LOCK, Jar, JarRefused, JarUnavailable, class_path, default_cache, read_lock
from infra.embedded.process import EmbeddedError

CONTENT = b"a jar"
TEA = Jar("org.tea", "pot", "1.0", hashlib.sha256(CONTENT).hexdigest())
CUP = Jar("org.tea", "cup", "2.0", hashlib.sha256(b"another").hexdigest())


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty local Maven repository, in a home where no remote one can be reached."""
    config = tmp_path / "jgo.conf"
    config.write_text("[repositories]\ncentral = http://127.0.0.1:1\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "m2"


def publish(maven: Path, jar: Jar, content: bytes) -> Path:
    path = maven / jar.group.replace(".", "/") / jar.artifact / jar.version / jar.name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_lock_pins_kafka_with_a_logging_binding_that_fits_its_slf4j() -> None:
    names = {jar.artifact for jar in read_lock(LOCK.read_text())}

    assert {"kafka_2.13", "kafka-clients", "log4j-core", "log4j-slf4j-impl", "slf4j-api"} <= names
    assert "log4j-slf4j2-impl" not in names
    assert len(names) == 46


def test_a_lock_line_without_a_digest_is_refused_by_its_number() -> None:
    with pytest.raises(EmbeddedError, match="line 2"):
        read_lock("# comment\norg.tea:pot:1.0\n")


def test_jars_are_fetched_once_and_progress_counts_them(tmp_path: Path, maven: Path) -> None:
    publish(maven, TEA, CONTENT)
    publish(maven, CUP, b"another")
    told: list[str] = []

    first = class_path(tmp_path / "cache", told.append, [TEA, CUP])
    counted = told.copy()
    second = class_path(tmp_path / "cache", told.append, [TEA, CUP])

    assert [path.read_bytes() for path in first] == [CONTENT, b"another"]
    assert counted == ["resolving jars 0/2", "resolving jars 1/2", "resolving jars 2/2"]
    assert (second, told) == (first, counted)


def test_a_jar_that_became_corrupt_is_refused_with_both_digests_and_the_remedy(
    tmp_path: Path, maven: Path
) -> None:
    publish(maven, TEA, CONTENT)
    (path,) = class_path(tmp_path / "cache", pinned=[TEA])
    path.write_bytes(b"changed")

    with pytest.raises(JarRefused) as refused:
        class_path(tmp_path / "cache", pinned=[TEA])

    message = str(refused.value)
    for part in ("pot-1.0.jar", TEA.sha256, hashlib.sha256(b"changed").hexdigest(), f"Delete {path}"):
        assert part in message


def test_following_the_remedy_for_a_corrupt_jar_helps(tmp_path: Path, maven: Path) -> None:
    publish(maven, TEA, CONTENT)
    (path,) = class_path(tmp_path / "cache", pinned=[TEA])
    path.unlink()

    assert class_path(tmp_path / "cache", pinned=[TEA])[0].read_bytes() == CONTENT


def test_a_jar_that_arrives_wrong_never_reaches_the_cache(tmp_path: Path, maven: Path) -> None:
    published = publish(maven, TEA, b"something else")

    with pytest.raises(JarRefused, match=f"Delete {published}"):
        class_path(tmp_path / "cache", pinned=[TEA])

    assert not list((tmp_path / "cache").rglob("*.jar"))


def test_a_jar_that_cannot_be_fetched_is_named_and_the_others_are_kept(tmp_path: Path, maven: Path) -> None:
    publish(maven, CUP, b"another")
    (kept,) = class_path(tmp_path / "cache", pinned=[CUP])

    with pytest.raises(JarUnavailable, match=r"org\.tea:pot:1\.0 could not be fetched"):
        class_path(tmp_path / "cache", pinned=[TEA, CUP])

    assert kept.read_bytes() == b"another"
    assert list(kept.parent.iterdir()) == [kept]


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_cache() == tmp_path / "opportune"
