"""Rules by which a server's reply is read: what it says of the lane, and when to try again."""

import re
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.policy import Strict
from schemas.routes import LaneName
from schemas.units import Span

Action = Literal["slow", "suspend", "message"]


def _pattern(text: str) -> str:
    try:
        found = re.compile(text).search("")
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    if found is not None:
        raise ValueError(f"{text!r} is found in every text")
    return text


class ReplyRule(Strict):
    """What is done where a reply matches everything that is given here."""

    provider: str | None = Field(None, min_length=1, description="Of this one only, as in providers.toml.")
    code: int | None = Field(None, ge=400, le=599, description="The reply's code.")
    text: Annotated[str, AfterValidator(_pattern)] | None = Field(
        None, min_length=1, description="Regular expression, found anywhere in the reply, in any case."
    )
    action: Action = Field(
        description="slow: the lane goes at half its pace; suspend: it stops for a while; message: it is the "
        "fault of this one alone."
    )
    pause: Span | None = Field(
        None, description="So long the lane stops, or, of `message`, until it is tried again at the least."
    )
    source: str = Field(min_length=1, description="Who says so.")

    @model_validator(mode="after")
    def _of_some(self) -> Self:
        if self.provider is None and self.code is None and self.text is None:
            raise ValueError("it would match every refusal: give a provider, a code or a text")
        if self.action == "slow" and self.pause is not None:
            raise ValueError('pause: a lane that stops is not slow; write action = "suspend"')
        return self

    @cached_property
    def _found(self) -> re.Pattern[str] | None:
        return None if self.text is None else re.compile(self.text, re.IGNORECASE)

    def matches(self, provider: str, code: int | None, text: str) -> bool:
        """Whether a reply is one of these."""
        return (
            self.provider in (None, provider)
            and self.code in (None, code)
            and (self._found is None or self._found.search(text) is not None)
        )


class Replies(Strict):
    """Rules in their order: the first that matches counts."""

    rule: tuple[ReplyRule, ...] = ()

    def of(self, lane: str, code: int | None, text: str) -> ReplyRule | None:
        """The rule for a refusal on a lane; None where none matches."""
        provider = LaneName.of(lane).provider
        return next((rule for rule in self.rule if rule.matches(provider, code, text)), None)


NO_RULES: Final = Replies()
