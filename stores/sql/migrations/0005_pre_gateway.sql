-- Who may send to the gateway. Of a token only its hash is kept; a revoked one stays, so that what it did can be told.
CREATE TABLE access_token (
    id           text        PRIMARY KEY,  -- part of the token, so that it is found without comparing secrets
    name         text        NOT NULL,
    sha256       bytea       NOT NULL,     -- of the whole token, which is random: no slow hash is needed
    role         text,                     -- what it was made with, where that was a role
    policy       jsonb       NOT NULL,     -- statements as LaunchDarkly writes them
    feed         text,                     -- null, or the only feed that it may send to: a write key
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz,
    last_used_at timestamptz               -- to the minute
);

-- Amplitude names a list once, when it makes it; what it adds to it later has only the id.
CREATE TABLE cohort_list (
    feed      text NOT NULL,
    cohort_id text NOT NULL,
    name      text NOT NULL,
    PRIMARY KEY (feed, cohort_id)
);

-- How often people have edited a segment: with it they notice that somebody else was faster.
ALTER TABLE segment ADD COLUMN edits int NOT NULL DEFAULT 0;

-- Which members were rejected lately, segment by segment, for people who look for somebody who is missing. Everything
-- about them is in the dead letters; this is an index, bounded in number and age.
CREATE TABLE rejected_member (
    segment_id  int         NOT NULL REFERENCES segment,
    position    bigint      NOT NULL,  -- of the record, as in membership
    place       int         NOT NULL,  -- of the member in its record; -1 where it is about all of it
    reason      text        NOT NULL,
    detail      text        NOT NULL,
    member      text,                  -- as it was, as JSON, cut; null where it was not found again
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (segment_id, position, place, reason)
);
