"""Templates: what compiles, what they may not do, and the message that is made of them."""

import email
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest

from models.templates import (
    HTML,
    META,
    MOST_CHARACTERS,
    MOST_STEPS,
    TEXT,
    Rendered,
    TemplateError,
    compile_template,
    compose,
    feedback_id,
    render,
    unsubscribe_link,
)
from schemas import policy_files

PACKAGED = Path(policy_files.__file__).parents[1] / "infra" / "policy"
DISPATCH = "7a0e3b0e-7f0a-5f0e-9f0a-0123456789ab"
CONTEXT: dict[str, Any] = {
    "attributes": {"first_name": "Jane", "tags": ["a", "b"]},
    "recipient_id": "r-1",
    "campaign": "win_back",
    "unsubscribe_url": f"https://opportune.example/unsubscribe?d={DISPATCH}",
}
COMPOSED: dict[str, Any] = {
    "dispatch_id": DISPATCH,
    "lane": "gmail",
    "campaign": "win_back",
    "sender": "Opportune <hello@opportune.example>",
    "recipient_address": "jane@mail.example",
    "at": 1_795_545_660_039,
    "domain": "opportune.example",
    "unsubscribe_url": "https://opportune.example/unsubscribe",
    "unsubscribe_mailto": "unsubscribe@opportune.example",
    "feedback": "win_back:win_back.v1:mail:opportune.examp",
}
RENDERED = Rendered("Hello Jane", "Hello\n", "<p>Hello</p>\n")


def files(subject: str = "Hello", text: str = "Hello\n", html: str = "<p>Hello</p>\n") -> dict[str, str]:
    return {META: f"version = 1\nsubject = '''{subject}'''\n", TEXT: text, HTML: html}


def rendered(attributes: dict[str, Any] | None = None, **sources: str) -> Rendered:
    context = CONTEXT if attributes is None else CONTEXT | {"attributes": attributes}
    return render(compile_template("test", files(**sources)), context)


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


@pytest.mark.parametrize("attributes", [{}, {"first_name": ""}, {"first_name": "Jane"}])
def test_every_packaged_campaign_has_a_template_that_renders(attributes: dict[str, str]) -> None:
    for campaign in policy_files.load(PACKAGED).campaigns:
        folder = PACKAGED / "templates" / campaign.template
        template = compile_template(campaign.template, {p.name: p.read_text() for p in folder.iterdir()})
        mail = render(template, CONTEXT | {"attributes": attributes})

        greeting = f"Hello {attributes.get('first_name') or 'there'},"
        assert greeting in mail.text
        assert greeting in mail.html
        assert CONTEXT["unsubscribe_url"] in mail.text
        assert f'href="{CONTEXT["unsubscribe_url"]}"' in mail.html
        assert '<html lang="en">' in mail.html
        assert "<img" not in mail.html


def test_data_is_escaped_in_html_and_nowhere_else() -> None:
    source = "{{ attributes.first_name }}"
    mail = rendered({"first_name": "<b>&"}, subject=source, text=source, html=source)

    assert (mail.subject, mail.text, mail.html) == ("<b>&", "<b>&", "&lt;b&gt;&amp;")


def test_data_never_becomes_source() -> None:
    mail = rendered({"first_name": "{{ recipient_id }}"}, text="{{ attributes.first_name }}")

    assert mail.text == "{{ recipient_id }}"


def test_a_missing_attribute_is_refused_where_it_stands_unless_there_is_a_default() -> None:
    assert rendered({}, text="{{ attributes.first_name | default('there') }}").text == "there"
    assert rendered({}, text="{{ attributes.get('first_name', 'there') }}").text == "there"
    with pytest.raises(TemplateError, match=r"body\.txt\.j2:2: a value is missing"):
        rendered({}, text="Hello\n{{ attributes.first_name }}\n")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ attributes.__class__ }}",
        "{{ attributes['__class__'] }}",
        "{{ attributes.get.__self__ }}",
        "{{ attributes.first_name.__class__.__mro__ }}",
        "{{ (1).__class__.__base__.__subclasses__() }}",
        "{{ ''.format(attributes) }}",
        "{{ '{0.__class__}'.format(attributes) }}",
        "{{ attributes.first_name.encode() }}",
        "{{ (5).to_bytes(1000000000, 'big') }}",
        "{{ attributes.update({'a': 1}) }}",
        "{{ attributes.tags.append('c') }}",
        "{{ range(1000000) | length }}",
        "{% for i in range(100000) %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ attributes.first_name / 2 }}",
        "{% for a in range(1000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) if false %}{% endfor %}{% endfor %}",
        "{% for a in range(1000) recursive %}{{ loop(range(1000)) if loop.depth < 4 }}{% endfor %}",
        "{% macro twice(n) %}{{ twice(n - 1) ~ twice(n - 1) if n }}{% endmacro %}{{ twice(30) }}",
    ],
)
def test_a_template_reaches_nothing_but_its_values_and_takes_no_more_than_its_share(attack: str) -> None:
    given = {"first_name": "Jane", "tags": ["a", "b"]}
    with pytest.raises(TemplateError):
        rendered(given, html=attack)
    assert given == {"first_name": "Jane", "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("\n\n{{ user }}", r"body\.html\.j2:3: unknown variable user; known are attributes, "),
        ("\n{% if %}", r"body\.html\.j2:2: "),
        ("{{ 'a' | random }}", r"body\.html\.j2:1: No filter named 'random'"),
        ("{{ attributes.first_name | safe }}", r"body\.html\.j2:1: No filter named 'safe'"),
        ("{{ lipsum() }}", r"unknown variable lipsum"),
        ("\n{% include 'other' %}", r"body\.html\.j2:2: a template stands alone"),
        ("{% extends 'other' %}", r"a template stands alone"),
        ("{% import 'other' as o %}", r"a template stands alone"),
        ("{% autoescape false %}{{ attributes.first_name }}{% endautoescape %}", r"no autoescape"),
    ],
)
def test_a_wrong_source_does_not_compile_and_the_error_says_where_and_why(source: str, cause: str) -> None:
    with pytest.raises(TemplateError, match=cause):
        compile_template("test", files(html=source))


