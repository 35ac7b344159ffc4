-- What the SDKs read lies elsewhere: for each target, how far it has come and what may be said of it.
CREATE TABLE projection (
    name                text   PRIMARY KEY,  -- as in the configuration
    epoch               bigint NOT NULL DEFAULT 1,  -- one more with each leader, so that an old one notices
    -- The target holds the same. Where it does not, it was flushed or replaced, and all is applied again.
    marker              uuid   NOT NULL DEFAULT gen_random_uuid(),
    -- The change feed is applied up to here; written only behind what the target has acknowledged.
    cursor_xid          xid8   NOT NULL DEFAULT '0',
    cursor_segment_id   int    NOT NULL DEFAULT 0,
    cursor_context_hash uuid   NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    applied_before      xid8   NOT NULL DEFAULT '0',  -- every transaction before this one is in the target
    caught_up_at        timestamptz,                  -- when the end of the feed was last reached
    synchronized_on     timestamptz,                  -- as the SDKs were told
    stopped             text,                         -- why that does not move
    told_at             timestamptz NOT NULL DEFAULT now()
);

-- Up to when all that had arrived in a partition is stored, by the clock of the worker that reads it. A partition that
-- nobody reads stays behind, and with it what is said of freshness. Null: nobody has come to its end yet.
CREATE TABLE ingestion (
    topic        text NOT NULL,
    partition    int  NOT NULL,
    stored_up_to timestamptz,
    PRIMARY KEY (topic, partition)
);
