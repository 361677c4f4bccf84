"""Mails from templates: compiled once, rendered for each recipient, composed into a message.

A template is three files: `template.toml` (`version`, `subject`), `body.txt.j2` and `body.html.j2`. They may
use `attributes`, `recipient_id`, `campaign` and `unsubscribe_url`. What a recipient's attributes hold is only
ever data: it is never compiled, and is escaped in HTML.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import traceback
from binascii import b2a_qp
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import HeaderParseError, NonASCIILocalPartDefect
from email.headerregistry import Address
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.addresses import PLAIN_ADDRESS

META: Final = "template.toml"
TEXT: Final = "body.txt.j2"
HTML: Final = "body.html.j2"
VARIABLES: Final = ("attributes", "recipient_id", "campaign", "unsubscribe_url")
MOST_CHARACTERS: Final = 256 * 1024  # of text and of HTML each
LONGEST_RANGE: Final = 1000
MOST_STEPS: Final = 100_000  # turns of loops and calls of macros in a whole mail, about 0.1 s of them
# What works on the recipient's data alone: none of these chooses at random, makes markup of data, or makes
# much of little.
FILTERS: Final = (
    *("abs", "capitalize", "count", "d", "default", "e", "escape", "first", "float", "int", "join", "last"),
    *("length", "lower", "replace", "sort", "string", "striptags", "title", "trim", "truncate"),
    *("unique", "upper", "urlencode", "wordcount"),
)
_STEP: Final = "0step"  # no template can name it or give it away: a name there does not begin with a digit
_UNFIT_FOR_A_HEADER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HALF_CHARACTER: Final = re.compile(r"[\ud800-\udfff]")
_NOT_ONE_ADDRESS: Final = "this is not one address"


class TemplateError(ValueError):
    """A template is wrong, or cannot be rendered for this recipient.

    The message names the file, the line and the cause, and nothing of the recipient. `line` counts from 1; it
    is 0 where it is not about a line.
    """

    def __init__(self, file: str, line: int, cause: str) -> None:
        """Say where and why."""
        super().__init__(f"{file}:{line}: {cause}" if line else f"{file}: {cause}")
        self.file = file
        self.line = line
        self.cause = cause


@dataclass(frozen=True)
class Template:
    """A template that compiles. `digest` is the sha256, in hex, over version and sources."""

    name: str
    version: int
    subject: str
    text: str
    html: str
    digest: str
    compiled: Mapping[str, Compiled] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Rendered:
    """What a recipient is to read; it holds their data, so the repr shows none of it."""

    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)


class _NotAllowed(SecurityError):
    """What a template must not do, in words of our own: Jinja's may quote the recipient's data."""


class _Steps:
    """What the parts of one mail may still take of turns and calls, together."""

    def __init__(self) -> None:
        self._left = MOST_STEPS

    def __call__(self) -> bool:
        """Take one step; true, so that it can stand in a condition."""
        self._left -= 1
        if self._left < 0:
            raise _NotAllowed(f"more than {MOST_STEPS} turns of loops and calls of macros")
        return True


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without what reaches beyond the values given, or makes much of little."""

    # Memory: `"x" * 10**9`. Time: `9 ** 9 ** 9`.
    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=autoescape, keep_trailing_newline=True)
        self.trim_blocks = self.lstrip_blocks = True
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.globals = {"range": _range}

    def wrap_str_format(self, value: Any) -> None:  # noqa: ANN401 - jinja's signature
        """Give `str.format` no leave of its own, since `"{:>999999999}"` takes that many bytes."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ANN401 - jinja's signature
        """Allow methods of mappings and of loops; those of texts and numbers can take any memory."""
        return isinstance(obj, Mapping | LoopContext) and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - jinja's
        """Allow products of numbers only."""
        if operator == "*" and isinstance(left, int | float) and isinstance(right, int | float):
            return super().call_binop(context, operator, left, right)
        raise _NotAllowed(f"{operator} is for two numbers in *, and not allowed otherwise")


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise _NotAllowed(f"range of more than {LONGEST_RANGE} numbers")
    return numbers


_PLAIN: Final = _Sandbox(autoescape=False)
_MARKUP: Final = _Sandbox(autoescape=True)
_NOT_ALONE: Final = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
_ESCAPING: Final = (nodes.EvalContextModifier, nodes.ScopedEvalContextModifier)


def compile_template(name: str, files: Mapping[str, str]) -> Template:
    """Return the template of the texts of its files, by file name.

    Raises
    ------
    TemplateError
        A file is missing or unknown, does not parse, or names a variable or filter that there is not.
    """
    for file in sorted({META, TEXT, HTML} ^ files.keys()):
        cause = "a template has no such file: remove it" if file in files else "a template needs this file"
        raise TemplateError(file, 0, cause)
    version, subject = _meta(files[META])
    text, html = files[TEXT], files[HTML]
    at = next((n for n, line in enumerate(files[META].split("\n"), 1) if re.match(r"\s*subject\b", line)), 1)
    compiled = {
        META: _compiled(_PLAIN, META, subject, first_line=at),
        TEXT: _compiled(_PLAIN, TEXT, text),
        HTML: _compiled(_MARKUP, HTML, html),
    }
    digest = hashlib.sha256()
    for part in (str(version), subject, text, html):
        digest.update(f"{len(part)}:{part}".encode())
    return Template(name, version, subject, text, html, digest.hexdigest(), compiled)


def render(template: Template, context: Mapping[str, object]) -> Rendered:
    """Return the mail for one recipient; `context` holds the variables that the module's docstring names.

    Raises
    ------
    TemplateError
        A value is missing, the template does what is not allowed, the output or the work is too much, or the
        subject is empty or has a line break or another control character in it.
    """
    within = {**context, _STEP: _Steps()}
    subject, text, html = (_rendered(template, file, within) for file in (META, TEXT, HTML))
    subject = subject.strip(" ")
    if not subject or _UNFIT_FOR_A_HEADER.search(subject):
        raise TemplateError(
            META, 0, "the subject is empty" if not subject else "a control character in the subject"
        )
    return Rendered(subject, text, html)


def unsubscribe_link(unsubscribe_url: str, dispatch_id: str) -> str:
    """Return the address at which the recipient of this dispatch unsubscribes."""
    return f"{unsubscribe_url}?d={dispatch_id}"


def feedback_id(campaign: str, template: Template, purpose: str, sender_id: str) -> str:
    """Return the Feedback-ID, by each part of which Gmail counts complaints; the last says who sends.

    What stands in two places is counted as one, so the template goes with its version: many a template is
    called as its campaign is.
    """
    return f"{campaign}:{template.name}.v{template.version}:{purpose}:{sender_id}"


def compose(
    rendered: Rendered,
    *,
    dispatch_id: str,
    lane: str,
    campaign: str,
    sender: str,
    recipient_address: str,
    at: int,
    domain: str,
    unsubscribe_url: str,
    unsubscribe_mailto: str,
    feedback: str,
) -> bytes:
    """Return the message: text and HTML, with the headers of one-click unsubscription (RFC 8058).

    `at` is the Date, in UTC ms; `domain` that of the Message-ID; `feedback` is of `feedback_id`. The same
    input gives the same bytes.

    Raises
    ------
    TemplateError
        A header would have a line break or another control character in it, or an address is none.
    """
    one_click = unsubscribe_link(unsubscribe_url, dispatch_id)
    headers = {
        "From": sender,
        "To": recipient_address,
        "Subject": rendered.subject,
        "Date": format_datetime(datetime.fromtimestamp(at // 1000, UTC)),
        "Message-ID": f"<{dispatch_id}@{domain}>",
        "List-Unsubscribe": f"<mailto:{unsubscribe_mailto}?subject={dispatch_id}>, <{one_click}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Feedback-ID": feedback,
        "X-Opportune-Dispatch": dispatch_id,
        "X-Opportune-Lane": lane,
        "X-Opportune-Campaign": campaign,
    }
    policy = SMTP if (sender + recipient_address).isascii() else SMTPUTF8
    lines = [_header(policy, name, value) for name, value in headers.items()]
    boundary = f"=_{dispatch_id}".encode()
    parts = {b"plain": rendered.text, b"html": rendered.html}
    return b"".join(
        (
            *lines,
            _MULTIPART % boundary,
            *(_PART % (boundary, kind, _quoted_printable(text)) for kind, text in parts.items()),
            b"--%b--\r\n" % boundary,
        )
    )


# The standard library's EmailMessage makes the same in 2 ms; half of a second's mail would go into that.
_MULTIPART: Final = b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="%b"\r\n\r\n'
_PART: Final = (
    b'--%b\r\nContent-Type: text/%b; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    b"%b\r\n"
)
_LONGEST_LINE: Final = 78  # RFC 5322, 2.1.1


def _header(policy: EmailPolicy[Any], name: str, value: str) -> bytes:
    """A header as it goes over the wire; what would need to be quoted or encoded is, and long ones folded."""
    if _UNFIT_FOR_A_HEADER.search(value):
        raise TemplateError(name, 0, "a control character in this header")
    if name == "From":
        return _sender(policy, value)
    if name == "To" and not PLAIN_ADDRESS.fullmatch(value):
        _check_address(name, value)
    if name in ("List-Unsubscribe", "Feedback-ID"):
        # The library takes a word that does not fit into 78 characters for text and encodes it
        # (`=?utf-8?q?=3Chttps=3A//...`), and then no mailbox provider finds the URL or the id.
        return f"{name}: {value.replace(', ', f',{policy.linesep} ')}{policy.linesep}".encode()
    line = f"{name}: {value}"
    if value.isascii() and "=?" not in value and len(line) <= _LONGEST_LINE:
        return f"{line}{policy.linesep}".encode()
    return policy.fold_binary(name, policy.header_factory(name, value))


@lru_cache(64)
def _sender(policy: EmailPolicy[Any], value: str) -> bytes:
    _check_address("From", value)
    return policy.fold_binary("From", policy.header_factory("From", value))


def _quoted_printable(text: str) -> bytes:
    """A body that holds whatever a relay may do to long lines.

    It never contains "=_", and so no boundary.
    """
    lines = text.encode().splitlines() or [b""]
    return b2a_qp(b"\r\n".join((*lines, b"")))


def _check_address(header: str, value: str) -> None:
    try:
        found = SMTP.header_factory(header, value)
    except (IndexError, HeaderParseError) as error:  # the parser's own way to say so
        raise TemplateError(header, 0, _NOT_ONE_ADDRESS) from error
    defects = [d for d in found.defects if not isinstance(d, NonASCIILocalPartDefect)]
    addresses: tuple[Address, ...] = getattr(found, "addresses", ())
    if defects or len(addresses) != 1 or not (addresses[0].username and addresses[0].domain):
        raise TemplateError(header, 0, _NOT_ONE_ADDRESS)


def _meta(source: str) -> tuple[int, str]:
    try:
        values = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise TemplateError(META, int(line[1]) if line else 0, str(error)) from error
    match values:
        case {"version": int(version), "subject": str(subject)} if len(values) == 2 and version >= 1:
            return version, subject
    raise TemplateError(META, 0, 'it holds a version from 1 and a subject: version = 1, subject = "..."')


def _compiled(environment: _Sandbox, file: str, source: str, first_line: int = 1) -> Compiled:
    try:
        tree = environment.parse(source)
        known = {*VARIABLES, *_own(tree)}
        for node in tree.find_all((*_NOT_ALONE, *_ESCAPING, nodes.Name)):
            if cause := _refused(node, known):
                raise TemplateError(file, node.lineno + first_line - 1, cause)
        _count_steps(tree)
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        cause = error.message or type(error).__name__
        raise TemplateError(file, error.lineno + first_line - 1, cause) from error


def _refused(node: nodes.Node, known: set[str]) -> str:
    """Return why a template may not hold this node; empty if it may."""
    if isinstance(node, _NOT_ALONE):
        return "a template stands alone: no include, import or extends"
    if isinstance(node, _ESCAPING):
        return "what is escaped is not for a template to say: no autoescape"
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name not in known:
        return f"unknown variable {node.name}; known are {', '.join(VARIABLES)}"
    return ""


def _count_steps(tree: nodes.Template) -> None:
    """Have every turn of a loop and every call of a macro take a step.

    A loop with a condition takes it there: the turns that the condition leaves out are work as well.
    """
    taking: list[nodes.For | nodes.Macro] = [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro)]
    for node in taking:
        step = nodes.Call(nodes.Name(_STEP, "load"), [], [], None, None)
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(step, node.test)
        else:
            node.body.insert(0, nodes.ExprStmt(step))
        node.set_lineno(node.lineno)


def _own(tree: nodes.Template) -> set[str]:
    """Names that the template itself gives, or that Jinja does."""
    given = {node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param")}
    macros = {node.name for node in tree.find_all(nodes.Macro)}
    return given | macros | {"range", "loop"}


def _rendered(template: Template, file: str, context: Mapping[str, object]) -> str:
    # Taken piece by piece, so that what is too long is never there as a whole.
    pieces, length = [], 0
    try:
        for piece in template.compiled[file].generate(context):
            length += len(piece)
            if length > MOST_CHARACTERS:
                raise TemplateError(file, 0, f"the output has more than {MOST_CHARACTERS} characters")
            pieces.append(piece)
    except TemplateError:
        raise
    except Exception as error:
        raise TemplateError(file, _line(file, error), _cause(error)) from None
    output = "".join(pieces)
    if _HALF_CHARACTER.search(output):
        raise TemplateError(file, 0, "half a character (a lone surrogate) in this recipient's data")
    return output


def _cause(error: Exception) -> str:
    """Say what a template did wrong in words of our own: the error's may quote a value, even as a name."""
    if isinstance(error, UndefinedError):
        return "a value is missing: give it a default, or write it into what is imported"
    if isinstance(error, _NotAllowed):
        return str(error)
    if isinstance(error, SecurityError):
        return "a template may not reach this"
    return f"{type(error).__name__} with this recipient's data"


def _line(file: str, error: Exception) -> int:
    if file == META:
        return 0  # the subject is a line of it, and Jinja sees that line alone
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == "<template>"), 0)
