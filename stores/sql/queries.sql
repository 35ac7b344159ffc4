-- Every statement of the store, by name. Nothing is formatted into them: values are bound.

-- name: create_stage
-- Where a batch lands by COPY before it is merged; private to the session and empty again after each transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS stage (
    segment_id   int    NOT NULL,
    context_hash uuid   NOT NULL,
    context_key  text   NOT NULL,
    included     bool   NOT NULL,
    event_time   bigint NOT NULL,
    position     bigint NOT NULL,
    covered      bool   NOT NULL DEFAULT false
) ON COMMIT DELETE ROWS;

-- name: find_exceptions
-- Nearly always there are none, and the next two statements need no run over the stage. COPY gave this transaction its
-- xid before this reads: who clears or erases, and can't be seen here, knows that it must wait for us.
SELECT EXISTS (
    SELECT FROM segment WHERE id = ANY ($1::int[]) AND cleared_event_time > '-9223372036854775808'::bigint
) AS cleared, EXISTS (SELECT FROM erasure) AS erased;

-- name: drop_erased
-- Whoever was erased stays out, whatever says otherwise.
WITH dropped AS (
    DELETE FROM stage USING erasure_salt, erasure
    WHERE erasure.salted_hash = sha256(salt || uuid_send(stage.context_hash))
    RETURNING segment_id
)
SELECT segment_id, count(*) FROM dropped GROUP BY segment_id;

-- name: cover_cleared
-- What is older than its segment's clearing is out on arrival.
UPDATE stage SET included = false, covered = true
FROM segment
WHERE segment.id = stage.segment_id AND stage.included
  AND (stage.event_time, stage.position) < (segment.cleared_event_time, segment.cleared_position)
  AND segment.id = ANY ($1::int[]);

-- name: merge_stage
-- Older versions lose, so any order and any repetition end in the same state. Rows are met in the key's order by every
-- writer, so two of them never wait for each other in a circle. Only the newest delta of a key in the batch counts.
MERGE INTO membership AS m
USING (
    SELECT DISTINCT ON (segment_id, context_hash) *
    FROM stage
    ORDER BY segment_id, context_hash, event_time DESC, position DESC
) AS d
ON m.segment_id = d.segment_id AND m.context_hash = d.context_hash
WHEN MATCHED AND (m.event_time, m.position) < (d.event_time, d.position) THEN
    UPDATE SET included = d.included, covered = d.covered, event_time = d.event_time, position = d.position,
               change_xid = CASE WHEN m.included <> d.included THEN pg_current_xact_id() ELSE m.change_xid END
WHEN NOT MATCHED THEN
    INSERT (segment_id, context_hash, context_key, included, covered, event_time, position, change_xid)
    VALUES (d.segment_id, d.context_hash, d.context_key, d.included, d.covered, d.event_time, d.position,
            CASE WHEN d.included THEN pg_current_xact_id() END);

-- name: upsert_stage
-- The same, for when MERGE met a key that another session was inserting at that moment (unique_violation): this form
-- waits for the other session and then compares versions with what it left.
INSERT INTO membership AS m (segment_id, context_hash, context_key, included, covered, event_time, position, change_xid)
SELECT DISTINCT ON (segment_id, context_hash)
       segment_id, context_hash, context_key, included, covered, event_time, position,
       CASE WHEN included THEN pg_current_xact_id() END
FROM stage
ORDER BY segment_id, context_hash, event_time DESC, position DESC
ON CONFLICT (segment_id, context_hash) DO UPDATE
SET included = excluded.included, covered = excluded.covered,
    event_time = excluded.event_time, position = excluded.position,
    change_xid = CASE WHEN m.included <> excluded.included THEN pg_current_xact_id() ELSE m.change_xid END
WHERE (m.event_time, m.position) < (excluded.event_time, excluded.position);

-- name: count_flips
-- Exact counts of what this transaction changed, kept on the segment. Segments are locked in order of their id.
WITH flips AS (
    SELECT segment_id, sum(CASE WHEN included THEN 1 ELSE -1 END) AS change
    FROM membership
    WHERE change_xid = pg_current_xact_id()
    GROUP BY segment_id
), locked AS MATERIALIZED (
    SELECT id FROM segment WHERE id IN (SELECT segment_id FROM flips) ORDER BY id FOR NO KEY UPDATE
)
UPDATE segment
SET included_count = segment.included_count + flips.change, last_change_at = now()
FROM flips JOIN locked ON locked.id = flips.segment_id
WHERE segment.id = flips.segment_id;

-- name: count_stale
-- How many staged deltas this transaction did not store, by segment: something newer, or the same, was there.
SELECT stage.segment_id, count(*) AS stale
FROM stage
WHERE NOT EXISTS (
    SELECT FROM membership AS m
    WHERE m.segment_id = stage.segment_id AND m.context_hash = stage.context_hash
      AND m.event_time = stage.event_time AND m.position = stage.position
      AND m.xmin = pg_current_xact_id()::xid
)
GROUP BY stage.segment_id;

-- name: lock_segments
-- Whoever completes a session has to see the pages that others noted, so they go one after the other.
SELECT FROM segment WHERE id = ANY ($1::int[]) ORDER BY id FOR NO KEY UPDATE;

-- name: note_clearing
-- Of a page that came twice the newer one counts: the session began anew. Without a number of pages, the oldest.
INSERT INTO clearing AS c (segment_id, session, pages, page, event_time, position)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (segment_id, session, pages, page) DO UPDATE
SET event_time = excluded.event_time, position = excluded.position, noted_at = now()
WHERE (c.pages = 0 AND (c.event_time, c.position) > (excluded.event_time, excluded.position))
   OR (c.pages > 0 AND (c.event_time, c.position) < (excluded.event_time, excluded.position));

