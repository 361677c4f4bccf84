"""A policy folder is checked as a whole: every problem, with file, line and column."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import infra
from models.features import FEATURES
from schemas import policy_files
from schemas.policy import PolicyError
from streams.cli.main import app
from streams.policy_check import check

PACKAGED = Path(infra.__file__).parent / "policy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED, tmp_path / "policy"))


def problems(folder: Path) -> list[str]:
    return [str(each).removeprefix(f"{folder}/") for each in check(folder).problems]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_packaged_policy_has_no_problem(folder: Path) -> None:
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        (
            "segments/lapsing.toml",
            'where = "hours_since_purchase >= 504"',
            'where = """\nviews_7d > 3\n  AND hours_since_purchas >= 504"""',
            "segments/lapsing.toml:6:7: where: there is no feature hours_since_purchas; "
            "did you mean hours_since_purchase?",
        ),
        ("segments/lapsing.toml", "number = 6", "number = 128", "lapsing.toml:1:10: number: "),
        ("segments/lapsing.toml", "number = 6", "number = 3", "lapsing.toml:1:10: segment big_spenders has"),
        ("segments/lapsing.toml", "doc =", "docs =", "lapsing.toml:3:9: docs: not known here; did you mean"),
        ("segments/lapsing.toml", "number = 6", "number = [", "lapsing.toml:"),
        (
            "campaigns/win_back.toml",
            '"lapsing"',
            '"lapsed"',
            "win_back.toml:5:18: there is no segment lapsed",
        ),
        ("campaigns/win_back.toml", '= "win_back"\ncool', '= "none"\ncool', "win_back.toml:8:13: template"),
        ("campaigns/post_purchase.toml", '"big_spenders"', '"big"', ":6:13: there is no segment big"),
        ("contact.toml", '"21:00"', '"21:30"', "contact.toml:4:15: quiet_from: '21:30' is not a full hour"),
        ("lanes.toml", "[lane.gmail]", "[lane.gmial]", ": no provider is called gmial; did you mean gmail?"),
    ],
)
def test_a_problem_is_told_where_it_stands(folder: Path, name: str, old: str, new: str, found: str) -> None:
    edit(folder / name, old, new)
    assert any(found in each for each in problems(folder)), problems(folder)


def test_all_problems_are_told_at_once_in_the_order_of_files(folder: Path) -> None:
    edit(folder / "contact.toml", '"21:00"', '"21:30"')
    edit(folder / "segments" / "lapsing.toml", ">= 504", ">= '504'")
    (folder / "sendtime.toml").unlink()
    (folder / "segments" / "big_spenders.toml").write_bytes(b"number = 1\nname = \xff")
    assert [each.split(": ")[0] for each in problems(folder)] == [
        "campaigns/post_purchase.toml:6:13",  # whose audience cannot be read
        "contact.toml:4:15",
        "segments/big_spenders.toml:2:1",
        "segments/lapsing.toml:4:34",
        "sendtime.toml:1:1",
    ]


def test_a_broken_template_is_told_at_the_campaign_that_uses_it(folder: Path) -> None:
    (folder / "templates" / "win_back" / "body.txt.j2").write_text("{{ nothing_of_the_kind }}")
    assert any(each.startswith("campaigns/win_back.toml:8:13: template") for each in problems(folder))


@pytest.mark.parametrize(
    ("load", "name"), [(policy_files.load_lanes, "lanes.toml"), (policy_files.load, "contact.toml")]
)
def test_who_loads_a_wrong_file_is_told_the_same(
    folder: Path, load: Callable[[Path], object], name: str
) -> None:
    (folder / name).write_text("nothing = 1\n")
    with pytest.raises(PolicyError, match=rf"{name}:1:11: nothing: not known here"):
        load(folder)


def test_the_command_prints_a_line_for_each_problem_and_fails(folder: Path) -> None:
    edit(folder / "contact.toml", '"21:00"', '"21:30"')
    done = CliRunner().invoke(app, ["policy", "check", str(folder)])
    assert done.exit_code == 1
    assert done.output.startswith(f"{folder}/contact.toml:4:15: quiet_from")


def test_the_command_shows_what_a_right_policy_says(folder: Path) -> None:
    done = CliRunner().invoke(app, ["policy", "check", str(folder)])
    assert done.exit_code == 0
    assert "hours_since_purchase >= 504" in done.output
    assert f"Nothing is wrong with policy {policy_files.load(folder).digest}." in done.output


def test_the_features_are_listed_with_their_meaning() -> None:
    done = CliRunner().invoke(app, ["policy", "features"])
    assert done.exit_code == 0
    for feature in FEATURES.values():
        assert feature.name in done.output


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == [f"{tmp_path / 'none'}:1:1: there is no such folder"]
