-- By which what is a month old is found, whether or not its segment still has rejects.
CREATE INDEX rejected_member_age ON rejected_member (rejected_at);
