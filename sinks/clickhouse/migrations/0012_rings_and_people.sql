-- What a segment would hold at any moment, by which definitions a recipient is in theirs, and clicks and opens in
-- parts: machines make them too.

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `segments_version` UInt32 COMMENT 'Control version of the segment definitions that `segments` follows; 0: the first ones.'
    AFTER `segments`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `views_by_hour` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Views by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `revenue_30d`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `views_by_day` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Views by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `views_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `clicks_by_hour` Array(Float32) CODEC(ZSTD(1)) COMMENT 'Clicks by UTC hour, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `views_by_day`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `clicks_by_day` Array(Float32) CODEC(ZSTD(1)) COMMENT 'Clicks by UTC day, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `clicks_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `scrolls_by_hour` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Scrolls by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `clicks_by_day`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `scrolls_by_day` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Scrolls by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `scrolls_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `searches_by_hour` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Searches by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `scrolls_by_day`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `searches_by_day` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Searches by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `searches_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `carts_by_hour` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Carts by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `searches_by_day`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `carts_by_day` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Carts by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `carts_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `opens_by_hour` Array(Float32) CODEC(ZSTD(1)) COMMENT 'Opens by UTC hour, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `carts_by_day`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `opens_by_day` Array(Float32) CODEC(ZSTD(1)) COMMENT 'Opens by UTC day, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `opens_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `purchases_by_hour` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Purchases by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.'
    AFTER `opens_by_day`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `purchases_by_day` Array(UInt8) CODEC(ZSTD(1)) COMMENT 'Purchases by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `purchases_by_hour`;

ALTER TABLE {stored}.profile_snapshot ADD COLUMN IF NOT EXISTS
    `revenue_by_day` Array(UInt32) CODEC(ZSTD(1)) COMMENT 'Spent by UTC day, minor units, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.'
    AFTER `purchases_by_day`;

ALTER TABLE {stored}.profile_snapshot MODIFY COLUMN IF EXISTS
    `clicks_1h` Float32 COMMENT 'Clicks in the current hour, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `clicks_6h` Float32 COMMENT 'Clicks in the current hour and the 5 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `clicks_24h` Float32 COMMENT 'Clicks in the current hour and the 23 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `clicks_48h` Float32 COMMENT 'Clicks in the current hour and the 47 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `clicks_7d` Float32 COMMENT 'Clicks in the current UTC day and the 6 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `clicks_14d` Float32 COMMENT 'Clicks in the current UTC day and the 13 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `clicks_30d` Float32 COMMENT 'Clicks in the current UTC day and the 29 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_1h` Float32 COMMENT 'Opens in the current hour, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_6h` Float32 COMMENT 'Opens in the current hour and the 5 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_24h` Float32 COMMENT 'Opens in the current hour and the 23 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_48h` Float32 COMMENT 'Opens in the current hour and the 47 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_7d` Float32 COMMENT 'Opens in the current UTC day and the 6 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_14d` Float32 COMMENT 'Opens in the current UTC day and the 13 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
MODIFY COLUMN IF EXISTS
    `opens_30d` Float32 COMMENT 'Opens in the current UTC day and the 29 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.';