-- name: settle_clearings
-- A segment is cleared by the newest of its complete sessions, from the oldest page of that one on. Should an older
-- record of a session without a number of pages come late, that moves back, and the sweep brings back whom it covered.
UPDATE segment
SET cleared_event_time = newest.version[1], cleared_position = newest.version[2], cleared_xid = pg_current_xact_id(),
    sweep_from = NULL
FROM (
    SELECT segment_id, max(version) AS version
    FROM (
        SELECT segment_id, min(ARRAY[event_time, position]) AS version
        FROM clearing WHERE segment_id = ANY ($1::int[])
        GROUP BY segment_id, session, pages
        HAVING pages = 0 OR count(*) = pages
    ) AS complete
    GROUP BY segment_id
) AS newest
WHERE segment.id = newest.segment_id
  AND ARRAY[segment.cleared_event_time, segment.cleared_position] <> newest.version;

-- name: forget_clearings
-- What is a day older than the clearing in force decides nothing any more, and who has waited a week for the rest of a
-- session waits for ever.
DELETE FROM clearing USING segment
WHERE segment.id = clearing.segment_id AND segment.id = ANY ($1::int[])
  AND (clearing.event_time + 86400 * 1000000::bigint < segment.cleared_event_time
       OR (clearing.noted_at < now() - interval '7 days'
           AND (SELECT count(*) FROM clearing AS page
                WHERE (page.segment_id, page.session, page.pages)
                    = (clearing.segment_id, clearing.session, clearing.pages)) < clearing.pages));

-- name: mark_sweeps
-- A writer that has not seen a clearing had its xid before the clearing was committed, so before this sees it, and so
-- before this transaction gets its own.
WITH seen AS MATERIALIZED (
    SELECT id, cleared_xid FROM segment WHERE cleared_xid IS NOT NULL AND sweep_from IS NULL
)
UPDATE segment SET sweep_from = pg_current_xact_id()
FROM seen WHERE segment.id = seen.id AND segment.cleared_xid = seen.cleared_xid AND segment.sweep_from IS NULL;

-- name: list_sweeps
SELECT id, cleared_xid::text AS clearing FROM segment
WHERE cleared_xid IS NOT NULL AND sweep_from < horizon()
ORDER BY segment.cleared_xid LIMIT 1000;

-- name: count_unswept
SELECT count(*) FROM segment WHERE cleared_xid IS NOT NULL;

-- name: lock_sweep
SELECT pg_try_advisory_xact_lock(5078267347::bigint + $1);

-- name: sweep_until
-- The last key of the next rows to look at; null behind the end.
SELECT context_hash FROM membership WHERE segment_id = $1 AND context_hash > $2
ORDER BY context_hash OFFSET $3 LIMIT 1;

-- name: sweep
-- Turns what the clearing covers into tombstones, and back what it no longer covers; change feed and counts follow. A
-- row keeps its own version: the clearing's is on the segment.
WITH wrong AS MATERIALIZED (
    SELECT m.context_hash
    FROM membership AS m JOIN segment AS s ON s.id = m.segment_id
    WHERE m.segment_id = $1 AND m.context_hash > $2 AND ($3::uuid IS NULL OR m.context_hash <= $3)
      AND CASE WHEN (m.event_time, m.position) < (s.cleared_event_time, s.cleared_position) THEN m.included
               ELSE m.covered END
    ORDER BY m.context_hash FOR UPDATE OF m
)
UPDATE membership AS m SET included = NOT m.included, covered = NOT m.covered, change_xid = pg_current_xact_id()
FROM wrong WHERE m.segment_id = $1 AND m.context_hash = wrong.context_hash;

-- name: finish_sweep
-- Unless it was cleared again meanwhile.
UPDATE segment SET cleared_xid = NULL, sweep_from = NULL WHERE id = $1 AND cleared_xid = $2::text::xid8;

-- name: list_open_sessions
SELECT environment.key AS environment, segment.key AS segment, session, stored_pages, pages, since, last_page_at
FROM open_session JOIN segment ON segment.id = segment_id JOIN environment ON environment.id = segment.environment_id
WHERE ($1::text IS NULL OR environment.key = $1)
ORDER BY environment.key, segment.key, since;

-- name: open_session_facts
SELECT count(*) AS sessions, coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0)::float8 AS oldest_s
FROM open_session;

-- name: find_segments
SELECT segment.id, environment.key AS environment, segment.key, context_kind, cohort_name, cohort_url
FROM segment JOIN environment ON environment.id = segment.environment_id
JOIN unnest($1::text[], $2::text[]) AS wanted (environment, key)
  ON wanted.environment = environment.key AND wanted.key = segment.key;

-- name: create_environments
INSERT INTO environment (key)
SELECT DISTINCT wanted.key FROM unnest($1::text[]) AS wanted (key)
WHERE NOT EXISTS (SELECT FROM environment WHERE environment.key = wanted.key)
ON CONFLICT DO NOTHING;

-- name: create_segments
-- The first record that is stored fixes the context kind; whoever loses the race takes what is there.
INSERT INTO segment (environment_id, key, context_kind, integration, cohort_id, cohort_name, cohort_url, name,
                     cohort_event_time, cohort_position)
SELECT environment.id, wanted.key, wanted.context_kind, wanted.integration, wanted.cohort_id, wanted.cohort_name,
       wanted.cohort_url, coalesce(wanted.cohort_name, wanted.key), wanted.event_time, wanted.position
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
            $9::bigint[])
  AS wanted (environment, key, context_kind, integration, cohort_id, cohort_name, cohort_url, event_time, position)