def test_an_error_in_the_subject_names_its_line_in_the_toml() -> None:
    with pytest.raises(TemplateError, match=r"template\.toml:2: unknown variable user"):
        compile_template("test", files(subject="{{ user }}"))


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({META: "version = 1\nsubject = x\n"}, r"template\.toml:2: "),
        ({META: "version = 0\nsubject = 'x'"}, "it holds a version from 1 and a subject"),
        ({META: "version = 1\nsubject = 'x'\nfrom = 'me'"}, "it holds a version from 1 and a subject"),
        ({"body.md": "hello"}, r"body\.md: a template has no such file"),
    ],
)
def test_a_wrong_set_of_files_is_refused(changed: dict[str, str], cause: str) -> None:
    with pytest.raises(TemplateError, match=cause):
        compile_template("test", files() | changed)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"body\.txt\.j2: a template needs this file"):
        compile_template("test", {name: text for name, text in files().items() if name != TEXT})


def test_the_digest_changes_with_every_part_and_only_then() -> None:
    digests = [
        compile_template("a", changed).digest
        for changed in (
            files(),
            files(subject="Bye"),
            files(text="Bye\n"),
            files(html="Bye\n"),
            files() | {META: files()[META].replace("1", "2")},
        )
    ]

    assert len(set(digests)) == 5
    assert compile_template("b", files()).digest == digests[0]


@pytest.mark.parametrize("value", ["a\r\nBcc: x@y.example", "a\nb", "a\x00", "a\x85b", "a\u2028b", "\ud800"])
def test_a_control_character_in_the_subject_is_refused_and_not_quoted(value: str) -> None:
    with pytest.raises(TemplateError) as refused:
        rendered({"first_name": value}, subject="Hello {{ attributes.first_name }}")
    assert "Bcc" not in str(refused.value)


def test_an_empty_subject_is_refused() -> None:
    with pytest.raises(TemplateError, match="the subject is empty"):
        rendered({"first_name": ""}, subject="{{ attributes.first_name }}")


def test_output_of_the_longest_allowed_size_renders_and_one_more_character_does_not() -> None:
    longest = "x" * MOST_CHARACTERS
    assert rendered({"first_name": longest}, text="{{ attributes.first_name }}").text == longest
    with pytest.raises(TemplateError, match="more than 262144 characters"):
        rendered({"first_name": longest}, text="{{ attributes.first_name }}.")


def test_an_error_with_a_value_does_not_quote_the_value() -> None:
    with pytest.raises(TemplateError, match="with this recipient's data") as refused:
        rendered({"first_name": "jane@mail.example"}, text="{{ attributes.first_name + 1 }}")
    assert "jane" not in str(refused.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ attributes[attributes.city] }}",
        "{{ {}[attributes.city] }}",
        "{{ attributes.get[attributes.city] }}",
        "{{ attributes[attributes.hidden] }}",
        "{{ attributes.city[attributes.city] }}",
    ],
)
def test_an_error_with_a_value_as_a_name_does_not_quote_the_value(source: str) -> None:
    with pytest.raises(TemplateError, match=r"^body\.txt\.j2:2: ") as refused:
        rendered({"city": "alice@example.org", "hidden": "__alice__"}, text=f"Hello\n{source}\n")
    assert "alice" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__, "a traceback would show jinja's error"


