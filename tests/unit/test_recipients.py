"""Reading a file of recipients: what is taken, what is refused and why, and that no address leaks."""

from collections.abc import Callable
from pathlib import Path

import pytest

import infra
from schemas import policy_files
from streams import recipients
from streams.recipients import BadRow, Recipient, UnusableFile

PROVIDERS = policy_files.load_providers(Path(infra.__file__).parent / "policy")
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "people.csv"
        path.write_bytes(text.encode())
        return path

    return to_file


def read(path: Path) -> list[Recipient | BadRow]:
    return [row for row, _ in recipients.read(path, PROVIDERS)]


def test_a_row_gives_a_contact_and_what_decide_learns(write: Write) -> None:
    path = write(
        "recipient_id,address,zone,locale,first_name\r\n"
        'ann,"ann@gmail.example",Europe/Berlin,de-DE,"Ann, the first"\r\n'
        "ben,ben@shop.example,,,\r\n"
    )
    ann, ben = read(path)
    assert isinstance(ann, Recipient)
    assert isinstance(ben, Recipient)
    assert (ann.contact.address, dict(ann.contact.attributes)) == (
        "ann@gmail.example",
        {"first_name": "Ann, the first"},
    )
    assert (ann.zone, ann.locale, ann.provider) == ("Europe/Berlin", "de-DE", "gmail")
    assert (ben.zone, ben.locale, ben.provider, ben.contact.attributes) == (None, None, "other", {})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (",ann@mail.example,", "no recipient_id"),
        ("ann@mail.example,ann@mail.example,", "opaque"),
        ("ann,,", "no address"),
        ("ann,ann.mail.example,", "not local@domain"),
        ("ann,ann@localhost,", "not local@domain"),
        ("ann,ann@-mail.example,", "not local@domain"),
        ('ann,"ann@mail.example, eve@mail.example",', "not local@domain"),
        ("ann,<ann@mail.example>,", "not local@domain"),
        ("ann,ann @mail.example,", "not local@domain"),
        ("ann,ann@mail.example(a comment),", "not local@domain"),
        ('ann,"""ann smith""@mail.example",', "not local@domain"),
        ("ann,ann..smith@mail.example,", "not local@domain"),
        ("ann,ann@mail.example.,", "not local@domain"),
        ("ann,ann@[192.0.2.1],", "not local@domain"),
        ("ann,ann@192.0.2.1,", "not local@domain"),
        (f"ann,{'a' * 65}@mail.example,", "not local@domain"),
        (f"ann,ann@{'a' * 64}.example,", "not local@domain"),
        (f"ann,ann@{'a.' * 130}example,", "more than 254 bytes"),
        ("ann,änn@mail.example,", "xn--"),
        ("ann,ann@mail\u2028.example,", "control character"),
        ("ann,ann@mail\x7f.example,", "control character"),
        ("ann,ann@mail.example,Berlin", "IANA"),
        (f"{'a' * 129},ann@mail.example,", "more than 128 bytes"),
        ('ann,"ann@mail.example\r\nBcc: eve@mail.example",', "control character"),
        ("ann,ann@mail.example", "number of fields"),
        ("ann,ann@mail.example,,x", "number of fields"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_the_good_ones_stay(write: Write, row: str, why: str) -> None:
    path = write(f"recipient_id,address,zone\nzoe,zoe@mail.example,\n{row}\nben,ben@mail.example,\n")
    zoe, bad, ben = read(path)
    assert isinstance(zoe, Recipient)
    assert isinstance(ben, Recipient)
    assert isinstance(bad, BadRow)
    assert why in bad.why
    assert bad.line == 3, "a row is named by its first line"
    assert "@" not in bad.why.replace("local@domain", "")


def test_the_first_of_two_rows_for_one_recipient_counts(write: Write) -> None:
    path = write("recipient_id,address,zone\nann,one@mail.example,\nann,two@mail.example,\n")
    first, second = read(path)
    assert isinstance(first, Recipient)
    assert second == BadRow(3, "this recipient_id came before in the file; the first row counts")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must name the columns"),
        ("recipient_id,address\n", "missing: zone"),
        ("recipient_id,address,zone,zone\n", "each once"),
        ("recipient_id,address,zone,\n", "with a name"),
        ('recipient_id,address,zone\n"ann,ann@mail.example,\n', "quote"),
    ],
)
def test_a_file_that_is_no_csv_of_recipients_is_refused_as_a_whole(
    write: Write, content: str, says: str
) -> None:
    with pytest.raises(UnusableFile, match=says):
        read(write(content))


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("recipient_id,address,zone,name\nann,ann@mail.example,,Bärbel\n".encode("latin-1"))
    with pytest.raises(UnusableFile, match="UTF-8"):
        read(path)


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write) -> None:
    assert isinstance(read(write("\ufeffrecipient_id,address,zone\nann,ann@mail.example,\n"))[0], Recipient)


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="No such file"):
        read(tmp_path / "nowhere.csv")


def test_what_is_counted_is_by_provider(write: Write) -> None:
    path = write(
        "recipient_id,address,zone\na,a@googlemail.com,\nb,b@GMAIL.com,\nc,c@hotmail.com,\nd,d@x.example,\n,,\n"
    )
    done: list[int] = []
    result = recipients.check(path, PROVIDERS, done.append)
    assert result.good == {"gmail": 2, "outlook": 1, "other": 1}
    assert result.refused == {"no recipient_id": 1}
    assert done == [path.stat().st_size]


@pytest.mark.parametrize(
    "address",
    [
        "o'brien+tag@mail.example",
        "a@b.example",
        "first.last@sub.mail-1.example",
        "x@xn--bcher-kva.example",
        f"{'a' * 64}@{'b' * 63}.example",
        "a=b/c@1and1.example",
    ],
)
def test_addresses_that_relays_take_are_taken(write: Write, address: str) -> None:
    (row,) = read(write(f"recipient_id,address,zone\nann,{address},\n"))
    assert isinstance(row, Recipient)
    assert row.contact.address == address


def test_an_attribute_may_be_of_any_script_and_hold_a_no_break_space(write: Write) -> None:
    (row,) = read(write("recipient_id,address,zone,first_name\nann,a@b.example,,Зоя\u00a0М.\n"))
    assert isinstance(row, Recipient)
    assert row.contact.attributes == {"first_name": "Зоя\u00a0М."}


@pytest.mark.parametrize(
    ("domain", "provider"),
    [
        ("googlemail.com", "gmail"),
        ("gmail.example", "gmail"),
        ("yahoo.example", "yahoo"),
        ("live.com", "outlook"),
        ("outlook.example", "outlook"),
        ("me.com", "apple"),
        ("apple.example", "apple"),
        ("mail.example", "other"),
        ("gmail.com.example", "other"),
    ],
)
def test_a_domain_belongs_to_its_provider(domain: str, provider: str) -> None:
    assert PROVIDERS.of(domain) == provider


def test_a_quote_out_of_place_is_named_by_its_own_line(write: Write) -> None:
    with pytest.raises(UnusableFile, match="line 3:"):
        read(write('recipient_id,address,zone\nann,ann@mail.example,\nben,"b b"@mail.example,\n'))
