-- Drains and replace sessions: what puts out everybody who is not named again.

-- Every transaction before this id has ended, so what it wrote can be seen, and what it did not see can be known.
CREATE FUNCTION horizon() RETURNS xid8 STABLE LANGUAGE sql AS 'SELECT pg_snapshot_xmin(pg_current_snapshot())';

-- The transaction that cleared a segment, until a sweep has turned what it covers into tombstones.
-- It begins when no transaction before `sweep_from` runs any more: each of them may have missed the clearing.
ALTER TABLE segment ADD COLUMN cleared_xid xid8, ADD COLUMN sweep_from xid8;
CREATE INDEX segment_to_sweep ON segment (cleared_xid) WHERE cleared_xid IS NOT NULL;

-- Whether a clearing made it a tombstone: the record that decided said that the context is in, and if the clearing moves
-- back, it is in again.
ALTER TABLE membership ADD COLUMN covered bool NOT NULL DEFAULT false;

CREATE OR REPLACE VIEW membership_in_force AS
SELECT m.segment_id, m.context_hash, m.context_key,
       (m.included OR m.covered) AND NOT clearing.covers AS included,
       CASE WHEN clearing.covers THEN s.cleared_event_time ELSE m.event_time END AS event_time,
       CASE WHEN clearing.covers THEN s.cleared_position ELSE m.position END AS position
FROM membership AS m
JOIN segment AS s ON s.id = m.segment_id
CROSS JOIN LATERAL (
    SELECT (m.event_time, m.position) < (s.cleared_event_time, s.cleared_position) AS covers
) AS clearing;

-- One row for each page of a session that is stored. Drains, and full copies without a session, are sessions of one
-- page and of their own. Versions are those of the records; which one counts is said at `note_clearing`.
CREATE TABLE clearing (
    segment_id int         NOT NULL REFERENCES segment,
    session    text        NOT NULL,
    pages      int         NOT NULL,  -- 0: the session does not say how many it has, and is complete with any
    page       int         NOT NULL,
    event_time bigint      NOT NULL,
    position   bigint      NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (segment_id, session, pages, page)
);

-- Sessions that still miss pages and are not superseded: they remove nobody.
CREATE VIEW open_session AS
SELECT c.segment_id, c.session, c.pages, count(*) AS stored_pages, min(c.noted_at) AS since,
       max(c.noted_at) AS last_page_at
FROM clearing AS c JOIN segment AS s ON s.id = c.segment_id
GROUP BY c.segment_id, c.session, c.pages, s.cleared_event_time, s.cleared_position
HAVING c.pages > 0 AND count(*) < c.pages
   AND min(ARRAY[c.event_time, c.position]) > ARRAY[s.cleared_event_time, s.cleared_position];
