"""What looks like a plain address is one mailbox to the mail library too: nothing else hides behind the form."""

from __future__ import annotations

from email.utils import parseaddr

from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import PLAIN_ADDRESS
from sinks.transports.addresses import is_mailbox

NEAR = st.text(st.sampled_from("ab.@-_+ü\"\\<>(),:; \r\n"), max_size=20)


@given(st.from_regex(PLAIN_ADDRESS, fullmatch=True))
def test_a_plain_address_is_what_the_mail_library_reads(address: str) -> None:
    assert parseaddr(address) == ("", address)
    assert address.isprintable()


@given(NEAR)
def test_what_is_no_plain_address_is_read_whole_or_is_none(text: str) -> None:
    assert not is_mailbox(text) or parseaddr(text)[1] == text