JOIN environment ON environment.key = wanted.environment
ORDER BY environment.id, wanted.key
ON CONFLICT (environment_id, key) DO NOTHING;

-- name: rename_segment
-- The tool renamed its cohort. What a person edited stays, and an older record never renames back.
UPDATE segment
SET cohort_name = coalesce($2, cohort_name), cohort_url = coalesce($3, cohort_url),
    name = CASE WHEN name_edited_at IS NULL THEN coalesce($2, name) ELSE name END,
    cohort_event_time = $4, cohort_position = $5
WHERE id = $1 AND (cohort_event_time, cohort_position) < ($4, $5);

-- name: find_topics
SELECT name, id FROM topic;

-- name: lock_topics
-- Ids must stay below 512, so they are given out one at a time and not by a sequence, which would skip some.
LOCK TABLE topic IN SHARE ROW EXCLUSIVE MODE;

-- name: create_topic
INSERT INTO topic (id, name) SELECT coalesce(max(id), 0) + 1, $1 FROM topic ON CONFLICT (name) DO NOTHING;

-- name: pin_to_our_tables
-- The names in these statements up to `unlock_migrations` are said in full, operators too: before they have run, a name may
-- be somebody else's. PostgreSQL puts pg_catalog first, but a function that fits its arguments better wins from behind.
SELECT pg_catalog.set_config('search_path', relnamespace::pg_catalog.regnamespace::pg_catalog.text, false)
FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('schema_migration');

-- name: pin_to_first_schema
-- The one in which the tables are about to be made.
SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident(nspname::pg_catalog.text), false)
FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) pg_catalog.current_schema();

-- name: list_openings
-- Where everybody may create in our schema, as before PostgreSQL 15: the statement that ends it, and whether we may.
SELECT pg_catalog.format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', nspname) AS statement,
       pg_catalog.pg_has_role(nspowner, 'USAGE') AS may_revoke,
       pg_catalog.pg_get_userbyid(nspowner) AS owner
FROM pg_catalog.pg_namespace
WHERE nspname OPERATOR(pg_catalog.=) pg_catalog.current_schema() AND EXISTS (
    SELECT FROM pg_catalog.aclexplode(nspacl)
    WHERE grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND privilege_type OPERATOR(pg_catalog.=) 'CREATE'
);

-- name: list_planted
-- What is in our schema, belongs to none who could do what we can anyhow, and would be taken for something of
-- PostgreSQL's own, or for ours, when we run a statement.
WITH here AS (
    SELECT oid, nspname, nspowner FROM pg_catalog.pg_namespace
    WHERE nspname OPERATOR(pg_catalog.=) pg_catalog.current_schema()
), strong (owner) AS (
    SELECT oid FROM pg_catalog.pg_roles
    WHERE rolsuper OR rolname OPERATOR(pg_catalog.=) CURRENT_USER
       OR rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
    UNION ALL
    SELECT datdba FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
), found (what, owner) AS (
    SELECT pg_catalog.concat('function ', oid::pg_catalog.regprocedure), proowner FROM pg_catalog.pg_proc AS p
    WHERE pronamespace OPERATOR(pg_catalog.=) (SELECT oid FROM here) AND EXISTS (
        SELECT FROM pg_catalog.pg_proc AS own WHERE own.proname OPERATOR(pg_catalog.=) p.proname
        AND own.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace)
    UNION ALL
    SELECT pg_catalog.concat('operator ', oid::pg_catalog.regoperator), oprowner FROM pg_catalog.pg_operator
    WHERE oprnamespace OPERATOR(pg_catalog.=) (SELECT oid FROM here)
    UNION ALL
    SELECT 'table schema_migration', relowner FROM pg_catalog.pg_class
    WHERE relnamespace OPERATOR(pg_catalog.=) (SELECT oid FROM here)
      AND relname OPERATOR(pg_catalog.=) 'schema_migration'
    UNION ALL  -- whoever may make schemas can put one before ours in our path: under our own name
    SELECT pg_catalog.concat('schema ', nspname), nspowner FROM here WHERE nspname OPERATOR(pg_catalog.=) CURRENT_USER
)
SELECT what, pg_catalog.pg_get_userbyid(owner) AS owner FROM found
WHERE NOT (owner OPERATOR(pg_catalog.=) ANY (SELECT strong.owner FROM strong))
  AND (what OPERATOR(pg_catalog.~~) 'schema %' OR NOT owner OPERATOR(pg_catalog.=) (SELECT nspowner FROM here))
ORDER BY what;

-- name: list_excesses
-- What a role that is less than we are, and than the schema's owner, may do and should not.
SELECT pg_catalog.format('CREATE ON SCHEMA %I', nspname) AS privilege
FROM pg_catalog.pg_namespace
WHERE nspname OPERATOR(pg_catalog.=) pg_catalog.current_schema()
  AND pg_catalog.has_schema_privilege($1::pg_catalog.text, oid, 'CREATE')
  AND NOT pg_catalog.pg_has_role($1::pg_catalog.name, CURRENT_USER, 'MEMBER')
  AND NOT pg_catalog.pg_has_role($1::pg_catalog.name, nspowner, 'MEMBER')
UNION ALL
SELECT pg_catalog.format('CREATE ON DATABASE %I', datname)
FROM pg_catalog.pg_database
WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
  AND pg_catalog.has_database_privilege($1::pg_catalog.text, oid, 'CREATE')
  AND NOT pg_catalog.pg_has_role($1::pg_catalog.name, CURRENT_USER, 'MEMBER')
  AND NOT pg_catalog.pg_has_role($1::pg_catalog.name, datdba, 'MEMBER');

