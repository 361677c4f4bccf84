"""The ClickHouse that a deployment uses: its address, its databases, and its tables brought up to date."""

from collections.abc import Callable
from dataclasses import dataclass

from infra.embedded.clickhouse import ClickHouseServer
from schemas.settings import Settings
from sinks.clickhouse import migrate as migrating
from sinks.clickhouse.audit import AuditTables
from sinks.clickhouse.client import Address, ClickHouse, ClickHouseUnavailable


class NoClickHouse(ClickHouseUnavailable):
    """No address is set and none runs on this machine, or the address is none."""


@dataclass(frozen=True)
class Warehouse:
    """Where the tables are: `views` is the database for reading, the tables themselves are in `stored`."""

    address: Address
    views: str

    @property
    def stored(self) -> str:
        """Database of the tables behind the views."""
        return migrating.stored(self.views)

    @property
    def connect(self) -> Callable[[], ClickHouse]:
        """Make a connection, which is tried when it is first used."""
        return lambda: ClickHouse(self.address)

    def audit(self) -> AuditTables:
        """Open the audit trail; the port `sinks.audit.AuditReader`."""
        return AuditTables(self.connect, self.views)

    def ask(self) -> None:
        """Ask whether it is there. Raises as `sinks.clickhouse.client`."""
        client = self.connect()
        try:
            client.execute("SELECT 1")
        finally:
            client.close()

    def migrate(self) -> list[str]:
        """Bring the tables up to date; returns what was applied. Raises as `sinks.clickhouse.migrate`."""
        client = self.connect()
        try:
            return migrating.migrate(client, self.views)
        finally:
            client.close()


def connect(settings: Settings) -> Warehouse:
    """Return the set ClickHouse, else the one that `opportune up` started. Raises `NoClickHouse`."""
    host, port = _place(settings)
    address = Address(
        host,
        port,
        settings.clickhouse_user,
        settings.clickhouse_password.get_secret_value(),
        settings.clickhouse_tls,
        settings.tls_ca if settings.clickhouse_tls else None,
    )
    return Warehouse(address, settings.clickhouse_database)


def _place(settings: Settings) -> tuple[str, int]:
    if settings.clickhouse is not None:
        host, _, port = settings.clickhouse.rpartition(":")
        if not host or not port.isdigit():
            raise NoClickHouse(
                f"clickhouse = {settings.clickhouse!r} is no address; write host:port of the native "
                "protocol, which is 9000 by default, or 9440 with TLS"
            )
        return host.strip("[]"), int(port)
    status = ClickHouseServer(settings.state_dir).status()
    if status.health != "ready" or status.endpoint is None:
        raise NoClickHouse(
            f"no ClickHouse: the one of {settings.state_dir} is {status.health}. "
            "Run `opportune up`, or set clickhouse (OPPORTUNE_CLICKHOUSE=host:port)."
        )
    return status.endpoint.host, status.endpoint.port
