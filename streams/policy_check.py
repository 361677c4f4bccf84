"""A policy folder checked as a whole, before anybody runs on it."""

from collections.abc import Iterator
from pathlib import Path

from models import segment_sql
from schemas import policy_files
from schemas.policy import PolicyError
from schemas.policy_files import Files, Problem
from streams.rendering import load_template


def check(folder: Path) -> Files:
    """Read a policy folder and look for everything that would stop a worker, or that nobody would notice.

    Those are wrong files and values, names of what is not there, SQL that may not be used, and templates that
    do not compile. What is found is in `problems`, ordered by place.
    """
    files = policy_files.read(folder)
    files.problems = sorted([*files.problems, *_expressions(files), *_templates(files, folder)])
    return files


def _expressions(files: Files) -> Iterator[Problem]:
    for file in files.segments:
        for fault in segment_sql.lint(file.value.where):
            yield file.problem(("where",), f"where: {fault.text}", fault.line, fault.column)


def _templates(files: Files, folder: Path) -> Iterator[Problem]:
    for file in files.campaigns:
        try:
            load_template(folder, file.value.template)
        except PolicyError as error:
            yield file.problem(("template",), str(error))