-- name: lock_migrations
-- The number is ours by convention: "cohort-sync" has no other advisory lock with it.
SELECT pg_catalog.pg_advisory_lock(5078267346);

-- name: unlock_migrations
SELECT pg_catalog.pg_advisory_unlock(5078267346);

-- name: have_migrations
SELECT to_regclass('schema_migration') IS NOT NULL;

-- name: create_migrations
CREATE TABLE IF NOT EXISTS schema_migration (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());

-- name: applied_migrations
SELECT name FROM schema_migration;

-- name: record_migration
INSERT INTO schema_migration (name) VALUES ($1);

-- name: is_of_another_server
SELECT origin.system_identifier <> server.system_identifier FROM origin CROSS JOIN pg_control_system() AS server;

-- name: stamp_page
-- As from a transaction before all others, so that readers begin with them. Returns the last key of the page.
WITH page AS MATERIALIZED (
    SELECT segment_id, context_hash FROM membership WHERE (segment_id, context_hash) > ($1::int, $2::uuid)
    ORDER BY segment_id, context_hash LIMIT $3
), stamped AS (
    UPDATE membership AS m SET change_xid = '3' FROM page
    WHERE m.segment_id = page.segment_id AND m.context_hash = page.context_hash AND m.change_xid <> '3'
)
SELECT segment_id, context_hash FROM page ORDER BY segment_id DESC, context_hash DESC LIMIT 1;

-- name: stamp_clearings
UPDATE segment SET cleared_xid = pg_current_xact_id(), sweep_from = NULL WHERE cleared_xid IS NOT NULL;

-- name: stamp_projections
-- Their targets may know more or less than what was restored: begun anew.
UPDATE projection
SET epoch = epoch + 1, marker = gen_random_uuid(), cursor_xid = DEFAULT, cursor_segment_id = DEFAULT,
    cursor_context_hash = DEFAULT, applied_before = DEFAULT, caught_up_at = NULL, synchronized_on = NULL,
    is_swept = false;

-- name: stamp_origin
UPDATE origin SET system_identifier = server.system_identifier FROM pg_control_system() AS server;

-- name: list_grants
-- What a part of cohort-sync needs, and nothing else, as statements: a role's name can't be bound. `operator` is for
-- the commands that people run. Who migrates owns the tables, and needs no grant.
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), $2::text)
UNION ALL
SELECT format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), $2::text) WHERE $1 = 'worker'
UNION ALL
SELECT format('GRANT %s ON %I TO %I', privileges, relation, $2::text)
FROM (VALUES
    ('worker', 'environment', 'SELECT, INSERT'),
    ('worker', 'topic', 'SELECT, INSERT, UPDATE'),  -- UPDATE, so that it may be locked
    ('worker', 'segment', 'SELECT, INSERT, UPDATE'),
    ('worker', 'membership', 'SELECT, INSERT, UPDATE'),
    ('worker', 'clearing', 'SELECT, INSERT, UPDATE, DELETE'),
    ('worker', 'open_session', 'SELECT'),
    ('worker', 'ingestion', 'SELECT, INSERT, UPDATE'),
    ('worker', 'erasure', 'SELECT'),
    ('worker', 'erasure_salt', 'SELECT'),
    ('worker', 'rejected_member', 'SELECT, INSERT, DELETE'),
    ('projector', 'environment', 'SELECT'),
    ('projector', 'segment', 'SELECT'),
    ('projector', 'membership', 'SELECT'),
    ('projector', 'ingestion', 'SELECT'),
    ('projector', 'projection', 'SELECT, INSERT, UPDATE'),
    ('projector', 'erasure', 'SELECT'),
    ('gateway', 'environment', 'SELECT'),
    ('gateway', 'topic', 'SELECT'),
    ('gateway', 'segment', 'SELECT, UPDATE (name, name_edited_at, description, description_edited_at, tags, '
                           'tags_edited_at, edits)'),
    ('gateway', 'membership', 'SELECT'),
    ('gateway', 'membership_in_force', 'SELECT'),
    ('gateway', 'rejected_member', 'SELECT'),
    ('gateway', 'access_token', 'SELECT, UPDATE (last_used_at)'),
    ('gateway', 'cohort_list', 'SELECT, INSERT, UPDATE'),
    ('operator', 'environment', 'SELECT, UPDATE (copy_begun_at)'),
    ('operator', 'topic', 'SELECT'),
    ('operator', 'segment', 'SELECT, UPDATE'),
    ('operator', 'membership', 'SELECT, UPDATE, DELETE'),
    ('operator', 'membership_in_force', 'SELECT'),
    ('operator', 'open_session', 'SELECT'),
    ('operator', 'clearing', 'SELECT'),
    ('operator', 'ingestion', 'SELECT'),
    ('operator', 'projection', 'SELECT, INSERT, UPDATE, DELETE'),
    ('operator', 'erasure', 'SELECT, INSERT, UPDATE, DELETE'),
    ('operator', 'erasure_salt', 'SELECT, INSERT'),
    ('operator', 'lifted_erasure', 'SELECT, INSERT, UPDATE'),
    ('operator', 'rejected_member', 'SELECT, DELETE'),
    ('operator', 'access_token', 'SELECT, INSERT, UPDATE')
) AS needed (part, relation, privileges)
WHERE part = $1
UNION ALL
SELECT format('GRANT SELECT ON schema_migration, origin TO %I', $2::text);

-- name: have_citus
SELECT to_regclass('pg_dist_partition') IS NOT NULL;

-- name: citus_distributes_us
SELECT EXISTS (
    SELECT FROM pg_dist_partition
    WHERE logicalrelid IN (to_regclass('membership'), to_regclass('segment'), to_regclass('environment'),
                           to_regclass('topic'))
);

