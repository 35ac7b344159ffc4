-- Since when an environment is being copied from another cell. Until that has come to its end, rows are missing here, and
-- a target that is compared with the rest would lose them.
ALTER TABLE environment ADD COLUMN copy_begun_at timestamptz;

-- When a person last decided which generations there are, so that of two cells the newer one counts.
ALTER TABLE segment ADD COLUMN generation_set_at timestamptz;

-- Erasures that were lifted here, and when: a copy from a cell where they still stand does not bring them back.
CREATE TABLE lifted_erasure (
    salted_hash bytea       PRIMARY KEY,
    lifted_at   timestamptz NOT NULL DEFAULT now()
);
