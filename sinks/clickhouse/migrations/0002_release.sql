-- As decision.

CREATE TABLE IF NOT EXISTS {stored}.release
(
    `recipient_id` String CODEC(ZSTD(1)) COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 CODEC(T64, ZSTD(1)) COMMENT 'Version of control in force.',
    `decision_id` UUID COMMENT 'Which decision.',
    `dispatch_id` UUID COMMENT 'Its dispatch: the message that it sends.',
    `campaign` LowCardinality(String) COMMENT 'Campaign.',
    `outcome` LowCardinality(String) COMMENT 'released, withheld or deferred.',
    `reason` LowCardinality(String) COMMENT 'From the closed list of reasons.',
    `due_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When it was due.',
    `lane` LowCardinality(Nullable(String)) COMMENT 'Lane, if released.',
    `history` Bool COMMENT 'Of loaded history: recorded, never sent.',
    `gates.name` Array(LowCardinality(String)) COMMENT 'Gates asked again, in order, up to the first that held it back.',
    `gates.passed` Array(Bool) COMMENT 'Whether each let the message pass.',
    `gates.detail` Array(String) CODEC(ZSTD(3)) COMMENT 'Figures of each, readable.',
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
COMMENT 'A scheduled send came due: released, deferred, or withheld with a reason.';

CREATE OR REPLACE VIEW {views}.release
(
    `recipient_id` String COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 COMMENT 'Version of control in force.',
    `decision_id` UUID COMMENT 'Which decision.',
    `dispatch_id` UUID COMMENT 'Its dispatch: the message that it sends.',
    `campaign` LowCardinality(String) COMMENT 'Campaign.',
    `outcome` LowCardinality(String) COMMENT 'released, withheld or deferred.',
    `reason` LowCardinality(String) COMMENT 'From the closed list of reasons.',
    `due_at` DateTime64(3, 'UTC') COMMENT 'When it was due.',
    `lane` LowCardinality(Nullable(String)) COMMENT 'Lane, if released.',
    `history` Bool COMMENT 'Of loaded history: recorded, never sent.',
    `gates.name` Array(LowCardinality(String)) COMMENT 'Gates asked again, in order, up to the first that held it back.',
    `gates.passed` Array(Bool) COMMENT 'Whether each let the message pass.',
    `gates.detail` Array(String) COMMENT 'Figures of each, readable.',
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
    `decision_id`,
    `dispatch_id`,
    `campaign`,
    `outcome`,
    `reason`,
    `due_at`,
    `lane`,
    `history`,
    `gates.name`,
    `gates.passed`,
    `gates.detail`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.release FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A scheduled send came due: released, deferred, or withheld with a reason.';
