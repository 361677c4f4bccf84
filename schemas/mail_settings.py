"""Settings of how mail leaves: through what, in whose name, signed by whom."""

import re
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

_WAY_OUT: Final = ("relay", "webhook_url")
_OF_THE_WAY_OUT: Final = ("relay", "webhook_", "http_")
_DNS_NAME: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


def by_commas(value: object) -> object:
    """A list as it is written in the environment. Raises ValueError where a comma stands beside nothing."""
    if not isinstance(value, str) or not value.strip():
        return value or ()
    parts = [each.strip() for each in value.split(",")]
    if not all(parts):
        raise ValueError("a comma stands beside nothing")
    return parts


def _domain(mailbox: str) -> str:
    return parseaddr(mailbox)[1].rpartition("@")[2]


class MailSettings(BaseModel):
    """Everything that a deployment may set of one identity: who sends, and through which servers."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    relay: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="host:port of a real SMTP relay, or https://… of an API in the shape of Amazon SES v2; "
        "several, by commas, share the messages; default: the sandbox of `opportune up`.",
    )
    relay_user: str | None = Field(None, description="SMTP user; of Amazon SES, the access key's id.")
    relay_password: SecretStr | None = Field(
        None, description="SMTP password; of an API, its key; of Amazon SES, the secret access key."
    )
    relay_tls: Literal["none", "starttls", "tls"] = Field(
        "starttls", description="How an SMTP relay is reached."
    )
    relay_configuration_set: str | None = Field(None, description="Configuration set of Amazon SES.")
    http_idempotent: bool = Field(
        False,
        description="The API or webhook takes a request once for each Idempotency-Key: one whose answer was "
        "lost is sent once more.",
    )
    webhook_url: str | None = Field(None, description="https://… that takes messages, instead of a relay.")
    webhook_secret: SecretStr | None = Field(None, description="whsec_… by which requests to it are signed.")
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts that webhook_url may name, by commas."
    )
    webhook_private: bool = Field(
        False, description="The webhook may have a private address, and be reached by http."
    )
    mail_from: str = Field("Opportune <hello@opportune.example>", description="From of every message.")
    mail_domain: str = Field("opportune.example", description="Domain of Message-IDs.")
    sender_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{5,15}$",
        description="Who sends, in Feedback-ID; default: the first 15 characters of mail_domain.",
    )
    dkim_key: Path | None = Field(
        None, description="Private key that signs mail, PEM; default: none, the relay signs."
    )
    dkim_selector: str = Field(
        "opportune",
        pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$",
        description="The public half is in DNS at <dkim_selector>._domainkey.<dkim_domain>.",
    )
    dkim_domain: str | None = Field(
        None, description="Domain that signs, that of mail_from or one above it; default: that of mail_from."
    )
    unsubscribe_url: str = Field(
        "https://opportune.example/unsubscribe", description="Page of List-Unsubscribe; takes POST."
    )
    unsubscribe_mailto: str = Field(
        "unsubscribe@opportune.example", description="Address of List-Unsubscribe."
    )

    @field_validator("relay", "webhook_hosts", mode="before")
    @classmethod
    def _by_commas(cls, value: object) -> object:
        return by_commas(value)

    @field_validator("mail_from")
    @classmethod
    def _names_a_mailbox(cls, value: str) -> str:
        local, _, domain = parseaddr(value)[1].rpartition("@")
        if not local or "." not in domain or not value.isprintable():
            raise ValueError(f'{value!r} names no mailbox; write for example "Shop <hello@shop.example>"')
        return value

    @property
    def feedback_sender(self) -> str:
        """Who sends, in Feedback-ID: 5 to 15 characters."""
        return self.sender_id or re.sub(r"[^A-Za-z0-9.-]", "-", self.mail_domain)[:15].ljust(5, "-")

    @property
    def signing_domain(self) -> str:
        """The domain that DKIM signatures are of."""
        return (self.dkim_domain or _domain(self.mail_from)).lower()

    @property
    def mail_leaves(self) -> bool:
        """Whether mail leaves this machine; else its sandbox takes it."""
        return bool(self.relay) or self.webhook_url is not None

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        if self.relay and self.webhook_url is not None:
            raise ValueError("relay and webhook_url are both set, and messages go one way: remove one")
        return self

    @model_validator(mode="after")
    def _signs_for_who_sends(self) -> Self:
        sender, signing = _domain(self.mail_from).lower(), self.signing_domain
        if self.dkim_key is None:
            return self
        if not _DNS_NAME.fullmatch(signing):
            raise ValueError(
                f"{signing!r} cannot sign: write the domain of mail_from as DNS has it, in ASCII"
            )
        # DMARC counts a signature only of the From's domain, or of one that is its organisation's.
        if not f".{sender}".endswith(f".{signing}"):
            raise ValueError(
                f"dkim_domain {signing} is neither the domain of mail_from nor above it; write {sender}, or "
                "leave it out"
            )
        return self

    @staticmethod
    def inherited(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """What an identity is given with what it does not set of the deployment's own.

        One that names a way out of its own inherits nothing of the other's: no password goes elsewhere.
        """
        names = [name for name in MailSettings.model_fields if name in own]
        if any(name in given for name in _WAY_OUT):
            names = [name for name in names if not name.startswith(_OF_THE_WAY_OUT)]
        return {name: own[name] for name in names} | dict(given)
