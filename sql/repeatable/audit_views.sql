-- The audit: two independent proofs that nothing is lost, and the sums of accounting_1h against the stored rows. Each function looks at
-- what was committed since a moment ('-infinity': at everything); `problem` says in words what is wrong, and is null where all is well.
-- Which receive times to scan comes from the ledger: they can be far from commit times when a daemon's clock was wrong. CREATE OR REPLACE
-- cannot change the columns of a function: a change of them needs a numbered migration that drops it first.

-- What retention took, or a tenant's deletion, is not looked for: batches wholly before audit_horizon, sequences up to
-- mqtt_connection_removed.last_sequence, the records in removed_record, hours before the marks of their project.
CREATE OR REPLACE FUNCTION audit_horizon() RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(removed_before), '-infinity') FROM retention_mark
    WHERE table_name IN ('message', 'quarantine') AND tenant_id = '' AND project_id = ''
$$;
COMMENT ON FUNCTION audit_horizon() IS
    'Records received before it are gone from message or quarantine, fully or partly, by the policies for everybody.';

CREATE OR REPLACE FUNCTION audit_span(since timestamptz, until timestamptz DEFAULT 'infinity') RETURNS TABLE (span_from timestamptz,
    span_to timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT lower(span), upper(span) FROM (
        SELECT unnest(range_agg(tstzrange(first_hour, last_hour + interval '1 hour'))) AS span FROM (
            SELECT DISTINCT time_bucket('1 hour', first_received_at) AS first_hour, time_bucket('1 hour', last_received_at) AS last_hour
            FROM ledger WHERE committed_at >= since AND committed_at < until AND kind <> 'accepted_loss' AND first_received_at IS NOT NULL
        ) hours
    ) spans
$$;
COMMENT ON FUNCTION audit_span(timestamptz, timestamptz) IS
    'Receive times, in whole hours (UTC), of the records in batches committed in [since, until).';

CREATE OR REPLACE FUNCTION audit_rows(since timestamptz, until timestamptz DEFAULT 'infinity') RETURNS TABLE (
    received_at timestamptz, kafka_partition integer, kafka_offset bigint, connection_id integer, sequence bigint,
    marked boolean, quarantined boolean, log_generation integer)
LANGUAGE sql STABLE AS $$
    SELECT r.* FROM audit_span(since, until) s CROSS JOIN LATERAL (
        SELECT m.received_at, m.kafka_partition, m.kafka_offset, m.connection_id, m.sequence, m.duplicate_of IS NOT NULL, false,
            m.log_generation
        FROM message m WHERE m.received_at >= s.span_from AND m.received_at < s.span_to
        UNION ALL
        SELECT q.received_at, q.kafka_partition, q.kafka_offset, q.connection_id, q.sequence, q.duplicate_of IS NOT NULL, true,
            q.log_generation
        FROM quarantine q WHERE q.received_at >= s.span_from AND q.received_at < s.span_to
        UNION ALL
        SELECT d.received_at, d.kafka_partition, d.kafka_offset, d.connection_id, d.sequence, d.marked, d.quarantined, d.log_generation
        FROM removed_record d WHERE d.received_at >= s.span_from AND d.received_at < s.span_to
    ) r
$$;
COMMENT ON FUNCTION audit_rows(timestamptz, timestamptz) IS
    'Rows of message, quarantine and removed_record received in the hours of audit_span.';

CREATE OR REPLACE FUNCTION audit_text(first bigint, following bigint) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN following = first + 1 THEN first::text ELSE first || '-' || following - 1 END
$$;
COMMENT ON FUNCTION audit_text(bigint, bigint) IS 'The whole numbers [first, following) as people write them: 17 or 17-20.';

CREATE OR REPLACE FUNCTION audit_partition(kafka_partition integer, log_generation integer) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT 'partition ' || kafka_partition || CASE WHEN log_generation > 0 THEN ' generation ' || log_generation ELSE '' END
$$;
COMMENT ON FUNCTION audit_partition(integer, integer) IS
    'A Kafka partition in words, with the generation of its log unless that is the first one.';

-- Do the ledger's ranges of each log of a partition follow each other, and end at next_offset? Where Kafka's log was cut (log_cut) the next
-- generation begins; what came before it stays as it was.
CREATE OR REPLACE FUNCTION audit_ranges(since timestamptz, until timestamptz DEFAULT 'infinity') RETURNS TABLE (
    kafka_topic text, topic_id text, kafka_partition integer, log_generation integer, from_offset bigint, to_offset bigint, problem text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH recent AS (
        SELECT l.batch_id, l.kind, l.kafka_topic, l.topic_id, l.kafka_partition, l.log_generation, l.from_offset, l.to_offset FROM ledger l
        WHERE l.committed_at >= since AND l.committed_at < until AND l.kind <> 'replay'
    ), earlier AS (
        SELECT l.* FROM (
            SELECT DISTINCT ON (kafka_topic, topic_id, kafka_partition, log_generation) * FROM recent
            ORDER BY kafka_topic, topic_id, kafka_partition, log_generation, batch_id
        ) r CROSS JOIN LATERAL (
            SELECT l.batch_id, l.kind, l.kafka_topic, l.topic_id, l.kafka_partition, l.log_generation, l.from_offset, l.to_offset
                FROM ledger l
            WHERE l.kafka_partition = r.kafka_partition AND l.kafka_topic = r.kafka_topic AND l.topic_id = r.topic_id
              AND l.log_generation = r.log_generation
              AND l.kind <> 'replay' AND l.committed_at < since AND l.from_offset <= r.from_offset
            ORDER BY l.from_offset DESC, l.batch_id DESC LIMIT 2
        ) l
    ), chain AS (
        SELECT c.*, lag(c.kind) OVER w AS kind_1, lag(c.from_offset) OVER w AS from_1, lag(c.to_offset) OVER w AS to_1,
               lag(c.to_offset, 2) OVER w AS to_2
        FROM (SELECT *, true AS is_recent FROM recent UNION ALL SELECT *, false FROM earlier) c
        WINDOW w AS (PARTITION BY c.kafka_topic, c.topic_id, c.kafka_partition, c.log_generation ORDER BY c.batch_id)
    ), step AS (  -- where each range must begin
        SELECT c.*, CASE
            WHEN c.kind = 'log_cut' THEN c.from_offset
            WHEN c.kind_1 = 'log_cut' THEN c.from_1
            WHEN c.kind_1 = 'drain' AND c.kind = 'accepted_loss' AND c.to_1 IN (c.from_offset, c.to_offset) THEN c.from_offset
            WHEN c.kind_1 = 'drain' THEN c.to_1
            -- the log ended before what was drained, and was taken from its end
            WHEN c.kind_1 = 'accepted_loss' AND c.to_2 = c.to_1 THEN c.from_1
            WHEN c.kind_1 = 'accepted_loss' AND c.to_2 IS NULL AND c.from_offset = c.from_1 THEN c.from_1
            WHEN c.kind_1 = 'accepted_loss' THEN c.to_1
            WHEN g.to_offset IS NOT NULL THEN g.to_offset
            WHEN k.first_offset IS NOT NULL AND c.log_generation = 0 AND NOT EXISTS (
                SELECT FROM ledger a WHERE a.kafka_partition = c.kafka_partition AND a.kafka_topic = c.kafka_topic
                    AND a.kind = 'accepted_loss'
            ) THEN k.first_offset
            ELSE c.from_offset END AS must_begin
        FROM chain c
        LEFT JOIN kafka_offset k ON k.topic = c.kafka_topic AND k.topic_id = c.topic_id AND k.kafka_partition = c.kafka_partition
        LEFT JOIN ledger_removed g ON g.kafka_topic = c.kafka_topic AND g.topic_id = c.topic_id AND g.kafka_partition = c.kafka_partition
             AND g.log_generation = c.log_generation
        WHERE c.is_recent
    ), jump AS (
        SELECT s.kafka_topic, s.topic_id, s.kafka_partition, s.log_generation, least(s.must_begin, s.from_offset) AS a,
            greatest(s.must_begin, s.from_offset) AS b,
               s.from_offset > s.must_begin AS gap
        FROM step s WHERE s.from_offset <> s.must_begin
    )
    SELECT j.kafka_topic, j.topic_id, j.kafka_partition, j.log_generation, j.a, j.b,
        audit_partition(j.kafka_partition, j.log_generation) || CASE
        WHEN j.gap THEN ': offset ' || audit_text(j.a, j.b) || ' is in no batch of the ledger'
        ELSE ': offset ' || audit_text(j.a, j.b) || ' is in two batches of the ledger' END
    FROM jump j
    WHERE NOT (j.gap AND EXISTS (  -- a replay has filled it
        SELECT FROM ledger r WHERE r.kind = 'replay' AND r.kafka_partition = j.kafka_partition AND r.topic_id = j.topic_id
          AND r.log_generation = j.log_generation AND r.from_offset < j.b AND r.to_offset > j.a
        HAVING range_agg(int8range(r.from_offset, r.to_offset)) @> int8range(j.a, j.b)
           AND (max(r.last_received_at) < audit_horizon() OR j.b - j.a = (SELECT count(*) FROM (
               SELECT m.kafka_offset FROM message m
               WHERE m.kafka_partition = j.kafka_partition AND m.log_generation = j.log_generation AND m.kafka_offset >= j.a
                   AND m.kafka_offset < j.b
                 AND m.received_at BETWEEN min(r.first_received_at) AND max(r.last_received_at)
               UNION
               SELECT q.kafka_offset FROM quarantine q
               WHERE q.kafka_partition = j.kafka_partition AND q.log_generation = j.log_generation AND q.kafka_offset >= j.a
                   AND q.kafka_offset < j.b
                 AND q.received_at BETWEEN min(r.first_received_at) AND max(r.last_received_at)
               UNION
               SELECT d.kafka_offset FROM removed_record d
               WHERE d.kafka_partition = j.kafka_partition AND d.log_generation = j.log_generation AND d.kafka_offset >= j.a
                   AND d.kafka_offset < j.b
                 AND d.received_at BETWEEN min(r.first_received_at) AND max(r.last_received_at)) f))))
    UNION ALL
    SELECT k.topic, k.topic_id, k.kafka_partition, k.log_generation, k.next_offset, coalesce(e.last, g.to_offset, k.first_offset),
        audit_partition(k.kafka_partition, k.log_generation)
        || ': the ledger ends at offset ' || coalesce(e.last, g.to_offset, k.first_offset) || ', next_offset is ' || k.next_offset
    FROM kafka_offset k
    LEFT JOIN ledger_removed g ON g.kafka_topic = k.topic AND g.topic_id = k.topic_id AND g.kafka_partition = k.kafka_partition
         AND g.log_generation = k.log_generation
    CROSS JOIN LATERAL (
        SELECT max(t.to_offset) AS last,
            coalesce(bool_or(k.next_offset IN (t.to_offset, CASE WHEN t.kind = 'accepted_loss' THEN t.from_offset END)), false) AS fits
        FROM (
            SELECT l.kind, l.from_offset, CASE l.kind WHEN 'log_cut' THEN l.from_offset ELSE l.to_offset END AS to_offset FROM ledger l
            WHERE l.kafka_partition = k.kafka_partition AND l.kafka_topic = k.topic AND l.topic_id = k.topic_id AND l.kind <> 'replay'
              AND l.log_generation = k.log_generation
              AND l.from_offset <= k.next_offset
            ORDER BY l.from_offset DESC, l.batch_id DESC LIMIT 5
        ) t
    ) e
    WHERE until = 'infinity' AND NOT e.fits
      AND NOT (e.last IS NULL AND (k.next_offset = coalesce(g.to_offset, k.first_offset) OR EXISTS (
          SELECT FROM ledger a WHERE a.kafka_partition = k.kafka_partition AND a.kafka_topic = k.topic AND a.kind = 'accepted_loss')))
      AND NOT EXISTS (SELECT FROM dead_letter d WHERE d.topic_id = k.topic_id);
END
$$;
COMMENT ON FUNCTION audit_ranges(timestamptz, timestamptz) IS
    'Ranges of the ledger, committed in [since, until), that do not join; and partitions whose next_offset is not where the ledger ends.';

-- Is each offset of the batches in message or quarantine, exactly once? `wanted` and `stored` are step functions over the offsets of a
-- partition, given by where they change; their difference is 0 everywhere, or names the offsets.
CREATE OR REPLACE FUNCTION audit_offsets(since timestamptz, until timestamptz) RETURNS TABLE (
    kafka_topic text, kafka_partition integer, log_generation integer, from_offset bigint, to_offset bigint, expected bigint, found bigint,
    problem text)
LANGUAGE plpgsql STABLE SET jit = off SET work_mem = '32MB' AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH batch AS MATERIALIZED (
        SELECT l.batch_id, l.kafka_topic, l.kafka_partition, l.log_generation, l.from_offset, l.to_offset, l.empty_offsets,
            l.first_received_at, l.last_received_at
        FROM ledger l WHERE l.kind = 'drain' AND l.committed_at >= since AND l.committed_at < until
          AND l.committed_at >= (SELECT audit_horizon() - interval '1 day')
          AND (l.last_received_at IS NULL OR l.last_received_at >= (SELECT audit_horizon()))
    ), part AS MATERIALIZED (  -- contested: several batches of the window cover an offset, as of two topics; older: earlier ones may
        SELECT p.*, covered > (SELECT sum(upper(r) - lower(r)) FROM unnest(ranges) r) AS contested,
               EXISTS (SELECT FROM ledger l WHERE l.kind = 'accepted_loss' AND l.kafka_partition = p.kafka_partition)
                   OR 1 < (SELECT count(*) FROM kafka_offset k WHERE k.kafka_partition = p.kafka_partition)
                   OR 1 < (SELECT count(DISTINCT l.topic_id) FROM ledger_removed l WHERE l.kafka_partition = p.kafka_partition) AS older
        FROM (
            SELECT kafka_partition, log_generation, range_agg(int8range(from_offset, to_offset)) AS ranges, min(kafka_topic) AS kafka_topic,
                   min(from_offset) AS from_offset, max(to_offset) AS to_offset,
                   sum(to_offset - from_offset - empty_offsets)::bigint AS expected,
                   sum(to_offset - from_offset) AS covered
            FROM batch GROUP BY kafka_partition, log_generation
        ) p
    ), stored AS (
        SELECT r.kafka_partition, r.log_generation, r.kafka_offset, lag(r.kafka_offset) OVER w AS previous,
            lead(r.kafka_offset) OVER w AS following,
               row_number() OVER w AS number
        FROM audit_rows(since, until) r
        JOIN part p ON p.kafka_partition = r.kafka_partition AND p.log_generation = r.log_generation AND p.ranges @> r.kafka_offset
        WINDOW w AS (PARTITION BY r.kafka_partition, r.log_generation ORDER BY r.kafka_offset)
    ), odd AS MATERIALIZED (
        SELECT * FROM stored s WHERE s.previous IS DISTINCT FROM s.kafka_offset - 1 OR s.following IS NULL
    ), change AS (  -- batches with offsets that Kafka has no record for keep their edges, so that no hole lies across one
        SELECT kafka_partition, log_generation, at, sum(delta) AS delta, max(holder) AS holder FROM (
            SELECT kafka_partition, log_generation, from_offset AS at, 1 AS delta, CASE WHEN empty_offsets <> 0
                THEN ARRAY[from_offset, to_offset, batch_id] END AS holder,
                   empty_offsets <> 0 AS edge FROM batch
            UNION ALL SELECT kafka_partition, log_generation, to_offset, -1, NULL, empty_offsets <> 0 FROM batch
            UNION ALL SELECT kafka_partition, log_generation, kafka_offset, -1, NULL, false FROM odd WHERE previous
                IS DISTINCT FROM kafka_offset - 1
            UNION ALL SELECT kafka_partition, log_generation, previous + 1, 1, NULL, false FROM odd WHERE previous <> kafka_offset - 1
            UNION ALL SELECT kafka_partition, log_generation, kafka_offset + 1, 1, NULL, false FROM odd WHERE following IS NULL
        ) e GROUP BY kafka_partition, log_generation, at HAVING sum(delta) <> 0 OR bool_or(edge)
    ), wrong AS MATERIALIZED (
        SELECT c.kafka_partition, c.log_generation, c.at AS a, c.following AS b, c.level, p.kafka_topic, p.contested,
               CASE WHEN c.level > 0 AND NOT p.contested AND c.holder[2] > c.at THEN c.holder[3] END AS batch_id
        FROM (
            SELECT kafka_partition, log_generation, at, sum(delta) OVER w AS level, lead(at) OVER w AS following,
                max(holder) OVER w AS holder FROM change
            WINDOW w AS (PARTITION BY kafka_partition, log_generation ORDER BY at)
        ) c JOIN part p USING (kafka_partition, log_generation) WHERE c.level <> 0
    ), piece AS MATERIALIZED (  -- of a hole in a contested partition, by batch: how many rows each lacks there
        SELECT w.kafka_partition, w.log_generation, w.kafka_topic, w.a AS hole, b.batch_id, b.empty_offsets, x.a, x.b, x.b - x.a - (
            SELECT count(*) FROM (
                SELECT FROM message m WHERE m.received_at BETWEEN b.first_received_at AND b.last_received_at
                  AND m.kafka_partition = b.kafka_partition AND m.log_generation = b.log_generation AND m.kafka_offset >= x.a
                      AND m.kafka_offset < x.b
                UNION ALL
                SELECT FROM quarantine q WHERE q.received_at BETWEEN b.first_received_at AND b.last_received_at
                  AND q.kafka_partition = b.kafka_partition AND q.log_generation = b.log_generation AND q.kafka_offset >= x.a
                      AND q.kafka_offset < x.b
                UNION ALL
                SELECT FROM removed_record d WHERE d.received_at BETWEEN b.first_received_at AND b.last_received_at
                  AND d.kafka_partition = b.kafka_partition AND d.log_generation = b.log_generation AND d.kafka_offset >= x.a
                      AND d.kafka_offset < x.b
            ) r) AS lacking
        FROM wrong w JOIN batch b ON b.kafka_partition = w.kafka_partition AND b.log_generation = w.log_generation AND b.from_offset < w.b
            AND b.to_offset > w.a
        CROSS JOIN LATERAL (SELECT greatest(w.a, b.from_offset) AS a, least(w.b, b.to_offset) AS b) x
        WHERE w.level > 0 AND w.contested
    ), lost AS (
        SELECT kafka_topic, kafka_partition, log_generation, a, b, b - a AS offsets FROM wrong WHERE level > 0 AND NOT contested
            AND batch_id IS NULL
        UNION ALL
        SELECT kafka_topic, kafka_partition, log_generation, a, b, lacking FROM piece WHERE empty_offsets = 0 AND lacking > 0
        UNION ALL
        SELECT kafka_topic, kafka_partition, log_generation, a, b, b - a FROM wrong w WHERE level > 0 AND contested
          AND NOT EXISTS (SELECT FROM piece c WHERE c.kafka_partition = w.kafka_partition AND c.log_generation = w.log_generation
              AND c.hole = w.a AND c.lacking > 0)
    ), lacking AS (  -- batches of which Kafka has no record for some offsets: as many are no loss
        SELECT max(kafka_topic) AS kafka_topic, max(kafka_partition) AS kafka_partition, max(log_generation) AS log_generation,
            max(from_offset) AS from_offset, max(to_offset) AS to_offset,
               max(empty_offsets) AS empty_offsets, sum(offsets)::bigint AS offsets,
               CASE WHEN count(a) <= 5 THEN string_agg(audit_text(a, b), ', ' ORDER BY a) ELSE audit_text(min(a), max(b)) END AS places
        FROM (
            SELECT batch_id, kafka_topic, kafka_partition, log_generation, from_offset, to_offset, empty_offsets, NULL AS a, NULL AS b,
                0 AS offsets FROM batch WHERE empty_offsets <> 0
            UNION ALL SELECT batch_id, NULL, NULL, NULL, NULL, NULL, NULL, a, b, b - a FROM wrong WHERE batch_id IS NOT NULL
            UNION ALL SELECT batch_id, NULL, NULL, NULL, NULL, NULL, NULL, a, b, lacking FROM piece WHERE empty_offsets <> 0 AND lacking > 0
        ) h GROUP BY batch_id HAVING max(empty_offsets) <> sum(offsets)
    ), extra AS (  -- more rows than batches; those of an earlier topic of that name do not count
        SELECT e.* FROM (
            SELECT r.kafka_partition, r.log_generation, r.kafka_offset AS at, bool_or(w.contested) AS contested, count(*) AS rows
            FROM audit_rows(since, until) r JOIN (
                SELECT w.kafka_partition, w.log_generation, range_agg(int8range(w.a, w.b)) AS ranges, bool_or(p.older) AS older,
                    bool_or(p.contested) AS contested
                FROM wrong w JOIN part p USING (kafka_partition, log_generation) WHERE w.level < 0
                    GROUP BY w.kafka_partition, w.log_generation
            ) w ON w.kafka_partition = r.kafka_partition AND w.log_generation = r.log_generation AND w.ranges @> r.kafka_offset
            WHERE NOT (w.older AND EXISTS (
                SELECT FROM ledger l WHERE l.kind = 'drain'
                    AND (l.committed_at < greatest(since, (SELECT audit_horizon() - interval '1 day'))
                    OR l.last_received_at < (SELECT audit_horizon())) AND l.kafka_partition = r.kafka_partition
                  AND l.log_generation = r.log_generation AND l.from_offset <= r.kafka_offset AND l.from_offset > r.kafka_offset - 2000000
                      AND l.to_offset > r.kafka_offset
                  AND r.received_at BETWEEN l.first_received_at AND l.last_received_at))
            GROUP BY 1, 2, 3
        ) e
        WHERE e.rows > CASE WHEN NOT e.contested THEN 1 ELSE (
            SELECT count(*) FROM batch b WHERE b.kafka_partition = e.kafka_partition AND b.log_generation = e.log_generation
                AND b.from_offset <= e.at AND b.to_offset > e.at) END
    )
    SELECT p.kafka_topic, p.kafka_partition, p.log_generation, p.from_offset, p.to_offset, p.expected, coalesce(o.number, 0), NULL
    FROM part p LEFT JOIN odd o ON o.kafka_partition = p.kafka_partition AND o.log_generation = p.log_generation AND o.following IS NULL
    UNION ALL
    SELECT l.kafka_topic, l.kafka_partition, l.log_generation, l.a, l.b, l.offsets, 0,
        audit_partition(l.kafka_partition, l.log_generation) || ' offset ' || audit_text(l.a, l.b) || ' is in no table'
    FROM lost l
    UNION ALL
    SELECT l.kafka_topic, l.kafka_partition, l.log_generation, l.from_offset, l.to_offset, l.to_offset - l.from_offset - l.empty_offsets,
        l.to_offset - l.from_offset - l.offsets,
           audit_partition(l.kafka_partition, l.log_generation) || ' offset ' || coalesce(l.places, audit_text(l.from_offset, l.to_offset))
               || ': ' || l.offsets || ' are in no table, but Kafka has no record for ' || l.empty_offsets || ' of them'
    FROM lacking l
    UNION ALL
    SELECT p.kafka_topic, e.kafka_partition, e.log_generation, min(e.at), max(e.at) + 1, count(*), (count(*) * e.rows)::bigint,
           audit_partition(e.kafka_partition, e.log_generation) || ' offset ' || audit_text(min(e.at),
               max(e.at) + 1) || ' is stored ' || e.rows || ' times'
    FROM (SELECT *, at - row_number() OVER (PARTITION BY kafka_partition, log_generation, rows ORDER BY at) AS island FROM extra) e
        JOIN part p USING (kafka_partition, log_generation)
    GROUP BY p.kafka_topic, e.kafka_partition, e.log_generation, e.rows, e.island
    UNION ALL
    SELECT r.kafka_topic, r.kafka_partition, r.log_generation, r.from_offset, r.to_offset, NULL, NULL, r.problem
        FROM audit_ranges(since, until) r;
END
$$;
COMMENT ON FUNCTION audit_offsets(timestamptz, timestamptz) IS 'audit_offsets of the batches committed in [since, until).';

CREATE OR REPLACE FUNCTION audit_offsets(since timestamptz) RETURNS TABLE (
    kafka_topic text, kafka_partition integer, log_generation integer, from_offset bigint, to_offset bigint, expected bigint, found bigint,
    problem text)
LANGUAGE sql STABLE AS $$
    SELECT * FROM audit_offsets(since, 'infinity')
$$;
COMMENT ON FUNCTION audit_offsets(timestamptz) IS
    'First proof. One row for each partition: its offsets committed since, records expected and found; and one row for each difference, '
    'with its problem.';

-- Are the sequences that each MQTT connection brought into Kafka all there?
CREATE OR REPLACE FUNCTION audit_sequences(since timestamptz, in_flight_window integer DEFAULT 2000) RETURNS TABLE (
    client_id text, connection_number bigint, reported_at timestamptz, checked_from bigint, checked_to bigint, received bigint,
    stored bigint,
    duplicates bigint, quarantined bigint, dead_lettered bigint, in_flight bigint, unacknowledged bigint, missing bigint, repeated bigint,
    unmarked bigint, problem text, holes jsonb)
LANGUAGE plpgsql STABLE SET jit = off SET work_mem = '32MB' AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH numbered AS (
        SELECT r.connection_id, r.sequence, r.marked, r.quarantined, lag(r.sequence) OVER w AS previous
        FROM audit_rows(since) r LEFT JOIN mqtt_connection_removed g USING (connection_id)
        WHERE r.connection_id IS NOT NULL AND r.sequence > coalesce(g.last_sequence, 0)
        WINDOW w AS (PARTITION BY r.connection_id ORDER BY r.sequence, r.marked)
    ), seen AS MATERIALIZED (
        SELECT n.connection_id, min(n.sequence) AS lowest, max(n.sequence) AS highest,
               min(n.previous + 1) FILTER (WHERE n.sequence > n.previous + 1) AS hole_from,
               max(n.sequence - 1) FILTER (WHERE n.sequence > n.previous + 1) AS hole_to,
               count(*) FILTER (WHERE n.sequence IS DISTINCT FROM n.previous AND NOT n.marked AND NOT n.quarantined) AS stored,
               count(*) FILTER (WHERE n.sequence IS DISTINCT FROM n.previous AND n.marked) AS duplicates,
               count(*) FILTER (WHERE n.sequence IS DISTINCT FROM n.previous AND NOT n.marked AND n.quarantined) AS quarantined,
               count(*) FILTER (WHERE n.sequence = n.previous) AS repeated,
               count(*) FILTER (WHERE n.sequence = n.previous AND NOT n.marked) AS unmarked,
               min(n.sequence) FILTER (WHERE n.sequence = n.previous AND NOT n.marked) AS first_unmarked
        FROM numbered n GROUP BY n.connection_id
    ), letter AS MATERIALIZED (
        SELECT DISTINCT d.client_id, d.connection_number, d.sequence FROM dead_letter d WHERE d.sequence IS NOT NULL
        GROUP BY d.client_id, d.connection_number, d.sequence, d.parts HAVING count(DISTINCT d.part) = d.parts
    ), both_sides AS (
        SELECT coalesce(c.client_id, r.client_id) AS client_id, coalesce(c.connection_number, r.connection_number) AS connection_number,
               c.connection_id, s.lowest, s.highest, s.hole_from, s.hole_to, s.stored, s.duplicates, s.quarantined, s.repeated, s.unmarked,
               s.first_unmarked, r.reported_at, r.in_kafka, r.received, r.settled, p.first_received_at, p.last_received_at,
               coalesce(c.first_seen_at < since, false) AS begun_earlier, p.last_sequence, coalesce(g.last_sequence, 0) AS removed,
               coalesce(r.open, NOT EXISTS (
                   SELECT FROM mqtt_connection n WHERE n.client_id = c.client_id AND n.connection_number > c.connection_number)) AS open
        FROM (SELECT s.*, c.client_id, c.connection_number, c.first_seen_at FROM seen s JOIN mqtt_connection c USING (connection_id)) s
        FULL JOIN (SELECT * FROM mqtt_connection_report WHERE moved_at >= since OR open) m
             ON m.client_id = s.client_id AND m.connection_number = s.connection_number
        LEFT JOIN mqtt_connection c ON c.client_id = coalesce(s.client_id, m.client_id)
            AND c.connection_number = coalesce(s.connection_number, m.connection_number)
        LEFT JOIN mqtt_connection_report r ON r.client_id = coalesce(s.client_id, m.client_id)
            AND r.connection_number = coalesce(s.connection_number, m.connection_number)
        LEFT JOIN mqtt_connection_removed g ON g.connection_id = c.connection_id
        LEFT JOIN LATERAL (
            SELECT min(p.first_received_at) AS first_received_at, max(p.last_received_at) AS last_received_at,
                max(p.last_sequence) AS last_sequence
            FROM mqtt_connection_partition p WHERE p.connection_id = c.connection_id
        ) p ON true
    ), bounded AS MATERIALIZED (  -- what must be there: low to high
        SELECT b.*, greatest(b.removed + 1, CASE WHEN b.begun_earlier THEN coalesce(b.lowest, b.last_sequence + 1) ELSE 1 END) AS low,
               coalesce(b.in_kafka, b.highest - in_flight_window, 0) AS high,
               greatest(b.received, b.highest, b.last_sequence) AS last_received
        FROM both_sides b
    ), suspect AS (
        SELECT b.connection_id, b.client_id, b.connection_number, b.first_received_at, b.last_received_at,
               least(b.hole_from, CASE WHEN b.lowest IS NULL OR b.low < b.lowest THEN b.low END, CASE WHEN b.highest < b.high
                   THEN b.highest + 1 END) AS low,
               least(b.high, greatest(b.hole_to, CASE WHEN b.highest IS NULL OR b.high > b.highest THEN b.high END, b.lowest - 1)) AS high
        FROM bounded b
    ), hole AS (
        SELECT x.connection_id, x.client_id, x.connection_number, h.a, h.b, h.after, h.before FROM suspect x CROSS JOIN LATERAL (
            SELECT coalesce(lag(f.sequence) OVER w, x.low - 1) + 1 AS a, f.sequence AS b, lag(f.received_at) OVER w AS after,
                f.received_at AS before FROM (
                SELECT m.sequence, m.received_at FROM message m WHERE m.received_at BETWEEN x.first_received_at AND x.last_received_at
                  AND m.connection_id = x.connection_id AND m.sequence BETWEEN x.low - 1 AND x.high
                UNION ALL
                SELECT q.sequence, q.received_at FROM quarantine q WHERE q.received_at BETWEEN x.first_received_at AND x.last_received_at
                  AND q.connection_id = x.connection_id AND q.sequence BETWEEN x.low - 1 AND x.high
                UNION ALL
                SELECT r.sequence, r.received_at FROM removed_record r
                    WHERE r.received_at BETWEEN x.first_received_at AND x.last_received_at
                  AND r.connection_id = x.connection_id AND r.sequence BETWEEN x.low - 1 AND x.high
                UNION ALL
                SELECT d.sequence, NULL FROM letter d WHERE d.client_id = x.client_id AND d.connection_number = x.connection_number
                    AND d.sequence BETWEEN x.low - 1 AND x.high
                UNION ALL
                SELECT x.high + 1, (SELECT min(m.received_at) FROM message m
                    WHERE m.received_at BETWEEN x.first_received_at AND x.last_received_at
                  AND m.connection_id = x.connection_id AND m.sequence > x.high)
            ) f WINDOW w AS (ORDER BY f.sequence)
        ) h WHERE x.low <= x.high AND h.b > h.a
    ), lost AS (
        SELECT h.client_id, h.connection_number, sum(h.b - h.a)::bigint AS missing,
               string_agg(audit_text(h.a, h.b), ', ' ORDER BY h.a) FILTER (WHERE h.number <= 20) || CASE WHEN count(*) > 20 THEN ', …'
                   ELSE '' END AS places,
               -- of the neighbours
               jsonb_agg(jsonb_build_object('from', h.a, 'to', h.b - 1, 'after', h.after, 'before', h.before, 'topics', (
                   SELECT coalesce(jsonb_agg(n.topic ORDER BY n.topic), '[]') FROM (
                       SELECT DISTINCT s.topic FROM message m JOIN source s USING (source_id)
                       WHERE m.connection_id = h.connection_id AND m.sequence BETWEEN h.a - 10 AND h.b + 9
                         AND (m.received_at BETWEEN h.after - interval '1 second' AND h.after + interval '1 second'
                              OR m.received_at BETWEEN h.before - interval '1 second' AND h.before + interval '1 second')
                       ORDER BY 1 LIMIT 5) n)) ORDER BY h.a) FILTER (WHERE h.number <= 20) AS holes
        FROM (SELECT *, row_number() OVER (PARTITION BY client_id, connection_number ORDER BY a) AS number FROM hole) h
        GROUP BY h.client_id, h.connection_number
    )
    SELECT b.client_id, b.connection_number, b.reported_at, b.low, b.floor,
           CASE WHEN b.begun_earlier OR b.removed > 0
               THEN coalesce(b.stored + b.duplicates + b.quarantined, 0) + d.letters + t.settled + t.unsettled + coalesce(l.missing, 0)
                ELSE coalesce(b.last_received, 0) END,
           coalesce(b.stored, 0), coalesce(b.duplicates, 0), coalesce(b.quarantined, 0), d.letters,
           t.settled + CASE WHEN b.open THEN t.unsettled ELSE 0 END, CASE WHEN b.open THEN 0 ELSE t.unsettled END, coalesce(l.missing, 0),
           coalesce(b.repeated, 0), coalesce(b.unmarked, 0),
           nullif(concat_ws('; ',
               'sequence ' || l.places || CASE WHEN l.missing = 1 THEN ' is' ELSE ' are' END || ' nowhere',
               CASE WHEN b.unmarked > 0 THEN 'sequence ' || b.first_unmarked || CASE WHEN b.unmarked > 1
                   THEN ' and ' || b.unmarked - 1 || ' more are' ELSE ' is' END
                   || ' stored twice without being marked' END), ''), l.holes
    FROM (SELECT *, greatest(high, low - 1) AS floor, coalesce(settled, 0) AS ceiling FROM bounded) b
    LEFT JOIN lost l USING (client_id, connection_number)
    CROSS JOIN LATERAL (
        SELECT count(*) AS letters FROM letter d
        WHERE d.client_id = b.client_id AND d.connection_number = b.connection_number AND d.sequence >= b.low
    ) d
    CROSS JOIN LATERAL (  -- above what must be there, and not found: how far it was acknowledged, and beyond
        SELECT CASE WHEN b.last_received > b.floor
            THEN greatest(b.ceiling - b.floor, 0) - count(DISTINCT f.sequence) FILTER (WHERE f.sequence <= b.ceiling) ELSE 0 END AS settled,
               CASE WHEN b.last_received > b.floor
                   THEN b.last_received - greatest(b.ceiling, b.floor) - count(DISTINCT f.sequence) FILTER (WHERE f.sequence > b.ceiling)
                   ELSE 0 END AS unsettled
        FROM (
            SELECT m.sequence FROM message m WHERE m.received_at BETWEEN b.first_received_at AND b.last_received_at
              AND m.connection_id = b.connection_id AND m.sequence > b.floor AND b.last_received > b.floor
            UNION ALL
            SELECT q.sequence FROM quarantine q WHERE q.received_at BETWEEN b.first_received_at AND b.last_received_at
              AND q.connection_id = b.connection_id AND q.sequence > b.floor AND b.last_received > b.floor
            UNION ALL
            SELECT r.sequence FROM removed_record r WHERE r.received_at BETWEEN b.first_received_at AND b.last_received_at
              AND r.connection_id = b.connection_id AND r.sequence > b.floor AND b.last_received > b.floor
            UNION ALL
            SELECT d.sequence FROM letter d WHERE d.client_id = b.client_id AND d.connection_number = b.connection_number
                AND d.sequence > b.floor
        ) f
    ) t;
END
$$;
COMMENT ON FUNCTION audit_sequences(timestamptz, integer) IS
    'Second proof. One row for each MQTT connection that brought or reported something since: sequences checked_from to checked_to must '
    'be in message, quarantine or dead_letter. Of a connection that was never reported, the last in_flight_window sequences are not '
    'checked. holes: of the missing ones, the first 20 stretches, each with the receive times of its neighbours (null: none) and up to 5 '
    'topics of the ten on either side.';

CREATE OR REPLACE VIEW audit_offset AS SELECT * FROM audit_offsets(now() - interval '24 hours');
COMMENT ON VIEW audit_offset IS 'One row is one Kafka partition or one difference: audit_offsets of the last 24 hours.';
CREATE OR REPLACE VIEW audit_sequence AS SELECT * FROM audit_sequences(now() - interval '24 hours');
COMMENT ON VIEW audit_sequence IS 'One row is one MQTT connection: audit_sequences of the last 24 hours.';
CREATE OR REPLACE VIEW audit_hour AS SELECT * FROM audit_hours(now() - interval '24 hours');
COMMENT ON VIEW audit_hour IS 'One row is one tenant, project and hour: audit_hours of the last 24 hours.';
CREATE OR REPLACE VIEW audit_daemon AS
SELECT client_id, reported_at, fetched_at, received, delivered, dead_lettered, spooled, in_flight, given_up, missing, sessions_lost,
       received - delivered - dead_lettered - spooled - in_flight - given_up - missing AS difference,
       nullif(concat_ws('; ',
           CASE WHEN received <> delivered + dead_lettered + spooled + in_flight + given_up + missing
                THEN 'received ' || received || ', but ' ||  delivered + dead_lettered + spooled + in_flight + given_up + missing ||
                    ' accounted for' END,
           CASE WHEN missing <> 0 THEN missing || ' spool entries vanished' END), '') AS problem
FROM ingest_report;
COMMENT ON VIEW audit_daemon IS
    'One row is the last report of one ingest daemon: received = delivered + dead_lettered + spooled + in_flight + given_up, missing = 0.';

-- Did every second store follow all that the ledger has? Its ranges (sink_range) hold the records that the ledger counted there, its sums
-- add up, nothing lies between two ranges, and what follows its position waits.
CREATE OR REPLACE FUNCTION audit_sinks(since timestamptz) RETURNS TABLE (
    sink text, kafka_topic text, kafka_partition integer, log_generation integer, from_offset bigint, to_offset bigint, stored bigint,
    followed bigint, removed bigint, waiting bigint, points bigint, sent bigint, refused bigint, problem text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH ordered AS MATERIALIZED (  -- what comes behind a range: the next one, the sink's position, or (an earlier log) the log's end
        SELECT r.*, coalesce(lead(r.from_offset) OVER w, CASE WHEN o.log_generation = r.log_generation THEN o.next_offset END) AS next_from
        FROM sink_range r LEFT JOIN sink_offset o USING (sink, topic, kafka_partition)
        WINDOW w AS (PARTITION BY r.sink, r.topic, r.kafka_partition, r.log_generation ORDER BY r.from_offset)
    ), judged AS MATERIALIZED (
        SELECT o.*, l.records AS ledger_records, l.counted, coalesce(h.records, 0) AS left_out,
            EXISTS (SELECT FROM tenant_deletion d WHERE d.requested_at < o.ended_at) AS deleted
        FROM ordered o
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(l.messages + l.quarantined), 0)::bigint AS records,
                coalesce(sum(l.measurements + l.measurement_duplicates), 0)::bigint AS counted
            FROM ledger l
            WHERE l.kafka_partition = o.kafka_partition AND l.from_offset >= o.from_offset AND l.from_offset < o.to_offset
              AND l.log_generation = o.log_generation AND l.kafka_topic = o.topic AND l.kind = 'drain'
        ) l
        CROSS JOIN LATERAL (
            SELECT sum(l.messages + l.quarantined)::bigint AS records FROM ledger l
            WHERE l.kafka_partition = o.kafka_partition AND l.from_offset >= o.to_offset
              AND (o.next_from IS NULL OR l.from_offset < o.next_from)
              AND l.log_generation = o.log_generation AND l.kafka_topic = o.topic AND l.kind = 'drain'
        ) h
        WHERE o.ended_at >= since AND NOT EXISTS (SELECT FROM ledger_removed g
            WHERE g.kafka_topic = o.topic AND g.kafka_partition = o.kafka_partition AND g.log_generation = o.log_generation
              AND g.to_offset > o.from_offset)
    ), explained AS (
        SELECT j.*, nullif(concat_ws(', ',
            CASE WHEN j.records + j.removed <> j.ledger_records
                THEN j.ledger_records || ' records stored, but ' || j.records + j.removed || ' followed' END,
            CASE WHEN j.left_out > 0
                THEN j.left_out || ' records behind it passed over' END,
            CASE WHEN j.removed > 0 AND NOT j.by_time AND NOT j.deleted
                THEN j.removed || ' records were not found, and nothing makes up for them' END,
            -- Whether a replay changed what the records give is asked last: that takes a while.
            CASE WHEN j.values_read < j.counted AND j.removed = 0 AND NOT j.by_time AND NOT j.deleted AND NOT EXISTS (
                    SELECT FROM ledger p
                    WHERE p.kind = 'replay' AND p.kafka_partition = j.kafka_partition AND p.kafka_topic = j.topic
                      AND p.log_generation = j.log_generation AND p.from_offset < j.to_offset AND p.to_offset > j.from_offset)
                THEN j.counted || ' measurements counted, but ' || j.values_read || ' read' END,
            CASE WHEN j.points_found <> j.points_sent + j.points_refused
                THEN j.points_found || ' points found, but ' || j.points_sent + j.points_refused || ' sent or refused' END), '') AS problem
        FROM judged j
    )
    SELECT o.sink, o.topic, o.kafka_partition, o.log_generation,
        coalesce(min(e.from_offset) FILTER (WHERE e.log_generation = o.log_generation), o.next_offset), o.next_offset,
        (coalesce(sum(e.ledger_records), 0) + max(w.records))::bigint, coalesce(sum(e.records), 0)::bigint,
        coalesce(sum(e.removed), 0)::bigint, max(w.records)::bigint, coalesce(sum(e.points_found), 0)::bigint,
        coalesce(sum(e.points_sent), 0)::bigint, coalesce(sum(e.points_refused), 0)::bigint, NULL
    FROM sink_offset o
    LEFT JOIN explained e USING (sink, topic, kafka_partition)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(l.records), 0) AS records FROM (
            SELECT l.messages + l.quarantined AS records FROM ledger l
            WHERE l.kafka_partition = o.kafka_partition AND l.from_offset >= o.next_offset AND l.log_generation = o.log_generation
              AND l.kafka_topic = o.topic AND l.kind = 'drain'
            UNION ALL
            SELECT l.messages + l.quarantined FROM ledger l
            WHERE l.kafka_partition = o.kafka_partition AND l.log_generation > o.log_generation AND l.log_generation > 0
              AND l.kafka_topic = o.topic AND l.kind = 'drain'
        ) l
    ) w
    GROUP BY o.sink, o.topic, o.kafka_partition, o.log_generation, o.next_offset
    UNION ALL
    SELECT e.sink, e.topic, e.kafka_partition, e.log_generation, e.from_offset, e.to_offset, e.ledger_records, e.records, e.removed, 0,
        e.points_found, e.points_sent, e.points_refused, e.problem
    FROM explained e WHERE e.problem IS NOT NULL;
END
$$;
COMMENT ON FUNCTION audit_sinks(timestamptz) IS
    'Third proof, of second stores. One row for each sink and partition: records that it followed since, and those that wait for it: '
    'stored = followed + removed + waiting, points = sent + refused; and one row for each range that differs, with its problem.';
