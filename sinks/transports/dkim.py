"""DKIM signatures (RFC 6376, and RFC 8463 for Ed25519), relaxed in headers and body.

What is signed is what goes over the wire: lines end in CRLF, the last one too. Dots that SMTP doubles are no
part of it, the receiver takes them out again.
"""

import re
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from sinks.key_files import KeyFileRefused, private_key

Key = RSAPrivateKey | Ed25519PrivateKey

LEAST_RSA_BITS: Final = 2048  # RFC 8301, 3.2: what who signs should use at least
SIGNED: Final = (
    *("From", "To", "Subject", "Date", "Message-ID", "Reply-To"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    *("List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID"),
)
# Named once more than they are there, so that none can be added on the way: a second one of these would be
# shown, or obeyed. Feedback-ID is not among them: relays add their own.
NEVER_ADDED: Final = ("From", "To", "Subject", "List-Unsubscribe", "List-Unsubscribe-Post")

_HEADER_ENDS: Final = re.compile(rb"\r\n(?![ \t])")
_SPACES: Final = re.compile(rb"[ \t\r\n]+")
_LONGEST_LINE: Final = 78  # RFC 5322, 2.1.1
_PIECE: Final = 72  # of the signature, on one line


@dataclass(frozen=True)
class Signer:
    """Signs for a domain, by the key whose public half is at `<selector>._domainkey.<domain>` in DNS."""

    key: Key = field(repr=False)
    domain: str
    selector: str

    def sign(self, content: bytes, at: int) -> bytes:
        """Return a message as it goes over the wire, with its signature of `at` (UTC ms) before it.

        `content` is headers and body as of RFC 5322, none of `SIGNED` twice; its lines may end in any way.
        """
        wire = b"\r\n".join((*content.splitlines(), b""))
        head, _, body = wire.partition(b"\r\n\r\n")
        there = dict(map(_relaxed, _HEADER_ENDS.split(head)))
        names = [name for name in SIGNED if name.lower().encode() in there]
        header = self._header(names, sha256(_relaxed_body(body)).digest(), at)
        signed = [(name, there[name]) for name in (each.lower().encode() for each in names)]
        data = b"\r\n".join(b"%b:%b" % each for each in (*signed, _relaxed(header)))
        signature = b64encode(self._signature(data))
        pieces = (signature[i : i + _PIECE] for i in range(0, len(signature), _PIECE))
        return b"%b%b\r\n%b" % (header, b"\r\n ".join(pieces), wire)

    def _header(self, names: Sequence[str], body_hash: bytes, at: int) -> bytes:
        """The header without its signature, which is the last thing in it; folded."""
        tags = {
            "v": "1",
            "a": "rsa-sha256" if isinstance(self.key, RSAPrivateKey) else "ed25519-sha256",
            "c": "relaxed/relaxed",
            "d": self.domain,
            "s": self.selector,
            "t": str(at // 1000),
            "h": ": ".join((*names, *NEVER_ADDED)),
            "bh": b64encode(body_hash).decode(),
        }
        text = f"DKIM-Signature: {' '.join(f'{tag}={value};' for tag, value in tags.items())}"
        lines = textwrap.wrap(text, _LONGEST_LINE - 1, break_long_words=False, break_on_hyphens=False)
        return "\r\n ".join((*lines, "b=")).encode()

    def _signature(self, data: bytes) -> bytes:
        if isinstance(self.key, RSAPrivateKey):
            return self.key.sign(data, PKCS1v15(), SHA256())
        return self.key.sign(sha256(data).digest())  # RFC 8463, 3: of the hash


def load_key(path: Path) -> Key:
    """Read a key that signs mail. Raises `KeyFileRefused`."""
    key = private_key(path)
    if isinstance(key, RSAPrivateKey) and key.key_size < LEAST_RSA_BITS:
        raise KeyFileRefused(
            f"{path} holds an RSA key of {key.key_size} bits; mail is signed by {LEAST_RSA_BITS} or more: "
            "make a new key"
        )
    if not isinstance(key, Key):
        raise KeyFileRefused(
            f"{path} holds a key of another kind; mail is signed by RSA or Ed25519: make one"
        )
    return key


def _relaxed(header: bytes) -> tuple[bytes, bytes]:
    """Name and value of a header, relaxed: RFC 6376, 3.4.2."""
    name, _, value = header.partition(b":")
    return name.rstrip(b" \t").lower(), _SPACES.sub(b" ", value).strip(b" ")


def _relaxed_body(body: bytes) -> bytes:
    """The body, relaxed: RFC 6376, 3.4.4. Its lines end in CRLF."""
    body = body.replace(b"\t", b" ")
    while b"  " in body:
        body = body.replace(b"  ", b" ")
    body = body.replace(b" \r\n", b"\r\n").rstrip(b"\r\n")
    return body and body + b"\r\n"