-- name: horizon_age_s
-- How old the oldest writing transaction is. It holds the horizon back, whatever its database.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)::float8
FROM pg_stat_activity WHERE backend_xid IS NOT NULL;

-- name: count_segments
SELECT count(*) FROM segment;

-- name: list_segments
-- Of one environment or of all ($1 null); all of them or those of one key ($2).
SELECT segment.id, environment.key AS environment, segment.key, context_kind, integration, cohort_id, cohort_name,
       cohort_url, name, description, tags, generation, other_generation, included_count, created_at, last_change_at
FROM segment JOIN environment ON environment.id = segment.environment_id
WHERE ($1::text IS NULL OR environment.key = $1) AND ($2::text IS NULL OR segment.key = $2)
ORDER BY environment.key, segment.key;

-- name: list_members
SELECT context_key, included, event_time, position FROM membership_in_force
WHERE segment_id = $1 AND ($2::bool OR included)
ORDER BY context_hash;

-- name: count_members
SELECT count(*) FROM membership_in_force WHERE segment_id = $1 AND ($2::bool OR included);

-- name: find_member
SELECT context_key, included, event_time, position FROM membership_in_force
WHERE segment_id = $1 AND context_hash = $2;

-- name: topic_names
SELECT id, name FROM topic;

-- name: note_ingestion
-- Never back: a worker that froze may tell what it knew.
INSERT INTO ingestion AS known (topic, partition, stored_up_to)
SELECT * FROM unnest($1::text[], $2::int[], $3::timestamptz[])
ON CONFLICT (topic, partition) DO UPDATE SET stored_up_to = greatest(known.stored_up_to, excluded.stored_up_to);

-- name: try_to_lead
SELECT pg_try_advisory_lock(hashtextextended('cohort-sync projection ' || $1, 0));

-- name: begin_to_lead
INSERT INTO projection (name) VALUES ($1)
ON CONFLICT (name) DO UPDATE SET epoch = projection.epoch + 1
RETURNING epoch, marker, cursor_xid::text AS xid, cursor_segment_id, cursor_context_hash, is_swept, synchronized_on;

-- name: feed_position
-- Where the feed ends now: its readers see every transaction before the horizon. What was stored up to some time is in
-- transactions before `next_xid`, since their commit came before this snapshot.
SELECT horizon()::text AS horizon, pg_snapshot_xmax(pg_current_snapshot())::text AS next_xid, now() AS at;

-- name: next_xid
SELECT pg_snapshot_xmax(pg_current_snapshot())::text;

-- name: list_unswept
SELECT segment.id FROM segment JOIN environment ON environment.id = environment_id
WHERE environment.key = $1 AND cleared_xid IS NOT NULL;

-- name: list_ingestion
SELECT topic, partition, stored_up_to FROM ingestion ORDER BY topic, partition;

-- name: read_changes
-- A page of the change feed behind the cursor, with each membership as it is by now.
WITH page AS MATERIALIZED (
    SELECT change_xid, segment_id, context_hash, context_key, included
    FROM membership
    WHERE (change_xid, segment_id, context_hash) > ($1::text::xid8, $2::int, $3::uuid) AND change_xid < horizon()
    ORDER BY change_xid, segment_id, context_hash
    LIMIT $4
)
SELECT page.change_xid::text AS xid, page.segment_id, page.context_hash, page.context_key, page.included,
       segment.key AS segment, segment.generation, segment.other_generation, environment.key AS environment
FROM page JOIN segment ON segment.id = page.segment_id JOIN environment ON environment.id = segment.environment_id
ORDER BY page.change_xid, page.segment_id, page.context_hash;

-- name: forget_projection
DELETE FROM projection WHERE name = $1;

-- name: find_marker
SELECT marker FROM projection WHERE name = $1;

-- name: save_cursor
UPDATE projection SET cursor_xid = $3::text::xid8, cursor_segment_id = $4, cursor_context_hash = $5
WHERE name = $1 AND epoch = $2;

-- name: rewind_cursor
-- By one who led before and may have written old state since: whoever leads now notices, and applies it again.
-- Always, since what was applied there may not be saved yet. Of somebody who was erased no row says so: swept.
UPDATE projection
SET epoch = epoch + 1, applied_before = DEFAULT, is_swept = is_swept AND NOT EXISTS (SELECT FROM erasure),
    (cursor_xid, cursor_segment_id, cursor_context_hash) = (
        SELECT * FROM (
            VALUES (cursor_xid, cursor_segment_id, cursor_context_hash), ($3::text::xid8, $4::int, $5::uuid)
        ) AS places (xid, segment_id, context_hash)
        ORDER BY xid, segment_id, context_hash LIMIT 1
    )
WHERE name = $1 AND epoch <> $2;

-- name: restart_projection
UPDATE projection
SET marker = gen_random_uuid(), cursor_xid = DEFAULT, cursor_segment_id = DEFAULT, cursor_context_hash = DEFAULT,
    applied_before = DEFAULT, caught_up_at = NULL, synchronized_on = NULL, is_swept = false
WHERE name = $1 AND epoch = $2
RETURNING marker;

-- name: finish_target_sweep
UPDATE projection SET is_swept = true WHERE name = $1 AND epoch = $2;

-- name: sweep_targets
-- All of them: whoever leads one notices that its epoch has passed.
UPDATE projection SET epoch = epoch + 1, is_swept = false;

-- name: tell_projection
UPDATE projection
SET applied_before = $3::text::xid8, caught_up_at = $4, synchronized_on = coalesce($5, synchronized_on), stopped = $6,
    told_at = now()
WHERE name = $1 AND epoch = $2;

