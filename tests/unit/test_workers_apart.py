"""Workers of the demo and the simulator know nothing of the deployment whose settings are around."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.settings import Settings
from streams.cli import stack
from streams.replay import workers

_DEPLOYMENT = """\
brokers = "kafka.example:9092"
security = "SASL_SSL"
relay = "relay.example:587"
relay_password = "secret"
partitions = 3

[identity.news]
mail_from = "News <news@shop.example>"
"""
_TELL = "from schemas.settings import Settings; print(Settings().model_dump_json(exclude_unset=True))"


def test_neither_a_file_nor_the_environment_leads_them_to_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(workers.__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opportune.toml").write_text(_DEPLOYMENT)
    monkeypatch.setenv("OPPORTUNE_CLICKHOUSE", "clickhouse.example:9000")
    monkeypatch.setenv("OPPORTUNE_IDENTITY__NEWS__RELAY", "other.example:587")
    monkeypatch.setenv("OPPORTUNE_LOG_LEVEL", "error")

    mine = stack.apart(Settings(partitions=3, log_level="error"), "demo")
    mine.state_dir.mkdir(parents=True)
    told = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", _TELL], env=workers.apart(mine), capture_output=True, text=True, check=True
    )

    theirs = json.loads(told.stdout)
    assert theirs.keys() == set(workers.KEPT_APART)
    assert (theirs["partitions"], theirs["log_level"]) == (3, "error")
    assert (mine.brokers, mine.security, mine.relay, mine.identity) == (None, "PLAINTEXT", (), {})
