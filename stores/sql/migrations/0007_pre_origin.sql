-- The server whose transaction ids stand in these tables. On another one, as after dump and restore, they order nothing.
CREATE TABLE origin (system_identifier bigint NOT NULL);
INSERT INTO origin SELECT system_identifier FROM pg_control_system();
