-- The truth: which contexts are in which segments, and which record decided it.

CREATE TABLE environment (
    id   int  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key  text NOT NULL UNIQUE
);

-- A topic's id is part of every position (9 bits), so ids are given out without gaps and never reused.
CREATE TABLE topic (
    id   int  PRIMARY KEY CHECK (id BETWEEN 1 AND 511),
    name text NOT NULL UNIQUE
);

CREATE TABLE segment (
    id                    int    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment_id        int    NOT NULL REFERENCES environment,
    key                   text   NOT NULL,
    context_kind          text   NOT NULL,
    integration           text   NOT NULL,

    -- What the tool says. Renames are versioned like memberships, so an older record never renames back.
    cohort_id             text   NOT NULL,
    cohort_name           text,
    cohort_url            text,
    cohort_event_time     bigint NOT NULL,
    cohort_position       bigint NOT NULL,

    -- What people see. Once a person has edited one of them, the tool no longer overwrites it.
    name                  text   NOT NULL,
    description           text   NOT NULL DEFAULT '',
    tags                  text[] NOT NULL DEFAULT '{}',
    name_edited_at        timestamptz,
    description_edited_at timestamptz,
    tags_edited_at        timestamptz,

    -- The N of `key.gN` that SDKs look for: a setting, changed only on purpose.
    generation            int    NOT NULL DEFAULT 1,

    -- Every membership older than this version is out, whatever its own row says (a drain, or a finished replace).
    cleared_event_time    bigint NOT NULL DEFAULT -9223372036854775808,
    cleared_position      bigint NOT NULL DEFAULT -9223372036854775808,

    included_count        bigint NOT NULL DEFAULT 0,
    created_at            timestamptz NOT NULL DEFAULT now(),
    last_change_at        timestamptz,

    UNIQUE (environment_id, key)
);

-- One row for each context that was ever named for a segment. Leavers stay as tombstones (included = false), so that
-- a late add that is older than the removal cannot bring them back.
CREATE TABLE membership (
    segment_id   int    NOT NULL,
    context_hash uuid   NOT NULL,  -- the first 16 bytes of SHA-256 of the key: half the index of a text key
    context_key  text   NOT NULL,
    included     bool   NOT NULL,
    event_time   bigint NOT NULL,  -- microseconds since 1970; with position the version
    position     bigint NOT NULL,  -- topic id (9 bits), partition (12), offset (42) of the record that decided
    change_xid   xid8,             -- the transaction that last flipped `included`; null for one that never was in
    PRIMARY KEY (segment_id, context_hash)
) WITH (fillfactor = 80);

-- The change feed: committed flips in an order that a reader can remember as one triple.
CREATE INDEX membership_change ON membership (change_xid, segment_id, context_hash);

-- What readers go by: a membership that is older than its segment's clearing is out, by the clearing's version.
CREATE VIEW membership_in_force AS
SELECT m.segment_id, m.context_hash, m.context_key,
       m.included AND NOT clearing.covers AS included,
       CASE WHEN clearing.covers THEN s.cleared_event_time ELSE m.event_time END AS event_time,
       CASE WHEN clearing.covers THEN s.cleared_position ELSE m.position END AS position
FROM membership AS m
JOIN segment AS s ON s.id = m.segment_id
CROSS JOIN LATERAL (
    SELECT (m.event_time, m.position) < (s.cleared_event_time, s.cleared_position) AS covers
) AS clearing;
