"""What the mail sandbox answers: rules in `script.toml`, the first that matches wins.

    [[rule]]
    answer = "bounce"                   # accept, defer, bounce, slow or close
    text = "550 5.1.1 no such user"     # what defer and bounce say
    at = "rcpt"                         # at the recipient; without it, at the end of the message
    domain = "gone.example"             # only recipients of this domain
    share = 0.1                         # only this share of dispatches, always the same ones

    [[rule]]
    answer = "close"                    # hang up without a reply
    at = "after_store"                  # "rcpt", "data" (the message is lost) or "after_store"
    lane = "gmail.com"                  # only this lane; a header names it, so it is not known at "rcpt"
    first = 1                           # only so many first attempts of a dispatch

    [[rule]]
    answer = "slow"                     # stored, and accepted after
    seconds = 5

What no rule matches is accepted, and so is everything where there is no file.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Stage = Literal["rcpt", "data"]

TEXTS = {"defer": "451 4.7.1 try again later", "bounce": "550 5.7.1 refused"}
LINES = {"defer": re.compile(r"4\d\d [ -~]{1,500}"), "bounce": re.compile(r"5\d\d [ -~]{1,500}")}
PLACES = {"defer": ("rcpt", "data"), "bounce": ("rcpt", "data"), "close": ("rcpt", "data", "after_store")}


class ScriptError(ValueError):
    """The script is wrong; the message names the file, the rule and what would be right."""


class Rule(BaseModel):
    """One rule: what must hold, and what is answered then. `seconds` is how long `slow` waits."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    answer: Literal["accept", "defer", "bounce", "slow", "close"]
    at: Literal["rcpt", "data", "after_store"] | None = None
    text: str | None = None
    seconds: float | None = Field(None, gt=0, le=3600)
    domain: str | None = Field(None, min_length=1)
    lane: str | None = Field(None, min_length=1)
    share: float | None = Field(None, ge=0, le=1)
    first: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.at is not None and self.at not in PLACES.get(self.answer, ()):
            places = " or ".join(PLACES.get(self.answer, ("nothing",)))
            raise ValueError(f"at of {self.answer} is {places}, not {self.at}")
        if self.at == "rcpt" and self.lane is not None:
            raise ValueError("the lane is not known yet at the recipient: match on domain, or at the data")
        if (self.answer == "slow") != (self.seconds is not None):
            raise ValueError("slow, and only slow, needs seconds")
        if self.text is not None and self.answer not in TEXTS:
            raise ValueError(f"{self.answer} takes no text")
        if self.answer in TEXTS and not LINES[self.answer].fullmatch(self.reply):
            raise ValueError(f'text is one ASCII line such as "{TEXTS[self.answer]}", not {self.reply!r}')
        return self

    @property
    def reply(self) -> str:
        """What defer and bounce say; empty for the others."""
        return self.text if self.text is not None else TEXTS.get(self.answer, "")

    def decides_at(self, stage: Stage) -> bool:
        """Tell whether this rule is looked at there: one that accepts shields from those below at both."""
        if self.answer == "accept":
            return stage == "data" or self.lane is None
        return (stage == "rcpt") == (self.at == "rcpt")

    def matches(self, domain: str, lane: str | None, key: str, attempt: int) -> bool:
        """Tell whether all conditions hold; `key` is the dispatch id, `attempt` counts from 1."""
        return (
            (self.domain is None or self.domain.lower() == domain)
            and (self.lane is None or self.lane == lane)
            and (self.share is None or portion(key) < self.share)
            and (self.first is None or attempt <= self.first)
        )


ACCEPT = Rule(answer="accept")


def portion(key: str) -> float:
    """Return a number in [0, 1) that is always the same for `key`, and evenly spread over keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


class Script:
    """The rules of a file as it is now. Attempts are counted from the start of the process."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises
        ------
        ScriptError
            The file is wrong.
        """
        self._path = path
        self._attempts: Counter[tuple[Stage, str]] = Counter()
        self._version = self._seen()
        self._rules = read(path)

    def reload(self) -> None:
        """Read the file again if it changed since; a wrong one leaves the last good rules in force.

        Raises
        ------
        ScriptError
            The file is wrong; raised once for each change.
        """
        version = self._seen()
        if version != self._version:
            self._version = version
            self._rules = read(self._path)

    def answer(self, stage: Stage, *, domain: str, lane: str | None, key: str) -> Rule:
        """Return the rule that decides there, and count the attempt."""
        self._attempts[stage, key] += 1
        attempt = self._attempts[stage, key]
        deciding = (rule for rule in self._rules if rule.decides_at(stage))
        return next((rule for rule in deciding if rule.matches(domain, lane, key, attempt)), ACCEPT)

    def _seen(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        # Two changes within one tick of the clock differ in size or, when moved into place, in inode.
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read(path: Path) -> tuple[Rule, ...]:
    """Return the rules of `path`, none where there is no such file.

    Raises
    ------
    ScriptError
        It cannot be read, is not TOML, or a rule is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ScriptError(f"{path}: {error}") from error
    rules = document.pop("rule", [])
    if document or not isinstance(rules, list):
        raise ScriptError(f"{path}: write each rule as a table [[rule]], and nothing else")
    return tuple(_rule(values, f"{path}: rule {number}") for number, values in enumerate(rules, 1))


def _rule(values: object, where: str) -> Rule:
    try:
        return Rule.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'rule'}: {e['msg']}" for e in error.errors()]
        raise ScriptError(f"{where}: {'; '.join(lines)}") from error
