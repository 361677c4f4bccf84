"""From a claim to the sandbox: what was received is what was signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.embedded import SandboxServer
from models.templates import compile_template
from schemas.settings import Settings
from sinks.transports import Outcome
from sinks.transports.dkim import Signer
from sinks.vault import Contact
from sinks.vault.sqlite import SqliteVault
from streams import mail
from streams.rendering import Renderer
from streams.sending_lane import Prepared
from tests.support.sending import claim
from tests.support.signing import ED25519, RSA, record, verifies, write_key
from tests.support.smtp import Answers, dispatch, send

FILES = {
    "template.toml": "version = 3\nsubject = 'Grüße an {{ attributes.name }}'\n",
    "body.txt.j2": ".\n.hidden\n..two  \n\ttab \n{{ attributes.name }}\n\n\n",
    "body.html.j2": "<p>.\n.{{ attributes.name }}</p>\n  \n",
}


@pytest.mark.parametrize(
    ("signer", "urgent", "purpose"), [(RSA, False, "mail"), (ED25519, True, "transactional")]
)
def test_what_the_sandbox_was_sent_verifies(
    tmp_path: Path, signer: Signer, urgent: bool, purpose: str
) -> None:
    write_key(tmp_path / "dkim.pem", signer.key)
    settings = Settings(state_dir=tmp_path, dkim_key=tmp_path / "dkim.pem")
    vault = SqliteVault.create(settings.vault_path, settings.vault_key_path)
    vault.put_many([Contact("r-a", "jane@mail.example", {"name": "Zoë"})])
    templates = {"win_back": compile_template("win_back", FILES)}

    one = replace(claim("a", urgent=urgent), dispatch_id=dispatch(1))
    [ready] = Renderer(vault, templates, settings.identities, mail.signers(settings))(
        [one], 1_700_000_000_000
    )
    vault.close()
    assert isinstance(ready, Prepared)
    server = SandboxServer(tmp_path)
    try:
        assert send(Answers(server).port, ready.message) == [Outcome("accepted", 250, "2.0.0 kept")]
        [path] = server.folder.glob("mail/*/*.eml")
    finally:
        server.down()

    received = path.read_bytes()
    assert b"\r\n.hidden\r\n" in received, "a line that SMTP doubles a dot of"
    assert f"\r\nFeedback-ID: win_back:win_back.v3:{purpose}:opportune.examp\r\n".encode() in received
    assert verifies(received, record(signer.key))
    assert not verifies(received.replace(b".hidden", b"hidden"), record(signer.key))
