-- As decision.

CREATE TABLE IF NOT EXISTS {stored}.delivery
(
    `recipient_id` String CODEC(ZSTD(1)) COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 CODEC(T64, ZSTD(1)) COMMENT 'Version of control in force.',
    `delivery_event_id` UUID COMMENT 'UUIDv5 of dispatch, kind and which of them.',
    `dispatch_id` UUID COMMENT 'Which dispatch.',
    `decision_id` UUID COMMENT 'The decision behind it.',
    `campaign` LowCardinality(String) COMMENT 'Campaign.',
    `lane` LowCardinality(String) COMMENT 'Lane it was to go on.',
    `kind` LowCardinality(String) COMMENT 'history, duplicate, delivered, deferred, bounced, expired, recalled or unknown; deferred: it waits and is tried again.',
    `attempt` Int32 COMMENT 'How many times it had been handed to a server, this one included; 0: never.',
    `occurred_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When, on the clock of the deployment.',
    `code` Nullable(Int32) COMMENT 'SMTP reply code, where a server replied.',
    `detail` Nullable(String) CODEC(ZSTD(3)) COMMENT 'The server\'s words without addresses, or what went wrong.',
    `permanent` Bool COMMENT 'For bounced: the address will never work.',
    `template` LowCardinality(Nullable(String)) COMMENT 'Template and hash of what was rendered, name@hash.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Its offset there.',
    `written_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)) COMMENT 'When the row was inserted; information only, a restored table has other times.',
    INDEX recipient recipient_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree(offset)
PARTITION BY toYYYYMM(at)
ORDER BY (toDate(at), recipient_id, partition, offset)
TTL toDateTime(written_at) + INTERVAL 25 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'What became of a released send in DELIVER.';

CREATE OR REPLACE VIEW {views}.delivery
(
    `recipient_id` String COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 COMMENT 'Version of control in force.',
    `delivery_event_id` UUID COMMENT 'UUIDv5 of dispatch, kind and which of them.',
    `dispatch_id` UUID COMMENT 'Which dispatch.',
    `decision_id` UUID COMMENT 'The decision behind it.',
    `campaign` LowCardinality(String) COMMENT 'Campaign.',
    `lane` LowCardinality(String) COMMENT 'Lane it was to go on.',
    `kind` LowCardinality(String) COMMENT 'history, duplicate, delivered, deferred, bounced, expired, recalled or unknown; deferred: it waits and is tried again.',
    `attempt` Int32 COMMENT 'How many times it had been handed to a server, this one included; 0: never.',
    `occurred_at` DateTime64(3, 'UTC') COMMENT 'When, on the clock of the deployment.',
    `code` Nullable(Int32) COMMENT 'SMTP reply code, where a server replied.',
    `detail` Nullable(String) COMMENT 'The server\'s words without addresses, or what went wrong.',
    `permanent` Bool COMMENT 'For bounced: the address will never work.',
    `template` LowCardinality(Nullable(String)) COMMENT 'Template and hash of what was rendered, name@hash.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 COMMENT 'Its offset there.',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') COMMENT 'When the row was inserted; information only, a restored table has other times.'
)
AS SELECT
    `recipient_id`,
    `line`,
    `cut_partition`,
    `cut`,
    `at`,
    `control_version`,
    `delivery_event_id`,
    `dispatch_id`,
    `decision_id`,
    `campaign`,
    `lane`,
    `kind`,
    `attempt`,
    `occurred_at`,
    `code`,
    `detail`,
    `permanent`,
    `template`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.delivery FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'What became of a released send in DELIVER.';