-- name: list_projections
SELECT name, caught_up_at, synchronized_on, stopped, told_at, now() AS at FROM projection ORDER BY name;

-- name: is_applied
SELECT applied_before >= $2::text::xid8 FROM projection WHERE name = $1;

-- name: apply_again
-- All of these projections from the start of the feed, in place: whoever leads one notices that its epoch has passed.
UPDATE projection
SET epoch = epoch + 1, cursor_xid = DEFAULT, cursor_segment_id = DEFAULT, cursor_context_hash = DEFAULT,
    applied_before = DEFAULT, caught_up_at = NULL
WHERE name = ANY ($1::text[]);

-- name: set_generation
UPDATE segment SET generation = $2, other_generation = NULL, generation_set_at = now() WHERE id = $1;

-- name: count_old_generations
SELECT count(*) FROM segment JOIN environment ON environment.id = environment_id
WHERE environment.key = $1 AND other_generation < generation;

-- name: begin_generation
UPDATE segment SET other_generation = generation + 1, generation_set_at = now()
FROM environment WHERE environment.id = environment_id AND environment.key = $1 AND other_generation IS NULL;

-- name: finish_generation
-- Only where it is filled: a segment that came meanwhile has no other.
UPDATE segment SET generation = other_generation, other_generation = generation, generation_set_at = now()
FROM environment WHERE environment.id = environment_id AND environment.key = $1 AND other_generation > generation;

-- name: forget_generation
UPDATE segment SET other_generation = NULL, generation_set_at = now()
FROM environment WHERE environment.id = environment_id AND environment.key = $1 AND other_generation IS NOT NULL;

-- name: find_memberships
-- Of contexts by segment key and hash, in one environment: what should stand in a target. LIMIT makes it one look into
-- the primary key for each, whatever the planner thinks of the tables' sizes.
SELECT asked.segment, asked.context_hash, segment.generation, segment.other_generation,
       coalesce(m.included, false) AS included, m.included IS NOT NULL AS is_known
FROM unnest($2::text[], $3::uuid[]) AS asked (segment, context_hash)
JOIN environment ON environment.key = $1
JOIN segment ON segment.environment_id = environment.id AND segment.key = asked.segment
LEFT JOIN LATERAL (
    SELECT included FROM membership
    WHERE segment_id = segment.id AND context_hash = asked.context_hash LIMIT 1
) AS m ON true;

-- name: read_members
-- A page of everybody who is in a segment of this environment, in the order of the primary key.
SELECT m.segment_id, m.context_hash, m.context_key, segment.key AS segment, segment.generation,
       segment.other_generation
FROM membership AS m JOIN segment ON segment.id = m.segment_id JOIN environment ON environment.id = environment_id
WHERE environment.key = $1 AND (m.segment_id, m.context_hash) > ($2::int, $3::uuid) AND m.included
ORDER BY m.segment_id, m.context_hash LIMIT $4;

-- name: touch_memberships
-- Into the change feed again as they are, so that the one who writes to the target puts them right.
WITH rows AS MATERIALIZED (
    SELECT m.segment_id, m.context_hash
    FROM unnest($2::text[], $3::uuid[]) AS wrong (segment, context_hash)
    JOIN environment ON environment.key = $1
    JOIN segment ON segment.environment_id = environment.id AND segment.key = wrong.segment
    JOIN membership AS m ON m.segment_id = segment.id AND m.context_hash = wrong.context_hash
    ORDER BY m.segment_id, m.context_hash FOR UPDATE OF m  -- as writers meet them
)
UPDATE membership AS m SET change_xid = pg_current_xact_id()
FROM rows WHERE m.segment_id = rows.segment_id AND m.context_hash = rows.context_hash;

-- name: current_xid
SELECT pg_current_xact_id()::text;

-- name: have_passed
-- Whether every transaction before this one has ended.
SELECT horizon() > $1::text::xid8;

-- name: note_erasure
-- Of one who was erased before, that time stays.
INSERT INTO erasure (salted_hash) SELECT sha256(salt || uuid_send($1::uuid)) FROM erasure_salt
ON CONFLICT (salted_hash) DO UPDATE SET erased_at = erasure.erased_at
RETURNING erased_at;

-- name: lift_erasure
-- Remembered, so that a copy from another cell does not bring back what was lifted here.
WITH lifted AS (
    DELETE FROM erasure USING erasure_salt WHERE salted_hash = sha256(salt || uuid_send($1::uuid)) RETURNING salted_hash
)
INSERT INTO lifted_erasure (salted_hash) SELECT salted_hash FROM lifted
ON CONFLICT (salted_hash) DO UPDATE SET lifted_at = now();

-- name: erased_at
SELECT erased_at FROM erasure JOIN erasure_salt ON salted_hash = sha256(salt || uuid_send($1::uuid));

-- name: have_erasures
SELECT EXISTS (SELECT FROM erasure);

-- name: find_erased
SELECT asked.context_hash
FROM unnest($1::uuid[]) AS asked (context_hash) CROSS JOIN erasure_salt
JOIN erasure ON erasure.salted_hash = sha256(salt || uuid_send(asked.context_hash));

-- name: list_memberships_of
-- Every row about one context, whatever its kind.
SELECT environment.key AS environment, segment.key AS segment, segment.context_kind, m.included
FROM segment JOIN environment ON environment.id = environment_id
JOIN membership AS m ON m.segment_id = segment.id AND m.context_hash = $1
ORDER BY environment.key, segment.key;

