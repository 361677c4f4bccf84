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
from streams.cli.main import application
from streams.policy_check import check, load

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
        (
            "segments/lapsing.toml",
            "number = 6",
            "number = 3",
            "lapsing.toml:1:10: number 3 is that of segment",
        ),
        ("segments/lapsing.toml", "doc =", "docs =", "lapsing.toml:3:1: docs: not known here; did you mean"),
        ("segments/lapsing.toml", "number = 6", "number = [", "lapsing.toml:"),
        (
            "campaigns/win_back.toml",
            '"lapsing"',
            '"lapsed"',
            "win_back.toml:5:18: there is no segment lapsed",
        ),
        (
            "campaigns/win_back.toml",
            '= "win_back"\ncool',
            '= "none"\ncool',
            "win_back.toml:8:13: template: there is no folder",
        ),
        ("campaigns/post_purchase.toml", '"big_spenders"', '"big"', ":6:13: there is no segment big"),
        (
            "contact.toml",
            '"21:00"',
            '"21:30"',
            ":27:21: quiet.default.from: '21:30' is not a full hour",
        ),
        (
            "contact.toml",
            '"UTC"',
            '"Mars/X"',
            ":2:17: default_zone: 'Mars/X' is no IANA time zone",
        ),
        (
            "contact.toml",
            "default = {",
            "Germany = {",
            ":27:1: quiet.Germany: 'Germany' is no place; write a country (DE)",
        ),
        (
            "contact.toml",
            '"not_needed"',
            '"opt_in"',
            ":10:2: purpose: nobody can consent to transactional",
        ),
        (
            "contact.toml",
            "[[cap]]",
            '[[cap]]\nmost = 2\nwindow = "16 h"\n\n[[cap]]',
            ":20:3: cap: the cap of 2 in 16 h is never reached: that of 1 in 16 h holds before it",
        ),
        ("contact.toml", "[[cap]]", "[cap]", ":20:2: cap: write [[cap]], a table for each"),
        ("contact.toml", '["mail"]', '"mail"', ':21:13: cap.0.purposes: write a list: purposes = ["…"]'),
        (
            "contact.toml",
            "hold_out = 0.0",
            'quiet_from = "21:00"',
            ":8:1: quiet_from: write [quiet] default = {",
        ),
        (
            "contact.toml",
            'purposes = ["mail"]\nmost = 1',
            'purposes = ["mail", "transactional"]\nmost = 7',
            "than a row remembers: 6 is the most where caps count 2 purposes",
        ),
        (
            "contact.toml",
            "[purpose.mail]",
            "[purpose.advertising]",
            ":10:2: purpose.advertising: ",
        ),
        (
            "campaigns/win_back.toml",
            'purpose = "mail"',
            'purpose = "mail"\narms = { control = 0.6, hold_out = 0.5 }',
            "win_back.toml:7:8: arms: the arms' shares exceed 1",
        ),
        ("providers.toml", '"ymail.com"', '"gmail.com"', "gmail.com stands twice; a domain has one provider"),
        ("providers.toml", '"ymail.com"', '"Ymail.com"', "providers.toml:5:9: provider.yahoo"),
        ("campaigns/win_back.toml", '"72 h"', '"1 h"', "win_back.toml:10:11: expiry: no full hour may fit"),
        ("campaigns/win_back.toml", '"30 days"', '"3000000 days"', "cooldown: '3000000 days' is longer than"),
        ("campaigns/win_back.toml", "number = 2", 'number = "2"', "win_back.toml:1:11: number: "),
        ("campaigns/win_back.toml", '= "win_back"\ncool', '= "../x"\ncool', "win_back.toml:8:13: template: "),
        (
            "lanes.toml",
            "[lane.gmail]",
            "[lane.gmial]",
            ":2: no provider is called gmial; did you mean gmail?",
        ),
        (
            "replies.toml",
            '"outlook"\ntext = "RP',
            '"outlok"\ntext = "RP',
            ": no provider is called outlok; did you",
        ),
        ("replies.toml", "\\\\[BL", "[BL(", "rule.6.text: "),
        ("replies.toml", 'text = "grey-?list|gray-?list"', "", "it would match every refusal"),
        ("replies.toml", "grey-?list|", "|", "is found in every text"),
        (
            "replies.toml",
            'throttled"\naction = "slow"',
            'throttled"\naction = "slow"\npause = "1 h"',
            "a lane that stops is not slow",
        ),
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
        "contact.toml:27:21",
        "segments/big_spenders.toml:2:1",
        "segments/lapsing.toml:4:34",
        "sendtime.toml:1:1",
    ]


