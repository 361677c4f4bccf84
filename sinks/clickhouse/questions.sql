-- Why did this recipient get a message, or none?
-- Each decision with what held it back, and what became of it; `opportune explain` tells the same as a story.
SELECT d.at, d.campaign, d.outcome, d.reason,
    arrayFilter((name, passed) -> NOT passed, d.gates.name, d.gates.passed) AS held_by,
    arrayFilter(need -> need != '', d.gates.needed) AS needed, d.would_be_due_at, d.arm,
    groupUniqArray(r.outcome) AS releases, groupUniqArray(e.kind) AS deliveries
FROM decision AS d
LEFT JOIN release AS r ON r.decision_id = d.decision_id
LEFT JOIN delivery AS e ON e.decision_id = d.decision_id
WHERE d.recipient_id = '1'
GROUP BY d.decision_id, d.at, d.campaign, d.outcome, d.reason, held_by, needed, d.would_be_due_at, d.arm
ORDER BY d.at DESC;

-- What withholds most?
-- And how many of those nothing else would have held back: what lifting that gate would win.
SELECT reason, uniqExact(decision_id) AS decisions,
    round(100 * decisions / sum(decisions) OVER (), 1) AS percent,
    uniqExactIf(decision_id, arrayCount(passed -> NOT passed, gates.passed) = 1) AS by_it_alone
FROM decision
WHERE outcome = 'withheld'
GROUP BY reason
ORDER BY decisions DESC;

-- Was anything released without consent at that moment?
-- A recipient's records stand on one partition of audit.records, so offsets tell what came first, also
-- within a cut. Releases older than the consent records that are kept count as without. Of marketing mail under
-- `opt_in`; under `opt_out` count `c.state = 'withdrawn'`.
SELECT count() AS released, countIf(c.state != 'granted') AS without_consent
FROM (SELECT recipient_id, decision_id, offset FROM release WHERE outcome = 'released') AS r
INNER JOIN (SELECT decision_id, purpose FROM decision WHERE purpose = 'mail') AS d ON d.decision_id = r.decision_id
ASOF LEFT JOIN (SELECT recipient_id, purpose, state, offset FROM consent) AS c
    ON c.recipient_id = r.recipient_id AND c.purpose = d.purpose AND r.offset > c.offset;

-- Was anybody written to more often than allowed?
-- Most releases of marketing mail within any 16 hours, the window of the packaged policy's cap (in milliseconds
-- here, less one): compare with its `most`, and ask once for each cap of yours, of its purposes.
SELECT most AS most_in_window, count() AS recipients
FROM
(
    SELECT recipient_id, max(in_window) AS most
    FROM
    (
        SELECT recipient_id, count() OVER
            (
                PARTITION BY recipient_id ORDER BY toUnixTimestamp64Milli(at) ASC
                RANGE BETWEEN 57599999 PRECEDING AND CURRENT ROW
            ) AS in_window
        FROM release
        WHERE outcome = 'released' AND decision_id IN (SELECT decision_id FROM decision WHERE purpose = 'mail')
    )
    GROUP BY recipient_id
)
GROUP BY most
ORDER BY most DESC;

-- What does a campaign do, by arm?
-- Each recipient counts once, from the first time at which the message would have gone: then it was scheduled,
-- outranked or held out. Begin at the experiment's first day; who wants no profile is left out, since what they buy is not
-- kept. The model against control says what the hour does, both against hold_out what the message does.
SELECT a.arm, count() AS recipients, countIf(p.last_purchase_at > a.since) AS bought_since,
    round(100 * bought_since / recipients, 1) AS percent
FROM
(
    SELECT recipient_id, arm, min(at) AS since
    FROM decision
    WHERE campaign = 'browse_abandonment' AND arm != 'global_hold_out'
        AND (outcome = 'scheduled' OR reason IN ('hold_out', 'outranked'))
    GROUP BY recipient_id, arm
) AS a
INNER JOIN profile_snapshot AS p ON p.recipient_id = a.recipient_id
WHERE p.consent_profiling = 'granted'
GROUP BY a.arm
ORDER BY a.arm;

