"""Names of log events and the keys they may carry: nothing else is written."""

from typing import Final

LINE_TAKEN_OVER: Final = "line_taken_over"
LINE_DROPPED: Final = "line_dropped"
LINE_FENCED: Final = "line_fenced"
SNAPSHOT_TAKEN: Final = "snapshot_taken"
SNAPSHOT_REFUSED: Final = "snapshot_refused"
SNAPSHOT_FAILED: Final = "snapshot_failed"
WORKER_STARTED: Final = "worker_started"
WORKER_FAILED: Final = "worker_failed"
OFFSETS_NOT_COMMITTED: Final = "offsets_not_committed"
WORKER_STOPPED: Final = "worker_stopped"
PARTITIONS_ASSIGNED: Final = "partitions_assigned"
CLICKHOUSE_AWAY: Final = "clickhouse_away"
CLICKHOUSE_BACK: Final = "clickhouse_back"
RECORD_REFUSED: Final = "record_refused"
KAFKA_ERROR: Final = "kafka_error"
SEND_FAILED: Final = "send_failed"
PREPARING_FAILED: Final = "preparing_failed"
SEGMENTS_IN_FORCE: Final = "segments_in_force"
SEGMENTS_REFUSED: Final = "segments_refused"
MODEL_LOADED: Final = "model_loaded"
MODEL_REFUSED: Final = "model_refused"
LANE_RESTS: Final = "lane_rests"
RELAY_RESTS: Final = "relay_rests"
LANE_STOPPED: Final = "lane_stopped"
REAL_RELAY: Final = "real_relay"
FRAMEWORK: Final = "framework"

# Neither recipient ids nor payloads nor addresses: a log is read by more people than the audit trail.
ALLOWED_KEYS: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "logger",
        "role",
        "partition",
        "partitions",
        "cut",
        "dispatch_id",
        "lane",
        "code",
        "identity",
        "model",
        "relay",
        "keys",
        "kept",
        "changelog_records",
        "snapshot",
        "bytes",
        "error",
        "error_kind",
        "trace",
        "seconds",
        "topic",
        "offset",
        "web_port",
        "worker_id",
        "policy",
        "control_version",
        "message",
        "generation",
    }
)
