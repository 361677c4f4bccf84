"""Keys that sign models: made once, read by nobody else, and refused with a remedy where they are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sinks.registry import (
    KeyExists,
    KeyRefused,
)
from sinks.registry.artefact import opened, pack
from sinks.registry.keys import fingerprint, load_private, load_public, make_pair, public_path
from tests.support.artefacts import ARRAYS, FACTS, KEY


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