-- How many messages bounce, by lane?
SELECT lane, uniqExactIf(dispatch_id, kind = 'delivered') AS delivered,
    uniqExactIf(dispatch_id, kind = 'bounced') AS bounced,
    uniqExactIf(dispatch_id, kind = 'bounced' AND permanent) AS bounced_for_good,
    round(100 * bounced / (delivered + bounced), 2) AS bounced_percent
FROM delivery
GROUP BY lane
ORDER BY delivered + bounced DESC;

-- How long does a decision take to arrive here?
-- Seconds from Kafka's acknowledgement to the insert. After a restore it is the age of the records.
SELECT count() AS decisions,
    arrayMap(q -> round(q, 2), quantiles(0.5, 0.95, 0.99)(date_diff('millisecond', written_at, ingested_at) / 1000))
        AS median_95th_99th
FROM decision;

-- What was scheduled, is due for more than an hour, and was neither released nor withheld?
-- As of the latest cut of DECIDE.
SELECT d.recipient_id, d.decision_id, d.campaign, greatest(d.due_at, w.until) AS due
FROM decision AS d
LEFT ANTI JOIN (SELECT decision_id FROM release WHERE outcome != 'deferred') AS r
    ON r.decision_id = d.decision_id
LEFT JOIN
(
    SELECT decision_id, max(due_at) AS until FROM release WHERE outcome = 'deferred' GROUP BY decision_id
) AS w ON w.decision_id = d.decision_id
WHERE d.outcome = 'scheduled' AND due < (SELECT max(at) FROM cut WHERE line = 'decide') - INTERVAL 1 HOUR
ORDER BY due;

-- Is the audit complete?
-- No number is missing among the cuts, and as many decisions are here as the journal counted.
SELECT j.cut_partition, j.cuts, j.missing_cuts, j.decided AS decided_in_journal, a.decisions AS decisions_here
FROM
(
    SELECT cut_partition, count() AS cuts, max(cut) - min(cut) + 1 - cuts AS missing_cuts, sum(decided) AS decided
    FROM cut
    WHERE line = 'decide'
    GROUP BY cut_partition
) AS j
LEFT JOIN (SELECT cut_partition, count() AS decisions FROM decision GROUP BY cut_partition) AS a
    ON a.cut_partition = j.cut_partition
ORDER BY j.cut_partition;

-- What is left of a recipient?
-- After an erasure every number is 0. Of `activity` all that is stored counts: its view leaves out what was forgotten.
SELECT * FROM
(
    SELECT 'decision' AS view, count() AS rows FROM decision WHERE recipient_id = '1'
    UNION ALL SELECT 'release', count() FROM release WHERE recipient_id = '1'
    UNION ALL SELECT 'closure', count() FROM closure WHERE recipient_id = '1'
    UNION ALL SELECT 'delivery', count() FROM delivery WHERE recipient_id = '1'
    UNION ALL SELECT 'consent', count() FROM consent WHERE recipient_id = '1'
    UNION ALL SELECT 'segment_transition', count() FROM segment_transition WHERE recipient_id = '1'
    UNION ALL SELECT 'profile_snapshot', count() FROM profile_snapshot WHERE recipient_id = '1'
    UNION ALL SELECT 'activity', count() FROM opportune_stored.activity WHERE recipient_id = '1'
)
ORDER BY view;

-- Which versions decided when?
SELECT campaign, campaign_version, policy, min(at) AS first, max(at) AS last, count() AS decisions
FROM decision
GROUP BY campaign, campaign_version, policy
ORDER BY first, campaign;

-- Is anything here twice?
-- Rows that a recorder inserted again are merged away by and by; the views never show them.
SELECT (SELECT count() FROM opportune_stored.decision) AS rows_stored, count() AS rows_in_view,
    uniqExact(decision_id) AS decisions, rows_in_view - decisions AS twice
FROM decision;
