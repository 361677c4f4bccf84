"""Settings: from `opportune.toml`, from the environment (`OPPORTUNE_…`), with defaults for one machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.mail_settings import MailSettings, by_commas
from schemas.routes import DEFAULT_IDENTITY, IdentityName
from schemas.units import Duration, Milliseconds

_CONFIG: Final = "opportune.toml"


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class NoConfig(ValueError):
    """`opportune.toml`, or the file that OPPORTUNE_CONFIG names, is missing or cannot be read: mend it."""


class Settings(MailSettings, BaseSettings):
    """Everything that a deployment may set. The environment goes before the file."""

    model_config = SettingsConfigDict(
        env_prefix="OPPORTUNE_",
        env_nested_delimiter="__",
        toml_file=os.environ.get("OPPORTUNE_CONFIG", _CONFIG),
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
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
    cut_records: int = Field(8000, ge=1, description="Most records of one topic in a cut; DELIVER takes 500.")
    target_latency: Duration = Field(
        Milliseconds.parse("50 ms"),
        description="A cut of DECIDE takes what should commit in this time, or more where it is behind.",
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

    identity: dict[IdentityName, MailSettings] = Field(
        default_factory=dict,
        description="Other senders, by the name that campaigns give; they inherit what they do not set.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe that is logged."
    )

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: Any) -> Any:
        own = values if isinstance(values, Mapping) else {}
        given = own.get("identity")
        if not isinstance(given, Mapping) or not all(isinstance(each, Mapping) for each in given.values()):
            return values
        for name, each in given.items():
            if name == DEFAULT_IDENTITY:
                raise ValueError("identity.default is what stands at the top: write it there")
            if "mail_from" not in each:
                raise ValueError(
                    f"identity.{name} needs a mail_from of its own: providers know senders by it"
                )
        return {**own, "identity": {name: MailSettings.inherited(each, own) for name, each in given.items()}}

    @field_validator("model_trust", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return by_commas(value)

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
    def identities(self) -> dict[str, MailSettings]:
        """Who may send, by name: the default identity, which these settings are about, and the others."""
        return {DEFAULT_IDENTITY: self, **self.identity}

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

    @model_validator(mode="after")
    def _static_member_has_an_address(self) -> Self:
        # Faust keeps a member's address in its assignment: a static member that comes back on another port
        # would own nothing and say nothing.
        if self.worker_id is not None and not self.web_port:
            raise ValueError("worker_id needs a fixed web_port too, the same after every restart")
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
        path = Path(named or _CONFIG)
        if path.is_dir():  # as a bind mount makes of a file that is missing
            raise NoConfig(f"{path} is a folder, and should be a file: mend it, or take it away")
        try:
            file = TomlConfigSettingsSource(settings_cls)
        except (OSError, ValueError) as error:  # of bytes that are no text, or no TOML
            raise NoConfig(f"{path} cannot be read, or is no TOML: {error}") from error
        return init_settings, env_settings, file
