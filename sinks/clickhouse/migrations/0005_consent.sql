-- As decision, but kept: it is the proof of a permission for as long as that holds, and no date says how long.
-- Erasure ends it.

CREATE TABLE IF NOT EXISTS {stored}.consent
(
    `recipient_id` String CODEC(ZSTD(1)) COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 CODEC(T64, ZSTD(1)) COMMENT 'Version of control in force.',
    `purpose` LowCardinality(String) COMMENT 'Which purpose, or suppression.',
    `state` LowCardinality(String) COMMENT 'granted, withdrawn or suppressed.',
    `version` Int64 COMMENT 'Version applied.',
    `reason` LowCardinality(Nullable(String)) COMMENT 'Why, for suppression.',
    `cause_topic` LowCardinality(Nullable(String)) COMMENT 'Topic of the record that set it off; NULL if the passing of time did.',
    `cause_partition` Nullable(Int32) COMMENT 'Its partition.',
    `cause_offset` Nullable(Int64) CODEC(ZSTD(1)) COMMENT 'Its offset.',
    `cause_event_id` Nullable(String) CODEC(ZSTD(1)) COMMENT 'The event\'s id.',
    `cause_due_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'The time that passed, if no event did it.',
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
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'A consent or suppression that changed the recipient\'s row.';

CREATE OR REPLACE VIEW {views}.consent
(
    `recipient_id` String COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 COMMENT 'Version of control in force.',
    `purpose` LowCardinality(String) COMMENT 'Which purpose, or suppression.',
    `state` LowCardinality(String) COMMENT 'granted, withdrawn or suppressed.',
    `version` Int64 COMMENT 'Version applied.',
    `reason` LowCardinality(Nullable(String)) COMMENT 'Why, for suppression.',
    `cause_topic` LowCardinality(Nullable(String)) COMMENT 'Topic of the record that set it off; NULL if the passing of time did.',
    `cause_partition` Nullable(Int32) COMMENT 'Its partition.',
    `cause_offset` Nullable(Int64) COMMENT 'Its offset.',
    `cause_event_id` Nullable(String) COMMENT 'The event\'s id.',
    `cause_due_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'The time that passed, if no event did it.',
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
    `purpose`,
    `state`,
    `version`,
    `reason`,
    `cause_topic`,
    `cause_partition`,
    `cause_offset`,
    `cause_event_id`,
    `cause_due_at`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.consent FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A consent or suppression that changed the recipient\'s row.';
