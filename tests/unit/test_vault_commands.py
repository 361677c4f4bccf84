"""`opportune vault` and the offline half of `opportune recipients import`, as a user meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "streams.cli.main", *command],
        env=os.environ | {"OPPORTUNE_STATE_DIR": str(folder), "COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_vault_is_made_used_rotated_copied_and_put_back(tmp_path: Path) -> None:
    made = run(tmp_path, "vault", "init")
    assert (made.returncode, made.stderr) == (0, "")
    place = tmp_path / "vault" / "contacts.sqlite", tmp_path / "vault" / "master.key"
    with closing(SqliteVault(*place)) as vault:
        vault.put_many([Contact("ann", "ann@mail.example")])
        before = vault.key_id
    again = run(tmp_path, "vault", "init")
    assert again.returncode == 1
    assert "never overwritten" in again.stderr

    rotated = run(tmp_path, "vault", "rotate")
    assert rotated.returncode == 0, rotated.stderr
    assert before in rotated.stdout
    copied = run(tmp_path, "vault", "backup", str(tmp_path / "copy"))
    assert copied.returncode == 0, copied.stderr
    assert "not in it" in copied.stdout
    with closing(SqliteVault(*place)) as vault:
        vault.erase(["ann"])
    refused = run(tmp_path, "vault", "restore", str(tmp_path / "copy"))
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    restored = run(tmp_path, "vault", "restore", str(tmp_path / "copy"), "--force")
    assert restored.returncode == 0, restored.stderr
    status = run(tmp_path, "vault", "status")
    with closing(SqliteVault(*place)) as vault:
        assert vault.key_id != before
        assert vault.key_id in status.stdout
    assert status.stdout.split()[-1] == "1"


@pytest.mark.parametrize("command", [["status"], ["rotate"], ["backup", "copy"]])
def test_without_a_vault_every_command_says_how_to_make_one(tmp_path: Path, command: list[str]) -> None:
    told = run(tmp_path, "vault", *command)
    assert told.returncode == 1
    assert "vault init" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run(tmp_path, "vault", "init")
    (tmp_path / "vault" / "master.key").chmod(0o640)
    told = run(tmp_path, "vault", "status")
    assert told.returncode == 1
    assert "chmod 600" in told.stderr


def test_a_dry_run_needs_nothing_reports_every_bad_row_and_says_no_address(tmp_path: Path) -> None:
    bad = "".join(f"r{i},secret{i}.mail.example,\n" for i in range(30))
    file = tmp_path / "people.csv"
    file.write_text(f"recipient_id,address,zone\nann,ann@gmail.example,Europe/Berlin\n{bad}")
    told = run(tmp_path, "recipients", "import", str(file), "--dry-run")
    assert told.returncode == 1
    assert all(f"line {line}: the address is not local@domain" in told.stdout for line in range(3, 33))
    assert "gmail" in told.stdout
    assert "secret" not in told.stdout + told.stderr
    assert not (tmp_path / "vault").exists()


def test_a_dry_run_of_a_good_file_ends_well(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("recipient_id,address,zone\nann,ann@gmail.example,\n")
    assert run(tmp_path, "recipients", "import", str(file), "--dry-run").returncode == 0


@pytest.mark.parametrize("content", [None, "recipient_id,address\nann,ann@mail.example\n"])
def test_a_file_that_cannot_be_used_ends_with_two(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "people.csv"
    if content is not None:
        file.write_text(content)
    told = run(tmp_path, "recipients", "import", str(file), "--dry-run")
    assert told.returncode == 2
    assert str(file) in told.stderr
    assert "mail.example" not in told.stdout + told.stderr
