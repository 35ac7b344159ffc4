-- A generation that targets hold beside the one that `sdk-data` names: the next one while it is filled, then the one
-- before until it is swept. SDKs may ask for either, so both are kept in step.
ALTER TABLE segment ADD COLUMN other_generation int;

-- Who was erased and must not come back with any replay: SHA-256 of the salt and the context hash, and nothing else.
CREATE TABLE erasure (
    salted_hash bytea       PRIMARY KEY,
    erased_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE erasure_salt (salt bytea NOT NULL);
INSERT INTO erasure_salt VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