-- name: put_out_everywhere
-- Change feed and counts follow. Not to be brought back by a clearing that moves.
WITH rows AS MATERIALIZED (
    SELECT m.segment_id FROM segment JOIN membership AS m ON m.segment_id = segment.id AND m.context_hash = $1
    WHERE m.included OR m.covered ORDER BY m.segment_id FOR UPDATE OF m
)
UPDATE membership AS m
SET included = false, covered = false,
    change_xid = CASE WHEN m.included THEN pg_current_xact_id() ELSE m.change_xid END
FROM rows WHERE m.segment_id = rows.segment_id AND m.context_hash = $1;

-- name: delete_everywhere
DELETE FROM membership AS m USING segment WHERE m.segment_id = segment.id AND m.context_hash = $1;
-- name: create_token
INSERT INTO access_token (id, name, sha256, role, policy, feed) VALUES ($1, $2, $3, $4, $5::text::jsonb, $6);

-- name: list_tokens
SELECT id, name, sha256, role, policy::text AS policy, feed, created_at, revoked_at, last_used_at
FROM access_token ORDER BY created_at, id;

-- name: tokens_in_force
SELECT id, sha256, policy::text AS policy, feed FROM access_token WHERE revoked_at IS NULL;

-- name: tokens_fingerprint
-- Tokens are made and revoked and never changed, so this is the same as long as those in force are. Every gateway asks
-- it each second, and reads the tokens only when it differs.
SELECT count(*) || ' ' || coalesce(sum(hashtextextended(id || coalesce(revoked_at::text, ''), 0)), 0)
FROM access_token;

-- name: revoke_token
UPDATE access_token SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING name;

-- name: note_token_use
UPDATE access_token SET last_used_at = greatest(last_used_at, used.at)
FROM unnest($1::text[], $2::timestamptz[]) AS used (id, at) WHERE access_token.id = used.id;

-- name: find_tags
SELECT environment.key AS environment, segment.key, segment.tags
FROM segment JOIN environment ON environment.id = segment.environment_id
JOIN unnest($1::text[], $2::text[]) AS wanted (environment, key)
  ON wanted.environment = environment.key AND wanted.key = segment.key;

-- name: name_list
INSERT INTO cohort_list AS known (feed, cohort_id, name) VALUES ($1, $2, $3)
ON CONFLICT (feed, cohort_id) DO UPDATE SET name = excluded.name WHERE known.name <> excluded.name;

-- name: find_list
SELECT name FROM cohort_list WHERE feed = $1 AND cohort_id = $2;

-- name: page_of_segments
-- Of one environment; each filter counts where it is not null. The total goes with each row.
SELECT segment.id, environment.key AS environment, segment.key, context_kind, integration, cohort_url, name, description,
       tags, generation, included_count, created_at, last_change_at, edits,
       greatest(name_edited_at, description_edited_at, tags_edited_at) AS edited_at, count(*) OVER () AS total
FROM segment JOIN environment ON environment.id = segment.environment_id
WHERE environment.key = $1
  AND ($2::text IS NULL OR position(lower($2) IN lower(name)) > 0 OR position(lower($2) IN lower(segment.key)) > 0)
  AND ($3::text[] IS NULL OR tags && $3)
  AND ($4::uuid[] IS NULL OR EXISTS (
      SELECT FROM membership_in_force AS m
      WHERE m.segment_id = segment.id AND m.context_hash = ANY ($4) AND m.included))
ORDER BY CASE $5::text WHEN 'creationDate' THEN extract(epoch FROM created_at)
                       WHEN '-creationDate' THEN -extract(epoch FROM created_at)
                       WHEN 'lastModified' THEN extract(epoch FROM greatest(created_at, last_change_at, name_edited_at,
                                                                            description_edited_at, tags_edited_at))
                       WHEN '-lastModified' THEN -extract(epoch FROM greatest(created_at, last_change_at, name_edited_at,
                                                                              description_edited_at, tags_edited_at)) END,
         CASE WHEN $5 = 'name' THEN name END, CASE WHEN $5 = '-name' THEN name END DESC, segment.key
LIMIT $6 OFFSET $7;

-- name: find_segment
SELECT segment.id, environment.key AS environment, segment.key, context_kind, integration, cohort_url, name, description,
       tags, generation, included_count, created_at, last_change_at, edits,
       greatest(name_edited_at, description_edited_at, tags_edited_at) AS edited_at
FROM segment JOIN environment ON environment.id = segment.environment_id
WHERE environment.key = $1 AND segment.key = $2;

-- name: lock_segment
SELECT FROM segment JOIN environment ON environment.id = segment.environment_id
WHERE environment.key = $1 AND segment.key = $2 FOR NO KEY UPDATE OF segment;

-- name: edit_segment
-- What a person has edited, no later sync overwrites. Null: that one was not edited now.
UPDATE segment
SET name = coalesce($2, name), name_edited_at = CASE WHEN $2 IS NULL THEN name_edited_at ELSE now() END,
    description = coalesce($3, description),
    description_edited_at = CASE WHEN $3 IS NULL THEN description_edited_at ELSE now() END,
    tags = coalesce($4, tags), tags_edited_at = CASE WHEN $4 IS NULL THEN tags_edited_at ELSE now() END,
    edits = edits + 1
WHERE id = $1;

-- name: note_rejects
-- A record that is read again says the same again. What names somebody who was erased is not noted: any text of the
-- member may be the key.
INSERT INTO rejected_member (segment_id, position, place, reason, detail, member)
SELECT segment.id, noted.position, noted.place, noted.reason, noted.detail, noted.member
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[], $5::text[], $6::text[], $7::text[])
  AS noted (environment, key, position, place, reason, detail, member)
