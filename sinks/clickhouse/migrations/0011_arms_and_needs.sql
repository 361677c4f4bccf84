-- Who is in which arm, which campaign went first, what the gates cost, and what would have let a message pass.

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `gates.needed` Array(String) CODEC(ZSTD(3)) COMMENT 'What would have let the message pass; empty where it passed.'
    AFTER `gates.detail`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `arm` LowCardinality(String) DEFAULT 'model' COMMENT 'Arm of the recipient: model, control, hold_out, or global_hold_out.'
    AFTER `policy`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `worth` Nullable(Float64) COMMENT 'Priority times expected value, by which campaigns that ask at one moment compete; NULL where a gate held it back.'
    AFTER `arm`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `outranked_by` LowCardinality(Nullable(String)) COMMENT 'Campaign that went instead, if outranked.'
    AFTER `worth`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `best_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'Best hour of all, if the gates did not leave it.'
    AFTER `outranked_by`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `regret` Nullable(Float64) COMMENT 'Score that the gates cost: the best hour\'s less that of the best hour they left; 0 if they left the best. NULL if withheld, or sent at once. To be compared within a tier.'
    AFTER `best_at`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `would_be_due_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'If withheld: when it would have been due, had every gate that failed let it pass.'
    AFTER `regret`;

ALTER TABLE {stored}.release ADD COLUMN IF NOT EXISTS
    `gates.needed` Array(String) CODEC(ZSTD(3)) COMMENT 'Always empty: a send that comes due has one gate that holds it, and its figures say until when.'
    AFTER `gates.detail`;

ALTER TABLE {stored}.decision COMMENT COLUMN IF EXISTS `gates.name` 'Every gate in the order asked; one that left no hour is set aside for those after it. Until migration 11 those up to the first that held it back.';

ALTER TABLE {stored}.decision COMMENT COLUMN IF EXISTS `tier` 'Where the hour came from: recipient, prior, or unprofiled: the prior, where the recipient did not consent to a profile.';

CREATE OR REPLACE VIEW {views}.decision
(
    `recipient_id` String COMMENT 'Whom it concerns.',
    `line` LowCardinality(String) COMMENT 'Line whose cut it is: decide or deliver.',
    `cut_partition` Int32 COMMENT 'Partition number of the cut; with line and cut it names a row of cut.',
    `cut` Int64 COMMENT 'Number of the cut.',
    `at` DateTime64(3, 'UTC') COMMENT 'The cut\'s now: the time of the deployment\'s clock, which may run in another year.',
    `control_version` Int64 COMMENT 'Version of control in force.',
    `decision_id` UUID COMMENT 'UUIDv5 of cause, recipient, campaign and campaign version.',
    `campaign` LowCardinality(String) COMMENT 'Campaign.',
    `campaign_version` Int32 COMMENT 'Its version.',
    `outcome` LowCardinality(String) COMMENT 'scheduled or withheld.',
    `reason` LowCardinality(String) COMMENT 'From the closed list of reasons.',
    `cause_topic` LowCardinality(Nullable(String)) COMMENT 'Topic of the record that set it off; NULL if the passing of time did.',
    `cause_partition` Nullable(Int32) COMMENT 'Its partition.',
    `cause_offset` Nullable(Int64) COMMENT 'Its offset.',
    `cause_event_id` Nullable(String) COMMENT 'The event\'s id.',
    `cause_due_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'The time that passed, if no event did it.',
    `purpose` LowCardinality(String) COMMENT 'Purpose whose consent it needs.',
    `segments` Array(LowCardinality(String)) COMMENT 'Segments of the recipient at that moment.',
    `features` Map(LowCardinality(String), Float64) COMMENT 'Features that segments and campaigns read, as they were then.',
    `gates.name` Array(LowCardinality(String)) COMMENT 'Every gate in the order asked; one that left no hour is set aside for those after it. Until migration 11 those up to the first that held it back.',
    `gates.passed` Array(Bool) COMMENT 'Whether each let the message pass.',
    `gates.detail` Array(String) COMMENT 'Figures of each, readable.',
    `gates.needed` Array(String) COMMENT 'What would have let the message pass; empty where it passed.',
    `due_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Chosen time, if scheduled.',
    `expires_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Latest time.',
    `tier` LowCardinality(Nullable(String)) COMMENT 'Where the hour came from: recipient, prior, or unprofiled: the prior, where the recipient did not consent to a profile.',
    `score` Nullable(Float64) COMMENT 'Score of the chosen hour.',
    `runner_up_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Second-best hour.',
    `runner_up_score` Nullable(Float64) COMMENT 'Its score.',
    `propensity` Nullable(Float64) COMMENT 'Probability with which this hour was chosen.',
    `policy` LowCardinality(String) COMMENT 'Hash of the policy in force.',
    `arm` LowCardinality(String) COMMENT 'Arm of the recipient: model, control, hold_out, or global_hold_out.',
    `worth` Nullable(Float64) COMMENT 'Priority times expected value, by which campaigns that ask at one moment compete; NULL where a gate held it back.',
    `outranked_by` LowCardinality(Nullable(String)) COMMENT 'Campaign that went instead, if outranked.',
    `best_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Best hour of all, if the gates did not leave it.',
    `regret` Nullable(Float64) COMMENT 'Score that the gates cost: the best hour\'s less that of the best hour they left; 0 if they left the best. NULL if withheld, or sent at once. To be compared within a tier.',
    `would_be_due_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'If withheld: when it would have been due, had every gate that failed let it pass.',
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
    `campaign`,
    `campaign_version`,
    `outcome`,
    `reason`,
    `cause_topic`,
    `cause_partition`,
    `cause_offset`,
    `cause_event_id`,
    `cause_due_at`,
    `purpose`,
    `segments`,
    `features`,
    `gates.name`,
    `gates.passed`,
    `gates.detail`,
    `gates.needed`,
    `due_at`,
    `expires_at`,
    `tier`,
    `score`,
    `runner_up_at`,
    `runner_up_score`,
    `propensity`,
    `policy`,
    `arm`,
    `worth`,
    `outranked_by`,
    `best_at`,
    `regret`,
    `would_be_due_at`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.decision FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A trigger\'s answer: scheduled, or withheld with a reason.';

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
    `gates.needed` Array(String) COMMENT 'Always empty: a send that comes due has one gate that holds it, and its figures say until when.',
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
    `gates.needed`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.release FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A scheduled send came due: released, deferred, or withheld with a reason.';