def test_the_parts_of_a_mail_share_one_budget_of_turns_and_the_next_mail_has_its_own() -> None:
    loop = (
        f"{{% for a in range({MOST_STEPS // 200}) %}}{{% for b in range(99) %}}{{% endfor %}}{{% endfor %}}x"
    )
    template = compile_template("test", files(text=loop, html=loop))

    assert [render(template, CONTEXT).html for _ in range(2)] == ["x", "x"]
    with pytest.raises(TemplateError, match=r"body\.html\.j2:1: more than 100000 turns of loops"):
        rendered(text=loop, html=loop + "{% for a in range(1000) %}{{ a }}{% endfor %}")


def test_loops_with_conditions_and_else_and_macros_work_as_ever() -> None:
    source = (
        "{% macro em(x) %}*{{ x }}*{% endmacro %}"
        "{% for tag in attributes.tags if tag != 'a' %}"
        "{{ loop.index }}/{{ loop.length }}{{ em(tag) }}{% endfor %}"
        "{% for tag in [] %}{{ tag }}{% else %}none{% endfor %}"
    )
    assert rendered(text=source).text == "1/1*b*none"


def test_a_rendered_mail_shows_nothing_of_the_recipient_in_its_repr() -> None:
    assert "Jane" not in repr(rendered(text="{{ attributes.first_name }}"))


def test_the_same_input_gives_the_same_bytes() -> None:
    assert compose(RENDERED, **COMPOSED) == compose(RENDERED, **COMPOSED)


def test_a_message_has_text_and_html_and_the_headers_that_providers_ask_for() -> None:
    message = parsed(compose(RENDERED, **COMPOSED))

    assert message.get_content_type() == "multipart/alternative"
    assert (body(message, "plain"), body(message, "html")) == ("Hello\n", "<p>Hello</p>\n")
    assert message["Message-ID"] == f"<{DISPATCH}@opportune.example>"
    assert message["Date"] == "Tue, 24 Nov 2026 18:41:00 +0000"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert (message["X-Opportune-Dispatch"], message["X-Opportune-Lane"]) == (DISPATCH, "gmail")
    assert message["Auto-Submitted"] is None
    assert message.defects == []


def test_the_urls_of_list_unsubscribe_stand_in_the_bytes_as_they_are() -> None:
    content = compose(RENDERED, **COMPOSED)

    link = unsubscribe_link(COMPOSED["unsubscribe_url"], DISPATCH)
    mailto = f"mailto:unsubscribe@opportune.example?subject={DISPATCH}"
    assert f"List-Unsubscribe: <{mailto}>,\r\n <{link}>\r\n".encode() in content


def test_complaints_are_counted_by_names_of_which_none_stands_twice_and_none_is_a_persons() -> None:
    template = compile_template("win_back", files())

    assert feedback_id("win_back", template, "mail", "shop1") == "win_back:win_back.v1:mail:shop1"


def test_a_long_feedback_id_stands_in_the_bytes_as_it_is() -> None:
    longest = f"{'c' * 63}:{'t' * 63}.v1:transactional:opportune.examp"
    content = compose(RENDERED, **COMPOSED | {"feedback": longest})

    assert f"\r\nFeedback-ID: {longest}\r\n".encode() in content


def test_all_lines_are_short_ascii_whatever_the_mail_says() -> None:
    subject = ("Grüße " * 30).strip()
    content = compose(Rendered(subject, "ü" * 3000, "<p>" + "x" * 3000 + "</p>"), **COMPOSED)

    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) < 200
    assert body(parsed(content), "plain").strip() == "ü" * 3000
    assert parsed(content)["Subject"] == subject


def test_a_body_cannot_end_its_own_part() -> None:
    forged = f"\r\n--=_{DISPATCH}--\r\n\r\nBcc: x@y.example\r\n"
    message = parsed(compose(Rendered("Hello", forged, "<p>Hello</p>"), **COMPOSED))

    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert f"--=_{DISPATCH}--" in body(message, "plain")


@pytest.mark.parametrize(
    "name", ["recipient_address", "sender", "lane", "campaign", "unsubscribe_url", "domain", "feedback"]
)
def test_a_line_break_in_any_header_is_refused_and_not_quoted(name: str) -> None:
    with pytest.raises(TemplateError, match="control character") as refused:
        compose(RENDERED, **COMPOSED | {name: f"{COMPOSED[name]}\r\nBcc: x@y.example"})
    assert "x@y" not in str(refused.value)


@pytest.mark.parametrize("address", ["", "jane", "jane@", "a@b.example, c@d.example", "a@b.example c"])
def test_what_is_not_one_address_is_refused_and_not_quoted(address: str) -> None:
    with pytest.raises(TemplateError, match="To: this is not one address"):
        compose(RENDERED, **COMPOSED | {"recipient_address": address})


def test_an_address_outside_ascii_is_left_as_it_is() -> None:
    content = compose(RENDERED, **COMPOSED | {"recipient_address": "jürgen@exämple.example"})

    assert "To: jürgen@exämple.example\r\n".encode() in content
