"""A policy folder checked as a whole, before anybody runs on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from models import segment_sql
from schemas import policy_files
from schemas.policy import Policy
from schemas.policy_files import Files, Problem
from schemas.profile import HOUR_MS
from streams.rendering import TemplateRefused, load_template

# A message goes in a full hour that begins after the decision and ends before the expiry.
_LEAST_EXPIRY_MS: Final = 2 * HOUR_MS
_FOLDERS: Final = ("segments", "campaigns", "templates")
_FILES: Final = ("contact.toml", "sendtime.toml", "lanes.toml", "providers.toml", "replies.toml")


def load(folder: Path) -> Policy:
    """Read what decides, as `schemas.policy_files.load`, and its SQL. Raises PolicyError."""
    files = policy_files.read_deciding(folder)
    files.problems += _expressions(files)
    return files.policy()


def check(folder: Path) -> Files:
    """Read a policy folder and look for everything that would stop a worker, or that nobody would notice.

    Those are wrong files and values, names of what is not there, SQL that may not be used, templates that do
    not compile, campaigns that can never send, and files that nobody reads. What is found is in `problems`,
    ordered by place.
    """
    files = policy_files.read(folder)
    if folder.is_dir():
        found = (*_expressions(files), *_expiries(files), *_templates(files, folder), *_unread(folder))
        files.problems += found
    files.problems.sort()
    return files


def _expressions(files: Files) -> Iterator[Problem]:
    for file in files.segments:
        for fault in segment_sql.lint(file.value.where):
            yield file.problem(("where",), f"where: {fault.text}", fault.line, fault.column)


def _expiries(files: Files) -> Iterator[Problem]:
    for file in files.campaigns:
        if file.value.timing == "best_hour" and file.value.expiry < _LEAST_EXPIRY_MS:
            yield file.problem(("expiry",), "expiry: no full hour may fit into it; 2 h is the least")


def _templates(files: Files, folder: Path) -> Iterator[Problem]:
    """What is wrong with templates, once each; one that is not there is told where a campaign names it."""
    there = {path.name for path in (folder / "templates").glob("*") if path.is_dir()}
    for file in files.campaigns:
        if file.value.template not in there:
            text = f"template: there is no folder templates/{file.value.template}"
            yield file.problem(("template",), text)
    for name in there:
        try:
            load_template(folder, name)
        except TemplateRefused as error:
            yield error.problem


def _unread(folder: Path) -> Iterator[Problem]:
    """Folders that are missing, and files that lie where nobody looks."""
    for name in _FOLDERS:
        if not (folder / name).is_dir():
            yield Problem(folder / name, 1, 1, "there is no such folder: then there are none at all")
    for path in folder.iterdir():
        if path.name not in (*_FOLDERS, *_FILES):
            known = f"{', '.join(_FOLDERS)}, {', '.join(_FILES)}"
            yield Problem(path, 1, 1, f"nobody reads this; there are {known}")
    for name in ("segments", "campaigns"):
        for path in (folder / name).glob("*"):
            if path.suffix != ".toml" or path.is_dir():
                yield Problem(path, 1, 1, "nobody reads this: files here end in .toml")