def test_a_broken_template_is_told_where_it_is_broken(folder: Path) -> None:
    (folder / "templates" / "win_back" / "body.txt.j2").write_text("{{ nothing_of_the_kind }}")
    (folder / "templates" / "post_purchase" / "body.html.j2").write_bytes(b"Gr\xfc\xdfe")
    [undecoded, unknown] = problems(folder)
    assert undecoded.startswith("templates/post_purchase:1:1: a file is not UTF-8")
    assert unknown.startswith("templates/win_back/body.txt.j2:1:1: ")


@pytest.mark.parametrize(
    ("read", "name"), [(policy_files.load_lanes, "lanes.toml"), (policy_files.load, "contact.toml")]
)
def test_who_loads_a_wrong_file_is_told_the_same(
    folder: Path, read: Callable[[Path], object], name: str
) -> None:
    (folder / name).write_text("nothing = 1\n")
    with pytest.raises(PolicyError, match=rf"{name}:1:1: nothing: not known here"):
        read(folder)


def test_lines_and_columns_are_those_of_an_editor(folder: Path) -> None:
    """Line ends of Windows, and letters of more than one byte."""
    path = folder / "segments" / "lapsing.toml"
    lines = [
        "number = 6",
        'name = "lapsing"',
        'doc = "x"',
        'where = """',
        "views_7d > 1",
        ' AND view_7d > 1"""',
    ]
    path.write_bytes("\r\n".join(lines).encode())
    edit(folder / "campaigns" / "win_back.toml", 'trigger.enter = "lapsing"', 'trigger = {"\xe9" = 1}')
    assert problems(folder) == [
        "campaigns/win_back.toml:5:12: trigger.\xe9: not known here",
        "segments/lapsing.toml:6:6: where: there is no feature view_7d; did you mean views_7d?",
    ]


def test_what_nobody_reads_is_told(folder: Path) -> None:
    (folder / "segments" / "more.tml").write_text("")
    (folder / "campaigns").rename(folder / "campaign")
    assert [each.split(": ")[0] for each in problems(folder)] == [
        "campaign:1:1",
        "campaigns:1:1",
        "segments/more.tml:1:1",
    ]


def test_a_worker_refuses_with_the_same_lines(folder: Path) -> None:
    edit(folder / "segments" / "lapsing.toml", ">= 504", ">= '504'")
    with pytest.raises(PolicyError) as refused:
        load(folder)
    assert str(refused.value).splitlines() == [str(each) for each in check(folder).problems]


def test_the_command_prints_a_line_for_each_problem_and_fails(folder: Path) -> None:
    edit(folder / "contact.toml", '"21:00"', '"21:30"')
    done = CliRunner().invoke(application("policy"), ["policy", "check", str(folder)])
    assert done.exit_code == 1
    assert done.output.startswith(f"{folder}/contact.toml:27:21: quiet.default.from")


def test_the_command_shows_what_a_right_policy_says(folder: Path) -> None:
    done = CliRunner().invoke(application("policy"), ["policy", "check", str(folder)])
    assert done.exit_code == 0
    assert "hours_since_purchase >= 504" in done.output
    assert f"policy {policy_files.load(folder).digest}." in done.output


def test_the_features_are_listed_with_their_meaning() -> None:
    done = CliRunner().invoke(application("policy"), ["policy", "features"])
    assert done.exit_code == 0
    for feature in FEATURES.values():
        assert feature.name in done.output


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == [f"{tmp_path / 'none'}:1:1: there is no such folder"]
