-- Why did this recipient get a message, or none?
-- Each decision with what held it back, and what became of it; `opportune explain` tells the same as a story.
SELECT d.at, d.campaign, d.outcome, d.reason,
    arrayFilter((name, passed) -> NOT passed, d.gates.name, d.gates.passed) AS held_by,
    groupUniqArray(r.outcome) AS releases, groupUniqArray(e.kind) AS deliveries
FROM decision AS d
LEFT JOIN release AS r ON r.decision_id = d.decision_id
LEFT JOIN delivery AS e ON e.decision_id = d.decision_id
WHERE d.recipient_id = '1'
GROUP BY d.decision_id, d.at, d.campaign, d.outcome, d.reason, held_by
ORDER BY d.at DESC;

-- What withholds most?
SELECT reason, uniqExact(decision_id) AS decisions,
    round(100 * decisions / sum(decisions) OVER (), 1) AS percent
FROM decision
WHERE outcome = 'withheld'
GROUP BY reason
ORDER BY decisions DESC;

-- Was anything released without consent at that moment?
-- A recipient's records stand on one partition of audit.records, so offsets tell what came first, also
-- within a cut. Releases older than the consent records that are kept count as without.
SELECT count() AS released, countIf(c.state != 'granted') AS without_consent
FROM (SELECT recipient_id, decision_id, offset FROM release WHERE outcome = 'released') AS r
INNER JOIN (SELECT decision_id, purpose FROM decision) AS d ON d.decision_id = r.decision_id
ASOF LEFT JOIN (SELECT recipient_id, purpose, state, offset FROM consent) AS c
    ON c.recipient_id = r.recipient_id AND c.purpose = d.purpose AND r.offset > c.offset;

-- Was anybody written to more often than allowed?
-- Most releases within any 16 hours, the window of the packaged policy's cap (in milliseconds here, less one):
-- compare with its `most`.
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
        WHERE outcome = 'released'
    )
    GROUP BY recipient_id
)
GROUP BY most
ORDER BY most DESC;

-- Does a recipient's own hour do better than the prior's?
-- Opened: the latest known open of the recipient came after the release.
SELECT d.tier, uniqExact(r.decision_id) AS released,
    uniqExactIf(r.decision_id, p.last_open_at > r.at) AS opened_since,
    round(100 * opened_since / released, 1) AS percent
FROM release AS r
INNER JOIN decision AS d ON d.decision_id = r.decision_id
LEFT JOIN profile_snapshot AS p ON p.recipient_id = r.recipient_id
WHERE r.outcome = 'released'
GROUP BY d.tier
ORDER BY released DESC;

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
-- After an erasure every number is 0.
SELECT * FROM
(
    SELECT 'decision' AS view, count() AS rows FROM decision WHERE recipient_id = '1'
    UNION ALL SELECT 'release', count() FROM release WHERE recipient_id = '1'
    UNION ALL SELECT 'closure', count() FROM closure WHERE recipient_id = '1'
    UNION ALL SELECT 'delivery', count() FROM delivery WHERE recipient_id = '1'
    UNION ALL SELECT 'consent', count() FROM consent WHERE recipient_id = '1'
    UNION ALL SELECT 'segment_transition', count() FROM segment_transition WHERE recipient_id = '1'
    UNION ALL SELECT 'profile_snapshot', count() FROM profile_snapshot WHERE recipient_id = '1'
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
