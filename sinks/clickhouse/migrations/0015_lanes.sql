-- What each lane had learnt after a cut, and how many messages waited in it.

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.lane` Array(LowCardinality(String)) CODEC(ZSTD(1)) COMMENT 'DELIVER: Which.'
    AFTER `rows`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.waiting` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Messages that wait in it after the cut.'
    AFTER `lanes.lane`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.rate` Array(Float64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Messages a second that it goes at, apart from stops.'
    AFTER `lanes.waiting`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.tokens` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Messages that might have gone at once at the cut.'
    AFTER `lanes.rate`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.factor` Array(Float64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Share of its rate: less than 1 after deferrals.'
    AFTER `lanes.tokens`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.since` Array(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'DELIVER: When the window began in which attempts and deferrals are counted.'
    AFTER `lanes.factor`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.attempts` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Answers in the window.'
    AFTER `lanes.since`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.deferrals` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Deferrals among them that are the lane\'s.'
    AFTER `lanes.attempts`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.slowed_at` Array(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'DELIVER: When it last slowed down; 1970 if never.'
    AFTER `lanes.deferrals`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.in_a_row` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Deferrals since a message was taken, and since it last stopped.'
    AFTER `lanes.slowed_at`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.stops` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: How often it stopped since a message was taken.'
    AFTER `lanes.in_a_row`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.stopped_until` Array(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'DELIVER: Nothing goes before; 1970 if it never stopped.'
    AFTER `lanes.stops`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.day` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Days since 1970 of the day that the next three are of.'
    AFTER `lanes.stopped_until`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.begun` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Messages begun on the day.'
    AFTER `lanes.day`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.told` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Answers on the day.'
    AFTER `lanes.begun`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.refused` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Deferrals among them.'
    AFTER `lanes.told`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.allowed` Array(Float64) CODEC(ZSTD(1)) COMMENT 'DELIVER: Messages that may go on the day, by the warm-up; 0 without one.'
    AFTER `lanes.refused`;

ALTER TABLE {stored}.cut ADD COLUMN IF NOT EXISTS
    `lanes.warm_days` Array(Int64) CODEC(ZSTD(1)) COMMENT 'DELIVER: How often that has grown.'
    AFTER `lanes.allowed`;

CREATE OR REPLACE VIEW {views}.cut
(
    `line` LowCardinality(String) COMMENT 'decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number.',
    `cut` Int64 COMMENT 'Number of the cut; grows by one with each.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now.',
    `control_version` Int64 COMMENT 'Next offset of control.changes in force.',
    `policy` LowCardinality(String) COMMENT 'Hash of the policy in force.',
    `plan_offset` Int64 COMMENT 'DECIDE: Next offset of decide.plan.',
    `plan_id` LowCardinality(Nullable(String)) COMMENT 'DECIDE: Plan being followed, or NULL.',
    `history` Bool COMMENT 'DECIDE: commands of this cut are history.',
    `topics.topic` Array(LowCardinality(String)) COMMENT 'Source topics of the cut.',
    `topics.next_offset` Array(Int64) COMMENT 'Where the next cut goes on.',
    `topics.consumed` Array(Int64) COMMENT 'Records in the cut.',
    `topics.no_trigger` Array(Int64) COMMENT 'DECIDE: Took effect, set off no campaign.',
    `topics.decided` Array(Int64) COMMENT 'DECIDE: Set off at least one decision.',
    `topics.filtered` Array(Int64) COMMENT 'DECIDE: Deliberately without effect: duplicate, stale, unknown dispatch. DELIVER: Deliberately without effect: repeated commands, recalls of what is over.',
    `topics.dead_lettered` Array(Int64) COMMENT 'Sent to the dead letters.',
    `topics.rekeyed` Array(Int64) COMMENT 'DECIDE: Sent on to its right partition.',
    `topics.late` Array(Int64) COMMENT 'DECIDE: Of those that took effect, came more than an hour late.',
    `topics.accepted` Array(Int64) COMMENT 'DELIVER: Commands taken up, recalls that stopped or will stop a message.',
    `decided` Int64 COMMENT 'DECIDE: Decisions made.',
    `withheld` Int64 COMMENT 'DECIDE: Of those, withheld.',
    `released` Int64 COMMENT 'DECIDE: Commands sent.',
    `dropped` Int64 COMMENT 'DECIDE: Scheduled sends withheld at release.',
    `pending` Int64 COMMENT 'DECIDE: Scheduled sends that wait after this cut, in the whole partition. DELIVER: Messages that wait after this cut, in the whole partition.',
    `historic` Int64 COMMENT 'DELIVER: Commands of loaded history: recorded, never sent.',
    `duplicate` Int64 COMMENT 'DELIVER: Commands that had come before.',
    `delivered` Int64 COMMENT 'DELIVER: Messages that a server took.',
    `bounced` Int64 COMMENT 'DELIVER: Messages that a server refused for good.',
    `expired` Int64 COMMENT 'DELIVER: Messages whose time passed before they could go.',
    `recalled` Int64 COMMENT 'DELIVER: Messages called back before they went.',
    `unknown` Int64 COMMENT 'DELIVER: Messages that may have gone: their outcome was lost.',
    `deferred` Int64 COMMENT 'DELIVER: Attempts that are to be made again.',
    `claimed` Int64 COMMENT 'DELIVER: Messages claimed for sending.',
    `returned` Int64 COMMENT 'DELIVER: Claims given back: paused, or not begun in time.',
    `in_flight` Int64 COMMENT 'DELIVER: Messages claimed and without outcome after this cut, in the whole partition.',
    `rows` Int64 COMMENT 'Rows of the line\'s table after this cut, in the whole partition; -1 where it was not counted yet.',
    `lanes.lane` Array(LowCardinality(String)) COMMENT 'DELIVER: Which.',
    `lanes.waiting` Array(Int64) COMMENT 'DELIVER: Messages that wait in it after the cut.',
    `lanes.rate` Array(Float64) COMMENT 'DELIVER: Messages a second that it goes at, apart from stops.',
    `lanes.tokens` Array(Int64) COMMENT 'DELIVER: Messages that might have gone at once at the cut.',
    `lanes.factor` Array(Float64) COMMENT 'DELIVER: Share of its rate: less than 1 after deferrals.',
    `lanes.since` Array(DateTime64(3, 'UTC')) COMMENT 'DELIVER: When the window began in which attempts and deferrals are counted.',
    `lanes.attempts` Array(Int64) COMMENT 'DELIVER: Answers in the window.',
    `lanes.deferrals` Array(Int64) COMMENT 'DELIVER: Deferrals among them that are the lane\'s.',
    `lanes.slowed_at` Array(DateTime64(3, 'UTC')) COMMENT 'DELIVER: When it last slowed down; 1970 if never.',
    `lanes.in_a_row` Array(Int64) COMMENT 'DELIVER: Deferrals since a message was taken, and since it last stopped.',
    `lanes.stops` Array(Int64) COMMENT 'DELIVER: How often it stopped since a message was taken.',
    `lanes.stopped_until` Array(DateTime64(3, 'UTC')) COMMENT 'DELIVER: Nothing goes before; 1970 if it never stopped.',
    `lanes.day` Array(Int64) COMMENT 'DELIVER: Days since 1970 of the day that the next three are of.',
    `lanes.begun` Array(Int64) COMMENT 'DELIVER: Messages begun on the day.',
    `lanes.told` Array(Int64) COMMENT 'DELIVER: Answers on the day.',
    `lanes.refused` Array(Int64) COMMENT 'DELIVER: Deferrals among them.',
    `lanes.allowed` Array(Float64) COMMENT 'DELIVER: Messages that may go on the day, by the warm-up; 0 without one.',
    `lanes.warm_days` Array(Int64) COMMENT 'DELIVER: How often that has grown.',
    `topic` LowCardinality(String) COMMENT 'Kafka topic of the record.',
    `partition` Int32 COMMENT 'Its partition there.',
    `offset` Int64 COMMENT 'Its offset there.',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When Kafka took the record, by the broker\'s clock; retention counts from it.',
    `ingested_at` DateTime64(3, 'UTC') COMMENT 'When the row was inserted; information only, a restored table has other times.'
)
AS SELECT
    `line`,
    `cut_partition`,
    `cut`,
    `at`,
    `control_version`,
    `policy`,
    `plan_offset`,
    `plan_id`,
    `history`,
    `topics.topic`,
    `topics.next_offset`,
    `topics.consumed`,
    `topics.no_trigger`,
    `topics.decided`,
    `topics.filtered`,
    `topics.dead_lettered`,
    `topics.rekeyed`,
    `topics.late`,
    `topics.accepted`,
    `decided`,
    `withheld`,
    `released`,
    `dropped`,
    `pending`,
    `historic`,
    `duplicate`,
    `delivered`,
    `bounced`,
    `expired`,
    `recalled`,
    `unknown`,
    `deferred`,
    `claimed`,
    `returned`,
    `in_flight`,
    `rows`,
    `lanes.lane`,
    `lanes.waiting`,
    `lanes.rate`,
    `lanes.tokens`,
    `lanes.factor`,
    `lanes.since`,
    `lanes.attempts`,
    `lanes.deferrals`,
    `lanes.slowed_at`,
    `lanes.in_a_row`,
    `lanes.stops`,
    `lanes.stopped_until`,
    `lanes.day`,
    `lanes.begun`,
    `lanes.told`,
    `lanes.refused`,
    `lanes.allowed`,
    `lanes.warm_days`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.cut FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One cut of DECIDE or DELIVER: what was handled together, when, in which order.';

CREATE OR REPLACE VIEW {views}.lane_standing
(
    `cut_partition` Int32 COMMENT 'Partition number.',
    `cut` Int64 COMMENT 'Number of the cut; grows by one with each.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now.',
    `lane` LowCardinality(String) COMMENT 'Which.',
    `waiting` Int64 COMMENT 'Messages that wait in it after the cut.',
    `rate` Float64 COMMENT 'Messages a second that it goes at, apart from stops.',
    `tokens` Int64 COMMENT 'Messages that might have gone at once at the cut.',
    `factor` Float64 COMMENT 'Share of its rate: less than 1 after deferrals.',
    `since` DateTime64(3, 'UTC') COMMENT 'When the window began in which attempts and deferrals are counted.',
    `attempts` Int64 COMMENT 'Answers in the window.',
    `deferrals` Int64 COMMENT 'Deferrals among them that are the lane\'s.',
    `slowed_at` DateTime64(3, 'UTC') COMMENT 'When it last slowed down; 1970 if never.',
    `in_a_row` Int64 COMMENT 'Deferrals since a message was taken, and since it last stopped.',
    `stops` Int64 COMMENT 'How often it stopped since a message was taken.',
    `stopped_until` DateTime64(3, 'UTC') COMMENT 'Nothing goes before; 1970 if it never stopped.',
    `day` Int64 COMMENT 'Days since 1970 of the day that the next three are of.',
    `begun` Int64 COMMENT 'Messages begun on the day.',
    `told` Int64 COMMENT 'Answers on the day.',
    `refused` Int64 COMMENT 'Deferrals among them.',
    `allowed` Float64 COMMENT 'Messages that may go on the day, by the warm-up; 0 without one.',
    `warm_days` Int64 COMMENT 'How often that has grown.'
)
AS SELECT
    `cut_partition`,
    `cut`,
    `at`,
    `lanes.lane` AS `lane`,
    `lanes.waiting` AS `waiting`,
    `lanes.rate` AS `rate`,
    `lanes.tokens` AS `tokens`,
    `lanes.factor` AS `factor`,
    `lanes.since` AS `since`,
    `lanes.attempts` AS `attempts`,
    `lanes.deferrals` AS `deferrals`,
    `lanes.slowed_at` AS `slowed_at`,
    `lanes.in_a_row` AS `in_a_row`,
    `lanes.stops` AS `stops`,
    `lanes.stopped_until` AS `stopped_until`,
    `lanes.day` AS `day`,
    `lanes.begun` AS `begun`,
    `lanes.told` AS `told`,
    `lanes.refused` AS `refused`,
    `lanes.allowed` AS `allowed`,
    `lanes.warm_days` AS `warm_days`
FROM {views}.cut
ARRAY JOIN `lanes.lane`, `lanes.waiting`, `lanes.rate`, `lanes.tokens`, `lanes.factor`, `lanes.since`, `lanes.attempts`, `lanes.deferrals`, `lanes.slowed_at`, `lanes.in_a_row`, `lanes.stops`, `lanes.stopped_until`, `lanes.day`, `lanes.begun`, `lanes.told`, `lanes.refused`, `lanes.allowed`, `lanes.warm_days`
COMMENT 'A lane after a cut of DELIVER: how fast it goes, what it has learnt, how many messages wait in it.';