JOIN environment ON environment.key = noted.environment
JOIN segment ON segment.environment_id = environment.id AND segment.key = noted.key
WHERE NOT EXISTS (
    SELECT FROM erasure_salt CROSS JOIN LATERAL (
        SELECT CASE WHEN raw ~ '\\u0000' OR raw !~ '\\' THEN raw ELSE ('"' || raw || '"')::jsonb #>> '{}' END AS text
        FROM (SELECT (regexp_matches(noted.member, '"((?:[^"\\]|\\.)*)"', 'g'))[1] AS raw) AS string
        UNION SELECT regexp_split_to_table(noted.member, '[\s:"'',;<>(){}\[\]|\\]+')
    ) AS part
    JOIN erasure
      ON erasure.salted_hash = sha256(salt || substring(sha256(convert_to(part.text, 'UTF8')) FROM 1 FOR 16))
)
ORDER BY segment.id, noted.position, noted.place, noted.reason
ON CONFLICT DO NOTHING;

-- name: forget_rejects
-- The newest of each of these segments stay.
DELETE FROM rejected_member AS r
USING (
    SELECT segment_id, position, place, reason,
           row_number() OVER (PARTITION BY segment_id ORDER BY rejected_at DESC, position DESC, place) AS number
    FROM rejected_member
    WHERE segment_id IN (
        SELECT segment.id FROM unnest($1::text[], $2::text[]) AS noted (environment, key)
        JOIN environment ON environment.key = noted.environment
        JOIN segment ON segment.environment_id = environment.id AND segment.key = noted.key)
) AS old
WHERE (r.segment_id, r.position, r.place, r.reason) = (old.segment_id, old.position, old.place, old.reason)
  AND old.number > $3;

-- name: forget_old_rejects
DELETE FROM rejected_member WHERE (segment_id, position, place, reason) IN (
    SELECT segment_id, position, place, reason FROM rejected_member
    WHERE rejected_at < now() - interval '30 days' ORDER BY rejected_at LIMIT 1000
);

-- name: list_rejects
SELECT position, place, reason, detail, member, rejected_at FROM rejected_member
WHERE segment_id = $1 AND rejected_at > now() - interval '30 days' AND ($2::text IS NULL OR reason = $2)
ORDER BY rejected_at DESC, position DESC, place;

-- name: delete_rejects_naming
-- Of somebody who is erased: rather too many rows than one too few.
DELETE FROM rejected_member WHERE position($1 IN member) > 0;

-- name: list_environments
SELECT key FROM environment ORDER BY key;

-- name: begin_copy
UPDATE environment SET copy_begun_at = now() WHERE key = $1;

-- name: end_copy
UPDATE environment SET copy_begun_at = NULL WHERE key = $1;

-- name: copy_begun_at
SELECT copy_begun_at FROM environment WHERE key = $1;

-- name: read_segments
-- Everything of one environment, for another cell; likewise the four below.
SELECT segment.* FROM segment JOIN environment ON environment.id = environment_id WHERE environment.key = $1
ORDER BY segment.key;

-- name: read_clearings
SELECT session, pages, page, event_time, position FROM clearing WHERE segment_id = $1;

-- name: read_memberships
-- As their records said it, whatever clearings cover.
SELECT context_key, included OR covered AS included, event_time, position FROM membership WHERE segment_id = $1;

-- name: read_erasures
SELECT salted_hash, erased_at FROM erasure;

-- name: read_salts
SELECT salt FROM erasure_salt;

-- name: take_salts
-- Whoever is looked for is hashed with each.
INSERT INTO erasure_salt SELECT salt FROM unnest($1::bytea[]) AS theirs (salt) EXCEPT SELECT salt FROM erasure_salt;

-- name: take_erasure
-- What was lifted here later than it was made there stays lifted.
INSERT INTO erasure (salted_hash, erased_at) SELECT $1::bytea, $2::timestamptz
WHERE NOT EXISTS (SELECT FROM lifted_erasure WHERE salted_hash = $1 AND lifted_at > $2)
ON CONFLICT DO NOTHING;

-- name: list_erased_members
-- Those of a page of memberships, in the order of the primary key, and the last key of the page. A page at a time, since
-- hashing all of a large table takes longer than a statement may.
WITH page AS MATERIALIZED (
    SELECT segment_id, context_hash FROM membership WHERE (segment_id, context_hash) > ($1::int, $2::uuid)
    ORDER BY segment_id, context_hash LIMIT $3
)
SELECT segment_id, context_hash, ARRAY(
    SELECT DISTINCT page.context_hash FROM page CROSS JOIN erasure_salt
    JOIN erasure ON salted_hash = sha256(salt || uuid_send(page.context_hash))
) AS erased
FROM page ORDER BY segment_id DESC, context_hash DESC LIMIT 1;

-- name: take_edits
-- What a person has edited there, unless somebody has edited it here since.
UPDATE segment
SET name = CASE WHEN $3 > coalesce(name_edited_at, '-infinity') THEN $2 ELSE name END,
    name_edited_at = greatest(name_edited_at, $3),
    description = CASE WHEN $5 > coalesce(description_edited_at, '-infinity') THEN $4 ELSE description END,
    description_edited_at = greatest(description_edited_at, $5),
    tags = CASE WHEN $7 > coalesce(tags_edited_at, '-infinity') THEN $6 ELSE tags END,
    tags_edited_at = greatest(tags_edited_at, $7), edits = greatest(edits, $8),
    created_at = least(created_at, $9)
WHERE id = $1;

-- name: take_generations
-- As they are there, unless somebody has set them here since. Only where they differ: then targets have to follow.
UPDATE segment SET generation = $2, other_generation = $3, generation_set_at = $4
WHERE id = $1 AND coalesce(generation_set_at, '-infinity') <= coalesce($4::timestamptz, '-infinity')
  AND (generation, other_generation) IS DISTINCT FROM ($2, $3);
