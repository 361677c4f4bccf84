-- Which model chose an hour, from how much it knew, what spoke for it, and what another would have done.

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `model` LowCardinality(Nullable(String)) COMMENT 'Version of the send-time model that chose the hour; built-in: the policy\'s own. NULL if withheld, and until migration 14.'
    AFTER `would_be_due_at`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `canary` Bool COMMENT 'Whether that was a canary.'
    AFTER `model`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `active_hours` Nullable(Float64) COMMENT 'Active hours that the model knew of, old ones faded.'
    AFTER `canary`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `hours_left` Nullable(Int32) COMMENT 'How many hours there were to choose from.'
    AFTER `active_hours`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `hours_mask` Nullable(Int32) COMMENT 'Which: bit k is the k-th full hour after that of at, of 24; of a campaign that sends at once bit 0 is at itself.'
    AFTER `hours_left`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `first_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'The first of them: what sending as soon as possible would have been.'
    AFTER `hours_mask`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `likeliest_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'The best of them by the recipient\'s own tier, drawn or not.'
    AFTER `first_at`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `terms` Map(LowCardinality(String), Float64) COMMENT 'What spoke for the chosen hour: how far each kind of term puts it above the mean of the hours left, in logits.'
    AFTER `likeliest_at`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `shadow_model` LowCardinality(Nullable(String)) COMMENT 'Version of a model that was asked beside; nothing went by it. NULL if there was none.'
    AFTER `terms`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `shadow_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'The time that it would have chosen.'
    AFTER `shadow_model`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `shadow_score` Nullable(Float64) COMMENT 'Its score of that hour.'
    AFTER `shadow_at`;

ALTER TABLE {stored}.decision ADD COLUMN IF NOT EXISTS
    `shadow_propensity` Nullable(Float64) COMMENT 'The probability with which it would have drawn the hour that was chosen.'
    AFTER `shadow_score`;

ALTER TABLE {stored}.decision COMMENT COLUMN IF EXISTS `tier` 'How the hour was chosen: recipient: by their own hours; thin: too few of them; prior: nothing known, or the control arm; unprofiled: the prior, where the recipient did not consent to a profile. Until migration 14 prior was also for thin ones.';

ALTER TABLE {stored}.decision COMMENT COLUMN IF EXISTS `score` 'Probability, as the model tells it, that the recipient is active in the chosen hour. Until migration 14 its share of their active hours.';

ALTER TABLE {stored}.decision COMMENT COLUMN IF EXISTS `propensity` 'Probability with which this hour was drawn.';

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
    `tier` LowCardinality(Nullable(String)) COMMENT 'How the hour was chosen: recipient: by their own hours; thin: too few of them; prior: nothing known, or the control arm; unprofiled: the prior, where the recipient did not consent to a profile. Until migration 14 prior was also for thin ones.',
    `score` Nullable(Float64) COMMENT 'Probability, as the model tells it, that the recipient is active in the chosen hour. Until migration 14 its share of their active hours.',
    `runner_up_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Second-best hour.',
    `runner_up_score` Nullable(Float64) COMMENT 'Its score.',
    `propensity` Nullable(Float64) COMMENT 'Probability with which this hour was drawn.',
    `policy` LowCardinality(String) COMMENT 'Hash of the policy in force.',
    `arm` LowCardinality(String) COMMENT 'Arm of the recipient: model, control, hold_out, or global_hold_out.',
    `worth` Nullable(Float64) COMMENT 'Priority times expected value, by which campaigns that ask at one moment compete; NULL where a gate held it back.',
    `outranked_by` LowCardinality(Nullable(String)) COMMENT 'Campaign that went instead, if outranked.',
    `best_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'Best hour of all, if the gates did not leave it.',
    `regret` Nullable(Float64) COMMENT 'Score that the gates cost: the best hour\'s less that of the best hour they left; 0 if they left the best. NULL if withheld, or sent at once. To be compared within a tier.',
    `would_be_due_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'If withheld: when it would have been due, had every gate that failed let it pass.',
    `model` LowCardinality(Nullable(String)) COMMENT 'Version of the send-time model that chose the hour; built-in: the policy\'s own. NULL if withheld, and until migration 14.',
    `canary` Bool COMMENT 'Whether that was a canary.',
    `active_hours` Nullable(Float64) COMMENT 'Active hours that the model knew of, old ones faded.',
    `hours_left` Nullable(Int32) COMMENT 'How many hours there were to choose from.',
    `hours_mask` Nullable(Int32) COMMENT 'Which: bit k is the k-th full hour after that of at, of 24; of a campaign that sends at once bit 0 is at itself.',
    `first_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'The first of them: what sending as soon as possible would have been.',
    `likeliest_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'The best of them by the recipient\'s own tier, drawn or not.',
    `terms` Map(LowCardinality(String), Float64) COMMENT 'What spoke for the chosen hour: how far each kind of term puts it above the mean of the hours left, in logits.',
    `shadow_model` LowCardinality(Nullable(String)) COMMENT 'Version of a model that was asked beside; nothing went by it. NULL if there was none.',
    `shadow_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'The time that it would have chosen.',
    `shadow_score` Nullable(Float64) COMMENT 'Its score of that hour.',
    `shadow_propensity` Nullable(Float64) COMMENT 'The probability with which it would have drawn the hour that was chosen.',
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
    `model`,
    `canary`,
    `active_hours`,
    `hours_left`,
    `hours_mask`,
    `first_at`,
    `likeliest_at`,
    `terms`,
    `shadow_model`,
    `shadow_at`,
    `shadow_score`,
    `shadow_propensity`,
    `topic`,
    `partition`,
    `offset`,
    `written_at`,
    `ingested_at`
FROM {stored}.decision FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'A trigger\'s answer: scheduled, or withheld with a reason.';
