"""Recipients from a CSV file: addresses into the vault, zone, locale and mailbox provider onto Kafka."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.headerregistry import Address
from itertools import islice
from pathlib import Path
from typing import Any, Final

from schemas import codec, topics, zones
from schemas.policy import Providers
from sinks.vault import Contact, Vault
from streams import reading
from streams.engine.cut import Out
from streams.engine.kafka import Client

REQUIRED: Final = ("recipient_id", "address", "zone")
LOCALE: Final = "locale"
_BATCH: Final = 5_000
_LONGEST: Final = {"recipient_id": 128, "address": 254, "zone": 32, "locale": 8}
_LONGEST_ATTRIBUTE: Final = 1_000
_MOST_REPORTED: Final = 1_000


class UnusableFile(ValueError):
    """The file is no CSV of recipients; the message says what it should be."""


@dataclass(frozen=True)
class Recipient:
    """One good row."""

    contact: Contact
    zone: str | None
    locale: str | None
    provider: str


@dataclass(frozen=True)
class BadRow:
    """One row that was refused: its line in the file, from 1, and why. Says nothing of what stands there."""

    line: int
    why: str


@dataclass
class Imported:
    """How many rows were taken and refused, by provider and by cause; the first bad rows themselves."""

    good: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    bad: list[BadRow] = field(default_factory=list)


def load(
    path: Path,
    providers: Providers,
    vault: Vault,
    client: Client,
    now: int,
    progress: Callable[[int], None],
) -> Imported:
    """Import a file: a batch at a time into the vault first, then onto `recipients.attributes`.

    `now` is the time of the attributes, UTC ms; `progress` is told how many bytes of the file are done. Where
    it breaks off, importing the file again is safe: the same rows give the same contacts and attributes.

    Raises
    ------
    UnusableFile
        No CSV in UTF-8 with the required columns.
    VaultError, KafkaUnavailable
        What came before stays imported.
    """
    result = Imported()
    for batch in _batches(read(path, providers), result):
        vault.put_many(recipient.contact for recipient, _ in batch)
        reading.produce(client, [_attributes(recipient, now) for recipient, _ in batch])
        for recipient, _ in batch:
            result.good[recipient.provider] = result.good.get(recipient.provider, 0) + 1
        progress(batch[-1][1])
    return result


def check(path: Path, providers: Providers) -> Imported:
    """Read a file and import nothing. Raises `UnusableFile`."""
    result = Imported()
    for batch in _batches(read(path, providers), result):
        for recipient, _ in batch:
            result.good[recipient.provider] = result.good.get(recipient.provider, 0) + 1
    return result


def read(path: Path, providers: Providers) -> Iterator[tuple[Recipient | BadRow, int]]:
    """Every row in order, good or bad, with the bytes read so far. Raises `UnusableFile`."""
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
            if missing or len(set(columns)) != len(columns):
                raise UnusableFile(
                    f"{path}: the first line must name the columns {', '.join(REQUIRED)}, optionally "
                    f"{LOCALE} and attributes, each once; missing: {', '.join(missing) or 'none'}"
                )
            for row in rows:
                yield _judged(row, rows.line_num, providers, seen), done
    except OSError as error:
        raise UnusableFile(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{path}: not UTF-8 near byte {done}; save it as UTF-8") from error
    except csv.Error as error:
        raise UnusableFile(
            f"{path}: line {rows.line_num}: {error}; a quote is open or out of place"
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
        if not value.isprintable():
            return f"{name} holds a line break or another control character"
        if len(value.encode()) > _LONGEST.get(name, _LONGEST_ATTRIBUTE):
            return f"{name} has more than {_LONGEST.get(name, _LONGEST_ATTRIBUTE)} bytes"
    if not known["recipient_id"]:
        return "no recipient_id"
    if known["recipient_id"].encode() in seen:
        return "this recipient_id came before in the file; the first row counts"
    if not _is_address(known["address"]):
        return "no address" if not known["address"] else "the address is not local@domain"
    if known["zone"] and known["zone"] not in zones.NAMES:
        return "zone is no IANA time zone; write for example America/New_York, or nothing"
    return None


def _is_address(text: str) -> bool:
    try:
        address = Address(addr_spec=text)
    except (HeaderParseError, ValueError, IndexError):
        return False
    labels = address.domain.split(".")
    return (
        bool(address.username)
        and len(address.username) <= 64
        and len(labels) >= 2
        and all(label.strip("-") == label and label.replace("-", "").isalnum() for label in labels)
    )


def _batches(
    rows: Iterator[tuple[Recipient | BadRow, int]], result: Imported
) -> Iterator[list[tuple[Recipient, int]]]:
    """Good rows a batch at a time; bad ones are counted in `result`."""
    while some := list(islice(rows, _BATCH)):
        bad = [row for row, _ in some if isinstance(row, BadRow)]
        result.refused += len(bad)
        result.bad += bad[: _MOST_REPORTED - len(result.bad)]
        good = [(row, done) for row, done in some if isinstance(row, Recipient)]
        if good:
            yield good


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
