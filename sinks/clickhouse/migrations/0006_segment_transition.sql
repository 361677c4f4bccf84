-- As decision.

CREATE TABLE IF NOT EXISTS {stored}.segment_transition
(
    `recipient_id` String CODEC(ZSTD(1)) COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 CODEC(T64, ZSTD(1)) COMMENT 'Version of control in force.',
    `segment` LowCardinality(String) COMMENT 'Which.',
    `entered` Bool COMMENT 'True: entered, false: left.',
    `cause_topic` LowCardinality(Nullable(String)) COMMENT 'Topic of the record that set it off; NULL if the passing of time did.',
    `cause_partition` Nullable(Int32) COMMENT 'Its partition.',
    `cause_offset` Nullable(Int64) CODEC(ZSTD(1)) COMMENT 'Its offset.',
    `cause_event_id` Nullable(String) CODEC(ZSTD(1)) COMMENT 'The event\'s id.',
    `cause_due_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'The time that passed, if no event did it.',
    `definition` LowCardinality(String) COMMENT 'Hash of its definition.',
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
COMMENT 'A recipient entered or left a segment.';

CREATE OR REPLACE VIEW {views}.segment_transition
(
    `recipient_id` String COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 COMMENT 'Version of control in force.',
    `segment` LowCardinality(String) COMMENT 'Which.',
    `entered` Bool COMMENT 'True: entered, false: left.',
    `cause_topic` LowCardinality(Nullable(String)) COMMENT 'Topic of the record that set it off; NULL if the passing of time did.',
    `cause_partition` Nullable(Int32) COMMENT 'Its partition.',
    `cause_offset` Nullable(Int64) COMMENT 'Its offset.',
    `cause_event_id` Nullable(String) COMMENT 'The event\'s id.',
    `cause_due_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'The time that passed, if no event did it.',
    `definition` LowCardinality(String) COMMENT 'Hash of its definition.',
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
    `segment`,
    `entered`,
    `cause_topic`,
    `cause_partition`,
    `cause_offset`,
    `cause_event_id`,
    `cause_due_at`,
    `definition`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.segment_transition FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A recipient entered or left a segment.';
