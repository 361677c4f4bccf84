"""Settings: from `opportune.toml`, from the environment (`OPPORTUNE_…`), with defaults for one machine."""

import os
import re
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.units import Duration, Milliseconds

_DNS_NAME: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _domain(mailbox: str) -> str:
    return parseaddr(mailbox)[1].rpartition("@")[2]


class NoConfig(ValueError):
    """OPPORTUNE_CONFIG names a file that is not there: mend it, or unset it."""


class Settings(BaseSettings):
    """Everything that a deployment may set. The environment goes before the file."""

    model_config = SettingsConfigDict(
        env_prefix="OPPORTUNE_",
        toml_file=os.environ.get("OPPORTUNE_CONFIG", "opportune.toml"),
        extra="forbid",
        frozen=True,
    )

    state_dir: Path = Field(Path(".opportune"), description="Data, logs and records of `opportune up`.")
    cache_dir: Path = Field(_cache_home() / "opportune", description="Downloaded jars.")
    policy_dir: Path | None = Field(
        None, description="Segments, campaigns, contact policy; default: the packaged ones."
    )

    brokers: str | None = Field(
        None, description="host:port[,…] of Kafka; default: the one of `opportune up`."
    )
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Protocol."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password.")
    tls_ca: Path | None = Field(None, description="CA certificates, PEM; default: the system's.")

    partitions: int = Field(12, ge=1, le=1024, description="Partitions of every keyed topic; permanent.")
    replication: int = Field(1, ge=1, description="Replicas of every topic; 3 in production.")
    worker_id: str | None = Field(None, description="Static group membership; unique and stable per worker.")
    web_bind: str = Field("127.0.0.1", description="Address that the worker's web server listens on.")
    web_port: int = Field(0, ge=0, le=65535, description="Port of the worker's web server; 0: any free one.")
    session_timeout_s: float = Field(
        30.0, gt=0, description="After this long a silent worker's partitions move."
    )
    watchdog: Duration = Field(
        Milliseconds.parse("2 min"),
        description="A worker that gets nowhere for this long ends. A commit may take 60 s.",
    )
    cut_records: int = Field(8000, ge=1, description="Most records of one topic in a cut.")
    target_latency: Duration = Field(
        Milliseconds.parse("50 ms"),
        description="A cut takes what it is expected to commit in this time, or more where it is behind.",
    )
    snapshot_every: Duration = Field(
        Milliseconds.parse("10 min"), description="How often a partition's rows are written to disk."
    )
    replay_days: int = Field(
        3, ge=0, description="For so many days one snapshot a day is kept; the newest two always are."
    )
    clickhouse: str | None = Field(
        None, description="host:port of ClickHouse's native protocol; default: the one of `opportune up`."
    )
    clickhouse_user: str = Field("default", description="ClickHouse user.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="ClickHouse password.")
    clickhouse_database: str = Field("opportune", pattern=r"^\w+$", description="ClickHouse database.")
    clickhouse_tls: bool = Field(False, description="Speak TLS with ClickHouse.")

    vault: Path | None = Field(
        None, description="Contact vault (SQLite); default: vault/contacts.sqlite under the state folder."
    )
    vault_key: Path | None = Field(
        None, description="Its master key file; default: vault/master.key under the state folder."
    )

    model_dir: Path | None = Field(
        None, description="Trained send-time models; default: models under the state folder."
    )
    model_key: Path | None = Field(
        None, description="Key file that they are signed by; default: signing.key in the folder of models."
    )
    model_trust: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Public key files whose models may serve, by commas; default: the one beside model_key.",
    )

    relay: str | None = Field(
        None,
        description="host:port of a real SMTP relay, or https://… of an API in the shape of Amazon SES v2; "
        "default: the sandbox of `opportune up`.",
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

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe that is logged."
    )

    @field_validator("model_trust", "webhook_hosts", mode="before")
    @classmethod
    def _by_commas(cls, value: object) -> object:
        return (
            [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value
        )

    @field_validator("mail_from")
    @classmethod
    def _names_a_mailbox(cls, value: str) -> str:
        local, _, domain = parseaddr(value)[1].rpartition("@")
        if not local or "." not in domain or not value.isprintable():
            raise ValueError(f'{value!r} names no mailbox; write for example "Shop <hello@shop.example>"')
        return value

    @field_validator("target_latency", "snapshot_every")
    @classmethod
    def _some(cls, value: Milliseconds) -> Milliseconds:
        if value < 1:
            raise ValueError(f'{value} is no time; write for example "50 ms"')
        return value

    @field_validator("watchdog")
    @classmethod
    def _patient(cls, value: Milliseconds) -> Milliseconds:
        if value < 1000:
            raise ValueError(f'{value} is too short; write for example "2 min"')
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
    def watchdog_s(self) -> float:
        """For how many seconds a worker may get nowhere."""
        return self.watchdog / 1000

    @property
    def vault_path(self) -> Path:
        """Where the contact vault is."""
        return self.vault or self.state_dir / "vault" / "contacts.sqlite"

    @property
    def vault_key_path(self) -> Path:
        """Where the vault's master key is."""
        return self.vault_key or self.state_dir / "vault" / "master.key"

    @property
    def mail_leaves(self) -> bool:
        """Whether mail leaves this machine; else its sandbox takes it."""
        return self.relay is not None or self.webhook_url is not None

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        if self.relay is not None and self.webhook_url is not None:
            raise ValueError("relay and webhook_url are both set, and messages go one way: remove one")
        return self

    @model_validator(mode="after")
    def _static_member_has_an_address(self) -> Self:
        # Faust keeps a member's address in its assignment: a static member that comes back on another port
        # would own nothing and say nothing.
        if self.worker_id is not None and not self.web_port:
            raise ValueError("worker_id needs a fixed web_port too, the same after every restart")
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, file. Raises `NoConfig`."""
        named = os.environ.get("OPPORTUNE_CONFIG")
        if named is not None and not Path(named).is_file():
            raise NoConfig(f"OPPORTUNE_CONFIG names {named}, which is no file: mend it, or unset it")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
