"""Whose hosts take a domain's mail, asked of a DNS server on this machine."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.asyncresolver import Resolver
from pydantic import ValidationError

import infra
from schemas import policy_files
from schemas.lanes import Providers
from sinks.mx import MxLookup
from streams import recipients

PROVIDERS = policy_files.load_providers(Path(infra.__file__).parent / "policy")
ZONE = {
    "shop.example": ["20 alt1.aspmx.l.google.com.", "10 aspmx.l.google.com."],
    "firm.example": ["0 firm-example.mail.protection.outlook.com."],
    "family.example": ["10 mx01.mail.icloud.com."],
    "own.example": ["10 mail.own.example."],
    "almost.example": ["10 mx.notgoogle.com."],
    "nothing.example": ["0 ."],
}


class Dns:
    """Answers from `ZONE`; names that begin with `silent` get no answer, all others NXDOMAIN."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.asked: Counter[str] = Counter()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                wire, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(wire)
            name = query.question[0].name.to_text(omit_final_dot=True)
            self.asked[name] += 1
            if name.startswith("silent"):
                continue
            reply = dns.message.make_response(query)
            if name in ZONE:
                reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "MX", *ZONE[name]))
            else:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            self._socket.sendto(reply.to_wire(), peer)

    def resolver(self) -> Resolver:
        made = Resolver(configure=False)
        made.nameservers, made.port = ["127.0.0.1"], self.port
        return made

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Dns]:
    made = Dns()
    yield made
    made.close()


def test_the_host_of_least_preference_is_found_and_each_domain_is_asked_for_once(server: Dns) -> None:
    told: list[int] = []
    lookup = MxLookup(server.resolver(), progress=told.append)
    assert lookup(["shop.example", "nothing.example"]) == {
        "shop.example": "aspmx.l.google.com",
        "nothing.example": "",
    }
    assert lookup(["shop.example", "gone.example"])["gone.example"] == ""
    assert lookup([]) == {}
    assert server.asked == {"shop.example": 1, "nothing.example": 1, "gone.example": 1}
    assert told == [1, 2, 3]


def test_who_gets_no_answer_in_time_has_none_and_the_others_are_not_kept_waiting(server: Dns) -> None:
    silent = [f"silent-{n}.example" for n in range(200)]
    found = MxLookup(server.resolver(), limit_s=0.5)(["firm.example", *silent])
    assert {domain for domain, host in found.items() if host} == {"firm.example"}
    assert [found[domain] for domain in silent] == [None] * 200


def test_recipients_belong_to_the_provider_of_their_host_where_no_table_names_their_domain(
    server: Dns, tmp_path: Path
) -> None:
    domains = ["gmail.com", "SHOP.example", *ZONE, "gone.example", "silent.example"]
    path = tmp_path / "people.csv"
    rows = [f"r{n},someone@{domain}," for n, domain in enumerate(domains)]
    path.write_text("\n".join(["recipient_id,address,zone", *rows]))

    without = recipients.check(path, PROVIDERS, lambda _: None)
    found = recipients.check(path, PROVIDERS, lambda _: None, MxLookup(server.resolver(), limit_s=1))

    assert without.good == {"gmail": 1, "other": 9}
    assert found.good == {"gmail": 3, "outlook": 1, "apple": 1, "other": 4, recipients.UNANSWERED: 1}
    assert "gmail.com" not in server.asked


def test_the_longest_domain_above_a_host_counts_and_only_known_providers_have_hosts() -> None:
    providers = Providers(
        provider={"big": ("big.example",), "small": ("small.example",)},
        mx={"mail.example": "big", "eu.mail.example": "small"},
    )
    hosts = ["mx1.mail.example", "mx1.EU.mail.example.", "eu.mail.example", "xmail.example", "example", ""]
    assert [providers.of_host(host) for host in hosts] == ["big", "small", "small", *["other"] * 3]
    with pytest.raises(ValidationError, match="mx names gone"):
        Providers(provider={"big": ("big.example",)}, mx={"mail.example": "gone"})
