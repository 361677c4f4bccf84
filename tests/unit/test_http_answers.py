"""Small things of transports by HTTP: when to come back, which addresses are public, long words."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sinks.transports.answers import retry_after_s
from sinks.transports.pinned import is_public
from sinks.transports.replies import without_addresses

NOON = 1_795_867_200.0  # Sat, 28 Nov 2026 12:00:00 UTC


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("3601", 3600.0),
        ("9" * 400, 3600.0),
        ("Sat, 28 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 28 Nov 2026 11:59:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("١٢", None),
        ("1 ", None),
        ("soon", None),
        ("Sat, 28 Nov 2026 12:00:30 +0100", None),
        ("Sun, 28 Nov 2026 12:00:30 GMT", None),
        ("Saturday, 28-Nov-26 12:00:30 GMT", None),
        ("2026-11-28T12:00:30Z", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_when_to_come_back_is_read_strictly_and_is_an_hour_at_most(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, NOON) == seconds


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:831::200e"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1"),  # noqa: S104
        *("192.0.0.1", "192.0.2.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1"),
        *("2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "4000::1"),
    ],
)
def test_an_address_of_a_private_network_or_a_way_into_one_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


def test_of_long_words_the_beginning_is_read_and_no_address_is_cut_in_two() -> None:
    local = "j" * 90
    text = f"{local}@mail.example " * 2000

    assert set(without_addresses(text, f"{local}@mail.example").split()) == {"[address]"}
    assert without_addresses("x" * 100_000, "") == ""
