"""`opportune model evaluate`: what it tells people and machines, and mistakes in one line."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from models.sendtime.baselines import RULES
from models.sendtime.evaluation import CHAMPION, METRICS
from schemas.profile import HOUR_MS
from streams.cli import main
from tests.support.activities import planted


@dataclass(frozen=True)
class Done:
    """What a command wrote, and with which code it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["opportune", "model", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        written = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, written.out, written.err)

    return command


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred recipients with hours of their own, each in one of two zones; some rows have no zone."""
    activity, _ = planted(100, 60, 0.5, own=True, zones=("America/New_York", "Asia/Kolkata"))
    lines = ["customer,moment,clock"]
    columns = (activity.recipient.tolist(), activity.hour.tolist(), activity.zone.tolist())
    for who, hour, zone in zip(*columns, strict=True):
        at = datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC)
        clock = "" if zone == b"Asia/Kolkata" else zone.decode()
        lines.append(f"c{who},{at:%Y-%m-%dT%H:%M:%SZ},{clock}")
    path = tmp_path_factory.mktemp("events") / "events.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def of(path: Path) -> tuple[object, ...]:
    names = ("--recipient", "customer", "--at", "moment", "--zone", "clock", "--default-zone", "Asia/Kolkata")
    return ("--events", path, *names)


def is_estimate(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(each, float) for each in value)
        and value[1] - 1e-9 <= value[0] <= value[2] + 1e-9
    )


def test_machines_get_the_set_the_models_and_the_champion(run: Run, events: Path) -> None:
    done = run(*of(events), "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert [*told][:3] == ["set", "models", "champion"]
    assert {*told} == {
        *("set", "models", "champion"),
        *("differences", "by_history", "calibration", "trained"),
    }
    assert told["champion"] == CHAMPION
    assert [*told["models"]] == [*RULES, CHAMPION]
    for name, metrics in told["models"].items():
        assert {*metrics} == {*METRICS} - (
            {"nll"} if name in ("send_now", "last_hour", "mode_hour") else set()
        )
        assert all(map(is_estimate, metrics.values())), name
    assert {*told["differences"]} == {f"{CHAMPION} - {name}" for name in RULES}
    assert all(is_estimate(value) for each in told["differences"].values() for value in each.values())
    assert told["models"][CHAMPION]["any1"][0] > 0.8


def test_machines_are_told_of_what_it_was(run: Run, events: Path) -> None:
    told = json.loads(run(*of(events), "--json").out)
    lines = len(events.read_text().splitlines()) - 1
    described = told["set"]
    assert {*described} == {
        *("file", "events", "active_hours", "recipients", "slots"),
        *("windows", "visits", "recipients_tested", "base_rate"),
    }
    assert described["file"] == "events.csv"
    assert described["events"] == described["active_hours"] == lines
    assert (described["recipients"], described["slots"]) == (100, 24)
    assert described["visits"] > described["windows"] > 100
    assert told["calibration"]["base"] == described["base_rate"]
    assert is_estimate(told["calibration"]["ratio"])
    assert len(told["calibration"]["deciles"]) == 10
    assert sum(each["windows"] for each in told["by_history"].values()) == described["windows"]
    assert {*told["by_history"]} <= {"0-4", "5-19", "20-99", "100+"}
    assert {*told["trained"]["factors"]} == {"prior", "thin", "recipient"}


def test_people_get_tables_and_a_plot(run: Run, events: Path) -> None:
    done = run(*of(events))
    assert done.code == 0
    text = done.out
    assert text.startswith("events.csv: ")
    assert "100 recipients" in text
    tables = [text.index(title) for title in (f"{CHAMPION} less", "any1 by active hours", "Calibration of")]
    assert tables == sorted(tables)
    first, differences = text[: tables[0]], text[tables[0] : tables[1]]
    for name in RULES:
        assert f"\n{name} " in first
        assert f"\n{name} " in differences
    assert f"\n{CHAMPION} " in first
    for part in (first, differences):
        assert all(metric in part for metric in METRICS)
    assert "–" in first  # of send_now, which says no probabilities
    assert " 5-19 " in text
    assert "any1 in %, by model" in text
    assert all(len(line) <= 120 for line in text.splitlines()[1:] if "Calibration" not in line)
    assert "[bold" not in text


def test_the_tables_say_what_the_json_says(run: Run, events: Path) -> None:
    told, text = json.loads(run(*of(events), "--json").out), run(*of(events)).out
    for name, metrics in told["models"].items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        shown = [
            "{:.3f} [{:.3f}, {:.3f}]".format(*metrics[metric]) for metric in METRICS if metric in metrics
        ]
        assert all(each in line for each in shown), name
    ratio, ece = told["calibration"]["ratio"], told["calibration"]["ece"]
    assert "told {:.3f} [{:.3f}, {:.3f}] times".format(*ratio) in text
    assert f"{ece / told['calibration']['base']:.1%}" in text


@pytest.mark.parametrize("slots", ["25", "0", "-24", "day"])
def test_only_a_day_and_a_week_can_be_chosen_from(run: Run, events: Path, slots: str) -> None:
    done = run(*of(events), "--slots", slots)
    assert done.code == 2
    assert "--slots" in done.err
    assert done.out == ""


def test_a_file_must_be_named(run: Run) -> None:
    done = run("--recipient", "who")
    assert done.code == 2
    assert "--events" in done.err


def one_error(done: Done) -> str:
    assert (done.code, done.out) == (1, "")
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_file_that_cannot_be_used_is_one_line(run: Run, tmp_path: Path, events: Path) -> None:
    nowhere = tmp_path / "a folder with [brackets] and a rather long name" / "nowhere.csv"
    assert one_error(run("--events", nowhere)) == f"error: {nowhere}: there is no such file"
    assert "no column 'recipient'" in one_error(run("--events", events))
    assert "no column 'tz'" in one_error(run(*of(events), "--zone", "tz"))
    assert "--default-zone" in one_error(run(*of(events), "--default-zone", "Wien"))
    (tmp_path / "ragged.csv").write_text("a,b\n1,2,3\n")
    assert "is no CSV" in one_error(run("--events", tmp_path / "ragged.csv"))


def test_too_few_events_are_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("recipient,at\n" + "".join(f"ann,{1_519_905_600 + 7200 * i}\n" for i in range(40)))
    line = one_error(run("--events", path))
    assert "visits were followed by another within 24 hours; at least 200 are needed" in line
    path.write_text("recipient,at\nann,1519905600\n")
    assert "at least 200 are needed" in one_error(run("--events", path))
