"""What the recorder adds to the closed lists of reasons and of log events."""

from typing import Final

REFUSED: Final = "refused"
WORKER_STOPPED: Final = "worker_stopped"
PARTITIONS_ASSIGNED: Final = "partitions_assigned"
CLICKHOUSE_AWAY: Final = "clickhouse_away"
CLICKHOUSE_BACK: Final = "clickhouse_back"
RECORD_REFUSED: Final = "record_refused"
