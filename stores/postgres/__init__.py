"""The segment store on PostgreSQL 15 or newer: the truth. The only home of asyncpg.

Reading order: `connection` (sessions, what their errors mean), `writing` (batches and segments), `reading` (what the
commands show), `migrating` (the schema).
"""
