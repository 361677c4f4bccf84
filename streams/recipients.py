"""Recipients from a CSV file: addresses into the vault, zone, locale and mailbox provider onto Kafka."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from schemas import codec, topics, zones
from schemas.lanes import Providers
from schemas.routes import OTHER_PROVIDER
from sinks.vault import Contact, Vault
from streams import reading
from streams.engine.cut import Out
from streams.engine.kafka import Client, KafkaUnavailable

REQUIRED: Final = ("recipient_id", "address", "zone")
LOCALE: Final = "locale"
_BATCH: Final = 20_000  # opening a producer takes half a second: 5,000 a batch went at 6,400 rows/s
_LONGEST: Final = {"recipient_id": 128, "address": 254, "zone": 32, "locale": 8}
_LONGEST_ATTRIBUTE: Final = 1_000
_MOST_REPORTED: Final = 1_000
# C0, DEL, C1, and Unicode's own line breaks.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 5321's dot-string and domain, no more: `email` also takes blanks, comments and quoted local parts, which
# a relay then reads in its own way. A domain's last label is never a number: that is an IP address.
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?![0-9]+\Z){_LABEL}")


# Gets domains; gives the host that takes the mail of each, empty where none does, None where nobody says.
Hosts = Callable[[Collection[str]], Mapping[str, str | None]]
UNANSWERED: Final = "no answer"


class UnusableFile(ValueError):
    """The file is no CSV of recipients; the message says what it should be."""


@dataclass(frozen=True)
class Recipient:
    """One good row."""

    contact: Contact
    zone: str | None
    locale: str | None
    provider: str | None  # None: not known now, and whatever was known stays


@dataclass(frozen=True)
class BadRow:
    """One row that was refused: its line in the file, from 1, and why. Says nothing of what stands there."""

    line: int
    why: str


@dataclass
class Imported:
    """How many rows were taken, by provider, and refused, by cause; the first 1,000 bad rows themselves.

    Rows of whom DNS did not tell the provider stand under `UNANSWERED`.
    """

    good: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)


def load(
    path: Path,
    providers: Providers,
    vault: Vault,
    client: Client,
    now: int,
    progress: Callable[[int], None],
    hosts: Hosts | None = None,
) -> Imported:
    """Import a file: a batch at a time into the vault first, then onto `recipients.attributes`.

    `now` is the time of the attributes, UTC ms; `progress` is told how many bytes of the file are done. With
    `hosts`, domains that no provider lists belong to the provider of the host that takes their mail. Where it
    breaks off, importing the file again is safe: the same rows give the same contacts and attributes.

    Raises
    ------
    UnusableFile
        No CSV in UTF-8 with the required columns. What came before the place that it names stays imported.
    VaultError, KafkaUnavailable
        What came before stays imported.
    """
    result = Imported()
    try:
        for some, done in _batches(read(path, providers), result):
            good = _rolled_up(some, providers, hosts)
            vault.put_many(recipient.contact for recipient in good)
            reading.produce(client, [_attributes(recipient, now) for recipient in good])
            result.good.update(recipient.provider or UNANSWERED for recipient in good)
            progress(done)
    except KafkaUnavailable as error:
        raise KafkaUnavailable(f"{error}; {_so_far(result)}") from error
    except UnusableFile as error:
        raise UnusableFile(f"{error}; {_so_far(result)}" if result.good else str(error)) from error
    return result


def check(
    path: Path, providers: Providers, progress: Callable[[int], None], hosts: Hosts | None = None
) -> Imported:
    """As `load`, and import nothing. Raises `UnusableFile`."""
    result = Imported()
    for some, done in _batches(read(path, providers), result):
        good = _rolled_up(some, providers, hosts)
        result.good.update(recipient.provider or UNANSWERED for recipient in good)
        progress(done)
    return result


def read(path: Path, providers: Providers) -> Iterator[tuple[Recipient | BadRow, int]]:
    """Every row in order, good or bad, with the bytes read so far. Raises `UnusableFile`.

    What it holds in memory are the recipient ids, to know a second one by: 120 MB for a million.
    """
    seen: set[bytes] = set()
    done = 0

    def lines(file: Any) -> Iterator[str]:
        nonlocal done
        for raw in file:
            done += len(raw)
            yield raw.decode("utf-8-sig" if done == len(raw) else "utf-8")

    try:
        with path.open("rb") as file:
            rows = csv.DictReader(lines(file), strict=True, restkey="", restval=None)
            columns = rows.fieldnames or []
            missing = [name for name in REQUIRED if name not in columns]
            if missing or "" in columns or len(set(columns)) != len(columns):
                raise UnusableFile(
                    f"{path}: the first line must name the columns {', '.join(REQUIRED)}, optionally "
                    f"{LOCALE} and attributes, each once and with a name; "
                    f"missing: {', '.join(missing) or 'none'}"
                )
            for row in rows:
                # A row is named by its first line; a quoted field may hold line breaks.
                breaks = sum(str(value).count("\n") for value in row.values())
                yield _judged(row, rows.line_num - breaks, providers, seen), done
    except OSError as error:
        raise UnusableFile(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{path}: not UTF-8 near byte {done}; save it as UTF-8") from error
    except csv.Error as error:
        raise UnusableFile(
            f"{path}: line {rows.reader.line_num}: {error}; mend it: a quote is open or out of place"
        ) from error


def _judged(
    row: Mapping[str, str | None], line: int, providers: Providers, seen: set[bytes]
) -> Recipient | BadRow:
    why = _problem(row, seen)
    if why is not None:
        return BadRow(line, why)
    known = {name: (value or "").strip() for name, value in row.items()}
    seen.add(known["recipient_id"].encode())
    attributes = {name: value for name, value in known.items() if name not in (*REQUIRED, LOCALE) and value}
    contact = Contact(known["recipient_id"], known["address"], attributes)
    provider = providers.of(known["address"].rpartition("@")[2])
    return Recipient(contact, known["zone"] or None, known.get(LOCALE) or None, provider)


def _problem(row: Mapping[str, str | None], seen: set[bytes]) -> str | None:
    """What is wrong with a row, without what stands in it; None if nothing."""
    if "" in row or None in row.values():
        return "another number of fields than the first line"
    known = {name: (value or "").strip() for name, value in row.items()}
    for name, value in known.items():
        if _CONTROL.search(value):
            return f"{name} holds a line break or another control character"
        if len(value.encode()) > _LONGEST.get(name, _LONGEST_ATTRIBUTE):
            return f"{name} has more than {_LONGEST.get(name, _LONGEST_ATTRIBUTE)} bytes"
    if not known["recipient_id"]:
        return "no recipient_id"
    if "@" in known["recipient_id"]:
        return "recipient_id looks like an address; it goes where no address may, so use an opaque id"
    if known["recipient_id"].encode() in seen:
        return "this recipient_id came before in the file; the first row counts"
    if not known["address"]:
        return "no address"
    if not known["address"].isascii():
        return "the address is not ASCII; write its domain in the xn-- form"
    if not _ADDRESS.fullmatch(known["address"]):
        return "the address is not local@domain"
    if known["zone"] and known["zone"] not in zones.NAMES:
        return "zone is no IANA time zone; write for example America/New_York, or nothing"
    return None


def _batches(
    rows: Iterator[tuple[Recipient | BadRow, int]], result: Imported
) -> Iterator[tuple[list[Recipient], int]]:
    """Good rows a batch at a time, with the bytes read; bad ones go into `result`."""
    while some := list(islice(rows, _BATCH)):
        bad = [row for row, _ in some if isinstance(row, BadRow)]
        result.refused.update(row.why for row in bad)
        result.bad += bad[: _MOST_REPORTED - len(result.bad)]
        yield [row for row, _ in some if isinstance(row, Recipient)], some[-1][1]


def _rolled_up(
    recipients: Sequence[Recipient], providers: Providers, hosts: Hosts | None
) -> Sequence[Recipient]:
    """Recipients with the providers of their hosts, where their domains are listed nowhere."""
    if hosts is None:
        return recipients
    asked = [each for each in recipients if each.provider == OTHER_PROVIDER]
    found = hosts({_domain(each) for each in asked})
    provider = {domain: None if host is None else providers.of_host(host) for domain, host in found.items()}
    return [
        replace(each, provider=provider[_domain(each)]) if each.provider == OTHER_PROVIDER else each
        for each in recipients
    ]


def _domain(recipient: Recipient) -> str:
    return recipient.contact.address.rpartition("@")[2].lower()


def _so_far(result: Imported) -> str:
    return f"{result.good.total():,} recipients are imported; importing the file again is safe, do so"


def _attributes(recipient: Recipient, now: int) -> Out:
    fields = {
        "recipient_id": recipient.contact.recipient_id,
        "event_id": None,
        "occurred_at": now,
        "zone": recipient.zone,
        "locale": recipient.locale,
        "provider": recipient.provider,
        "place": None,
    }
    key = recipient.contact.recipient_id.encode()
    return Out(topics.ATTRIBUTES.name, key, codec.encode(topics.ATTRIBUTES.name, fields))
