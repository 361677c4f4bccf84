-- Hours in which recipients were active: what send time learns from, and whether somebody came after a message.
-- By day, then recipient, so that the last days and what followed decisions are read in the order of the tables of
-- decisions; partitioned by the hour's own month, or a former state in another partition would stay.
--
-- A withdrawal of consent to profiling empties a recipient's profile, and with it goes all that was stored here
-- before. The view leaves it out: a profile that was emptied begins again with a later first event, or has none.
-- Where a record comes late, though, the first event only becomes earlier. So an hour is shown as long as the first
-- event of the profile that it was read from is not before that of the profile as it is now; it is not, where there
-- is no profile any more. (Only an event that comes after new consent and is older than all of the profile before
-- the withdrawal would bring that one back.) An inner join, and of profiles with behaviour alone: no list of those
-- who withdrew, which would never end, need be kept or asked.

CREATE TABLE IF NOT EXISTS {stored}.activity
(
    `recipient_id` String CODEC(ZSTD(1)) COMMENT 'Who was active.',
    `hour` DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'In which hour: its beginning.',
    `zone` LowCardinality(String) COMMENT 'IANA zone of the recipient then; empty: unknown.',
    `weight` Float32 CODEC(ZSTD(1)) COMMENT 'What it counts of an active hour, by its strongest kind: 1, less where there were opens alone, or machines may have clicked or opened.',
    `clicks` Float32 CODEC(ZSTD(1)) COMMENT 'Clicks in it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `purchases` UInt8 CODEC(ZSTD(1)) COMMENT 'Purchases in it.',
    `first_event_at` DateTime64(3, 'UTC') CODEC(ZSTD(1)) COMMENT 'Earliest event of the profile that it was read from.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'Its offset there: of the latest record that tells of the hour.',
    `written_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)) COMMENT 'When the row was inserted; information only, a restored table has other times.',
    INDEX recipient recipient_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree(offset)
PARTITION BY toYYYYMM(hour)
ORDER BY (toDate(hour), recipient_id, hour)
TTL toDateTime(written_at) + INTERVAL 25 MONTH
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'The hours in which each recipient was active, from the changelog of DECIDE\'s table; of those alone whose behaviour may be kept.';

CREATE OR REPLACE VIEW {views}.activity
(
    `recipient_id` String COMMENT 'Who was active.',
    `hour` DateTime('UTC') COMMENT 'In which hour: its beginning.',
    `zone` LowCardinality(String) COMMENT 'IANA zone of the recipient then; empty: unknown.',
    `weight` Float32 COMMENT 'What it counts of an active hour, by its strongest kind: 1, less where there were opens alone, or machines may have clicked or opened.',
    `clicks` Float32 COMMENT 'Clicks in it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `purchases` UInt8 COMMENT 'Purchases in it.',
    `first_event_at` DateTime64(3, 'UTC') COMMENT 'Earliest event of the profile that it was read from.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 COMMENT 'Its offset there: of the latest record that tells of the hour.',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') COMMENT 'When the row was inserted; information only, a restored table has other times.'
)
AS SELECT
    a.`recipient_id` AS `recipient_id`,
    a.`hour` AS `hour`,
    a.`zone` AS `zone`,
    a.`weight` AS `weight`,
    a.`clicks` AS `clicks`,
    a.`purchases` AS `purchases`,
    a.`first_event_at` AS `first_event_at`,
    a.`topic` AS `topic`,
    a.`partition` AS `partition`,
    a.`offset` AS `offset`,
    a.`written_at` AS `written_at`,
    a.`ingested_at` AS `ingested_at`
FROM {stored}.activity AS a FINAL
INNER JOIN
(
    SELECT `recipient_id`, `first_event_at` FROM {stored}.profile_snapshot FINAL WHERE isNotNull(`first_event_at`)
) AS p ON p.`recipient_id` = a.`recipient_id`
WHERE a.`first_event_at` >= p.`first_event_at`
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'The hours in which each recipient was active, from the changelog of DECIDE\'s table; of those alone whose behaviour may be kept.';