CREATE OR REPLACE VIEW {views}.profile_snapshot
(
    `recipient_id` String COMMENT 'Whose profile.',
    `as_of` DateTime64(3, 'UTC') COMMENT 'The hour to which the row was rolled: windows end with it.',
    `row_version` UInt8 COMMENT 'Version of the row\'s layout.',
    `saturated` Bool COMMENT 'A counter stands at its maximum and has stopped counting.',
    `zone` LowCardinality(String) COMMENT 'IANA zone; empty: unknown.',
    `locale` LowCardinality(String) COMMENT 'Locale; empty: unknown.',
    `provider` LowCardinality(String) COMMENT 'Mailbox provider; empty: unknown.',
    `place` LowCardinality(String) COMMENT 'Coarse place; empty: unknown.',
    `consent_mail` LowCardinality(String) COMMENT 'Consent for mail: unknown, granted or withdrawn.',
    `consent_profiling` LowCardinality(String) COMMENT 'Consent for profiling: unknown, granted or withdrawn.',
    `consent_tracking` LowCardinality(String) COMMENT 'Consent for tracking: unknown, granted or withdrawn.',
    `consent_mail_version` Int64 COMMENT 'Version of the consent for mail; 0: never told.',
    `consent_profiling_version` Int64 COMMENT 'Version of the consent for profiling; 0: never told.',
    `consent_tracking_version` Int64 COMMENT 'Version of the consent for tracking; 0: never told.',
    `suppressed` LowCardinality(String) COMMENT 'Why never to be sent to: bounced, complained or unsubscribed; empty: may be.',
    `segments` Array(LowCardinality(String)) COMMENT 'Segments that the recipient is in; segment_N: one that the policy no longer has.',
    `segments_version` UInt32 COMMENT 'Control version of the segment definitions that `segments` follows; 0: the first ones.',
    `first_event_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Earliest event; NULL: none.',
    `last_view_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest view; NULL: none.',
    `last_click_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest click; NULL: none.',
    `last_scroll_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest scroll; NULL: none.',
    `last_search_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest search; NULL: none.',
    `last_cart_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest cart; NULL: none.',
    `last_open_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest open; NULL: none.',
    `last_purchase_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest purchase; NULL: none.',
    `views_1h` UInt32 COMMENT 'Views in the current hour.',
    `views_6h` UInt32 COMMENT 'Views in the current hour and the 5 before it.',
    `views_24h` UInt32 COMMENT 'Views in the current hour and the 23 before it.',
    `views_48h` UInt32 COMMENT 'Views in the current hour and the 47 before it.',
    `views_7d` UInt32 COMMENT 'Views in the current UTC day and the 6 before it.',
    `views_14d` UInt32 COMMENT 'Views in the current UTC day and the 13 before it.',
    `views_30d` UInt32 COMMENT 'Views in the current UTC day and the 29 before it.',
    `clicks_1h` Float32 COMMENT 'Clicks in the current hour, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `clicks_6h` Float32 COMMENT 'Clicks in the current hour and the 5 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `clicks_24h` Float32 COMMENT 'Clicks in the current hour and the 23 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `clicks_48h` Float32 COMMENT 'Clicks in the current hour and the 47 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `clicks_7d` Float32 COMMENT 'Clicks in the current UTC day and the 6 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `clicks_14d` Float32 COMMENT 'Clicks in the current UTC day and the 13 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `clicks_30d` Float32 COMMENT 'Clicks in the current UTC day and the 29 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `scrolls_1h` UInt32 COMMENT 'Scrolls in the current hour.',
    `scrolls_6h` UInt32 COMMENT 'Scrolls in the current hour and the 5 before it.',
    `scrolls_24h` UInt32 COMMENT 'Scrolls in the current hour and the 23 before it.',
    `scrolls_48h` UInt32 COMMENT 'Scrolls in the current hour and the 47 before it.',
    `scrolls_7d` UInt32 COMMENT 'Scrolls in the current UTC day and the 6 before it.',
    `scrolls_14d` UInt32 COMMENT 'Scrolls in the current UTC day and the 13 before it.',
    `scrolls_30d` UInt32 COMMENT 'Scrolls in the current UTC day and the 29 before it.',
    `searches_1h` UInt32 COMMENT 'Searches in the current hour.',
    `searches_6h` UInt32 COMMENT 'Searches in the current hour and the 5 before it.',
    `searches_24h` UInt32 COMMENT 'Searches in the current hour and the 23 before it.',
    `searches_48h` UInt32 COMMENT 'Searches in the current hour and the 47 before it.',
    `searches_7d` UInt32 COMMENT 'Searches in the current UTC day and the 6 before it.',
    `searches_14d` UInt32 COMMENT 'Searches in the current UTC day and the 13 before it.',
    `searches_30d` UInt32 COMMENT 'Searches in the current UTC day and the 29 before it.',
    `carts_1h` UInt32 COMMENT 'Carts in the current hour.',
    `carts_6h` UInt32 COMMENT 'Carts in the current hour and the 5 before it.',
    `carts_24h` UInt32 COMMENT 'Carts in the current hour and the 23 before it.',
    `carts_48h` UInt32 COMMENT 'Carts in the current hour and the 47 before it.',
    `carts_7d` UInt32 COMMENT 'Carts in the current UTC day and the 6 before it.',
    `carts_14d` UInt32 COMMENT 'Carts in the current UTC day and the 13 before it.',
    `carts_30d` UInt32 COMMENT 'Carts in the current UTC day and the 29 before it.',
    `opens_1h` Float32 COMMENT 'Opens in the current hour, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `opens_6h` Float32 COMMENT 'Opens in the current hour and the 5 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `opens_24h` Float32 COMMENT 'Opens in the current hour and the 23 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `opens_48h` Float32 COMMENT 'Opens in the current hour and the 47 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `opens_7d` Float32 COMMENT 'Opens in the current UTC day and the 6 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `opens_14d` Float32 COMMENT 'Opens in the current UTC day and the 13 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `opens_30d` Float32 COMMENT 'Opens in the current UTC day and the 29 before it, each counted as 1, ½ or ¼ by how probable a person is behind it.',
    `purchases_1h` UInt32 COMMENT 'Purchases in the current hour.',
    `purchases_6h` UInt32 COMMENT 'Purchases in the current hour and the 5 before it.',
    `purchases_24h` UInt32 COMMENT 'Purchases in the current hour and the 23 before it.',
    `purchases_48h` UInt32 COMMENT 'Purchases in the current hour and the 47 before it.',
    `purchases_7d` UInt32 COMMENT 'Purchases in the current UTC day and the 6 before it.',
    `purchases_14d` UInt32 COMMENT 'Purchases in the current UTC day and the 13 before it.',
    `purchases_30d` UInt32 COMMENT 'Purchases in the current UTC day and the 29 before it.',
    `revenue_7d` UInt64 COMMENT 'Spent in the current UTC day and the 6 before it, minor units.',
    `revenue_14d` UInt64 COMMENT 'Spent in the current UTC day and the 13 before it, minor units.',
    `revenue_30d` UInt64 COMMENT 'Spent in the current UTC day and the 29 before it, minor units.',
    `views_by_hour` Array(UInt8) COMMENT 'Views by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `views_by_day` Array(UInt8) COMMENT 'Views by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `clicks_by_hour` Array(Float32) COMMENT 'Clicks by UTC hour, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `clicks_by_day` Array(Float32) COMMENT 'Clicks by UTC day, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `scrolls_by_hour` Array(UInt8) COMMENT 'Scrolls by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `scrolls_by_day` Array(UInt8) COMMENT 'Scrolls by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `searches_by_hour` Array(UInt8) COMMENT 'Searches by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `searches_by_day` Array(UInt8) COMMENT 'Searches by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `carts_by_hour` Array(UInt8) COMMENT 'Carts by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `carts_by_day` Array(UInt8) COMMENT 'Carts by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `opens_by_hour` Array(Float32) COMMENT 'Opens by UTC hour, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `opens_by_day` Array(Float32) COMMENT 'Opens by UTC day, each counted as 1, ½ or ¼ by how probable a person is behind it, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `purchases_by_hour` Array(UInt8) COMMENT 'Purchases by UTC hour, that of as_of first, then the one before it, 48 at most; zeros at the end are left out.',
    `purchases_by_day` Array(UInt8) COMMENT 'Purchases by UTC day, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `revenue_by_day` Array(UInt32) COMMENT 'Spent by UTC day, minor units, that of as_of first, then the one before it, 35 at most; zeros at the end are left out.',
    `pending_sends` UInt8 COMMENT 'Sends that wait for their hour.',
    `released_sends` UInt8 COMMENT 'Sends released and not confirmed yet.',
    `last_sent_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest release; NULL: none.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 COMMENT 'Its offset there.',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') COMMENT 'When the row was inserted; information only, a restored table has other times.'
)
AS SELECT
    `recipient_id`,
    `as_of`,
    `row_version`,
    `saturated`,
    `zone`,
    `locale`,
    `provider`,
    `place`,
    `consent_mail`,
    `consent_profiling`,
    `consent_tracking`,
    `consent_mail_version`,
    `consent_profiling_version`,
    `consent_tracking_version`,
    `suppressed`,
    `segments`,
    `segments_version`,
    `first_event_at`,
    `last_view_at`,
    `last_click_at`,
    `last_scroll_at`,
    `last_search_at`,
    `last_cart_at`,
    `last_open_at`,
    `last_purchase_at`,
    `views_1h`,
    `views_6h`,
    `views_24h`,
    `views_48h`,
    `views_7d`,
    `views_14d`,
    `views_30d`,
    `clicks_1h`,
    `clicks_6h`,
    `clicks_24h`,
    `clicks_48h`,
    `clicks_7d`,
    `clicks_14d`,
    `clicks_30d`,
    `scrolls_1h`,
    `scrolls_6h`,
    `scrolls_24h`,
    `scrolls_48h`,
    `scrolls_7d`,
    `scrolls_14d`,
    `scrolls_30d`,
    `searches_1h`,
    `searches_6h`,
    `searches_24h`,
    `searches_48h`,
    `searches_7d`,
    `searches_14d`,
    `searches_30d`,
    `carts_1h`,
    `carts_6h`,
    `carts_24h`,
    `carts_48h`,
    `carts_7d`,
    `carts_14d`,
    `carts_30d`,
    `opens_1h`,
    `opens_6h`,
    `opens_24h`,
    `opens_48h`,
    `opens_7d`,
    `opens_14d`,
    `opens_30d`,
    `purchases_1h`,
    `purchases_6h`,
    `purchases_24h`,
    `purchases_48h`,
    `purchases_7d`,
    `purchases_14d`,
    `purchases_30d`,
    `revenue_7d`,
    `revenue_14d`,
    `revenue_30d`,
    `views_by_hour`,
    `views_by_day`,
    `clicks_by_hour`,
    `clicks_by_day`,
    `scrolls_by_hour`,
    `scrolls_by_day`,
    `searches_by_hour`,
    `searches_by_day`,
    `carts_by_hour`,
    `carts_by_day`,
    `opens_by_hour`,
    `opens_by_day`,
    `purchases_by_hour`,
    `purchases_by_day`,
    `revenue_by_day`,
    `pending_sends`,
    `released_sends`,
    `last_sent_at`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.profile_snapshot FINAL
COMMENT 'The latest known state of each recipient, from the changelog of DECIDE\'s table.';
