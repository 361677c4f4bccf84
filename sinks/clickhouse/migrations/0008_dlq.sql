-- A row is a record and a reason, so that a letter written again by a recorder that was killed is no second one.
-- The origin's time is not known here, hence the letter's `at`, which is the same each time.

CREATE TABLE IF NOT EXISTS {stored}.dlq
(
    `origin_topic` LowCardinality(String) COMMENT 'Topic of the record that could not be handled.',
    `origin_partition` Int32 COMMENT 'Its partition.',
    `origin_offset` Int64 COMMENT 'Its offset; with topic, partition and reason it names the row.',
    `reason` LowCardinality(String) COMMENT 'From the closed list of reasons of dead letters.',
    `error` String CODEC(ZSTD(3)) COMMENT 'What went wrong, and the remedy.',
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Now of the cut that refused it; where the recorder did, when Kafka had taken the record.',
    `cut` Int64 COMMENT 'Number of the cut; 0 where the recorder refused it.',
    `key_bytes` Nullable(UInt32) COMMENT 'Size of its key; NULL: it had none.',
    `key_sha256` Nullable(String) COMMENT 'SHA-256 of its key, hex.',
    `value_bytes` Nullable(UInt32) COMMENT 'Size of its value; NULL: it had none.',
    `value_sha256` Nullable(String) COMMENT 'SHA-256 of its value, hex. The bytes themselves stay on dead.letters: they may hold anything.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Its offset there.',
    `written_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)) COMMENT 'When the row was inserted; information only, a restored table has other times.'
)
ENGINE = ReplacingMergeTree(offset)
PARTITION BY toYYYYMM(at)
ORDER BY (origin_topic, origin_partition, origin_offset, reason)
TTL toDateTime(written_at) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'A record that could not be handled: where it stood, and why.';

CREATE OR REPLACE VIEW {views}.dlq
(
    `origin_topic` LowCardinality(String) COMMENT 'Topic of the record that could not be handled.',
    `origin_partition` Int32 COMMENT 'Its partition.',
    `origin_offset` Int64 COMMENT 'Its offset; with topic, partition and reason it names the row.',
    `reason` LowCardinality(String) COMMENT 'From the closed list of reasons of dead letters.',
    `error` String COMMENT 'What went wrong, and the remedy.',
    `at` DateTime64(3, 'UTC') COMMENT 'Now of the cut that refused it; where the recorder did, when Kafka had taken the record.',
    `cut` Int64 COMMENT 'Number of the cut; 0 where the recorder refused it.',
    `key_bytes` Nullable(UInt32) COMMENT 'Size of its key; NULL: it had none.',
    `key_sha256` Nullable(String) COMMENT 'SHA-256 of its key, hex.',
    `value_bytes` Nullable(UInt32) COMMENT 'Size of its value; NULL: it had none.',
    `value_sha256` Nullable(String) COMMENT 'SHA-256 of its value, hex. The bytes themselves stay on dead.letters: they may hold anything.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 COMMENT 'Its offset there.',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') COMMENT 'When the row was inserted; information only, a restored table has other times.'
)
AS SELECT
    `origin_topic`,
    `origin_partition`,
    `origin_offset`,
    `reason`,
    `error`,
    `at`,
    `cut`,
    `key_bytes`,
    `key_sha256`,
    `value_bytes`,
    `value_sha256`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.dlq FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A record that could not be handled: where it stood, and why.';
