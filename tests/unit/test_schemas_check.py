"""`opportune schemas check` finds what would break readers, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.check import RELEASED, check, versioned
from schemas.codec import FOLDER

CLICKS = "behaviour.clicks"
Change = Callable[[dict[str, Any]], None]


class Files:
    """A copy of the schema files, to spoil; of clicks the first version only."""

    def __init__(self, root: Path) -> None:
        self.folder, self.released = root / "avro", root / "released"
        shutil.copytree(FOLDER, self.folder)
        shutil.copytree(RELEASED, self.released)
        for folder in (self.folder, self.released):
            (folder / f"{CLICKS}.v2.avsc").unlink()
        ids = self.folder / "ids.toml"
        ids.write_text(ids.read_text().replace(f'20 = "{CLICKS}.v2"\n', ""))

    def check(self) -> list[str]:
        return check(self.folder, self.released)

    def edit(self, change: Change, source: str = CLICKS, target: str = CLICKS) -> None:
        schema = json.loads((self.folder / f"{source}.avsc").read_text())
        change(schema)
        (self.folder / f"{target}.avsc").write_text(json.dumps(schema))

    def number(self, number: int, stem: str) -> None:
        with (self.folder / "ids.toml").open("a") as file:
            file.write(f'{number} = "{stem}"\n')


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in schema["fields"] if each["name"] == name)


def add_field(schema: dict[str, Any], **more: Any) -> None:
    schema["fields"].append({"name": "brand_new", "type": "int", "doc": "Something.", **more})


def test_the_schemas_of_this_repository_are_in_order() -> None:
    assert check() == []


def test_every_released_schema_has_its_version_in_its_name() -> None:
    assert versioned("behaviour.clicks") == "behaviour.clicks.v1"
    assert versioned("behaviour.clicks.v2") == "behaviour.clicks.v2"
    assert all(versioned(path.stem) == path.stem for path in RELEASED.glob("*.avsc"))


def test_a_released_file_that_was_edited_wants_a_new_id(files: Files) -> None:
    files.edit(lambda schema: add_field(schema, default=0))

    [problem] = files.check()

    assert "behaviour.clicks.avsc differs from what was released under id 4" in problem
    assert "add a new id for behaviour.clicks.v2 at the end of ids.toml" in problem


def test_a_mended_doc_needs_no_new_id(files: Files) -> None:
    files.edit(lambda schema: field(schema, "kind").update(doc="Better said."))

    assert files.check() == []


def test_a_new_version_that_reads_the_old_one_is_fine(files: Files) -> None:
    files.edit(lambda schema: add_field(schema, default=0), target=f"{CLICKS}.v2")
    files.number(99, f"{CLICKS}.v2")

    assert files.check() == []


def retype(schema: dict[str, Any]) -> None:
    field(schema, "occurred_at")["type"] = "string"


def lose_a_kind(schema: dict[str, Any]) -> None:
    field(schema, "kind")["type"]["symbols"].remove("scroll")


def lose_a_branch(schema: dict[str, Any]) -> None:
    field(schema, "event_id")["type"] = "string"
    del field(schema, "event_id")["default"]


@pytest.mark.parametrize("change", [add_field, retype, lose_a_kind, lose_a_branch])
def test_a_new_version_that_cannot_read_the_old_one_is_a_problem(files: Files, change: Change) -> None:
    files.edit(change, target=f"{CLICKS}.v2")
    files.number(99, f"{CLICKS}.v2")

    [problem] = files.check()

    assert problem.startswith("behaviour.clicks.v2.avsc cannot read what behaviour.clicks.v1 wrote")
    assert "needs a default" in problem


def test_every_released_version_must_be_readable_not_only_the_latest(files: Files) -> None:
    files.edit(lambda schema: add_field(schema, default=0), target=f"{CLICKS}.v2")
    files.number(99, f"{CLICKS}.v2")
    shutil.copy(files.folder / f"{CLICKS}.v2.avsc", files.released)
    files.edit(add_field, target=f"{CLICKS}.v3")
    files.number(100, f"{CLICKS}.v3")

    assert [problem.partition(":")[0] for problem in files.check()] == [
        "behaviour.clicks.v3.avsc cannot read what behaviour.clicks.v1 wrote"
    ]


def test_a_field_without_a_doc_is_a_problem_at_any_depth(files: Files) -> None:
    def silence(schema: dict[str, Any]) -> None:
        decision = field(schema, "body")["type"][0]
        gates = next(each for each in decision["fields"] if each["name"] == "gates")
        gates["type"]["items"]["fields"][2]["doc"] = " "
        del schema["fields"][0]["doc"]

    files.edit(silence, "audit.records", "audit.records")

    assert files.check() == [
        "audit.records.avsc: field recipient_id has no doc; say what it means, and its unit",
        "audit.records.avsc: field body.gates.detail has no doc; say what it means, and its unit",
    ]


def test_a_topic_without_a_schema_is_a_problem(files: Files) -> None:
    text = (files.folder / "ids.toml").read_text()
    (files.folder / "ids.toml").write_text(text.replace('4 = "behaviour.clicks"\n', ""))

    problems = "\n".join(files.check())

    assert "behaviour.clicks has no schema id" in problems
    assert "behaviour.clicks.avsc has no id" in problems
    assert "released/behaviour.clicks.v1.avsc has no id any more" in problems


def test_an_id_without_a_file_is_a_problem(files: Files) -> None:
    (files.folder / f"{CLICKS}.avsc").unlink()

    assert files.check() == [
        "id 4 names behaviour.clicks.avsc, which is missing; an id stays for ever, restore the file"
    ]


def test_an_id_of_an_unknown_topic_is_a_problem(files: Files) -> None:
    (files.folder / "weather.reports.avsc").write_text((files.folder / f"{CLICKS}.avsc").read_text())
    files.number(99, "weather.reports")

    [problem] = files.check()

    assert "id 99 is of weather.reports, which is no topic with a schema" in problem


def test_two_ids_of_one_file_are_a_problem(files: Files) -> None:
    files.number(99, CLICKS)

    assert "behaviour.clicks has ids 4, 99; a file has one id" in files.check()


def test_a_later_version_with_a_lower_id_is_a_problem(files: Files) -> None:
    files.edit(lambda schema: None, target=f"{CLICKS}.v2")
    files.number(0, f"{CLICKS}.v2")

    assert any("a later version has a lower id" in problem for problem in files.check())


def test_a_file_that_is_no_schema_is_a_problem(files: Files) -> None:
    (files.folder / f"{CLICKS}.avsc").write_text('{"type": "record"}')

    [problem] = files.check()

    assert problem.startswith("avro/behaviour.clicks.avsc is no Avro schema")
