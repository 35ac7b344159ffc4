"""Where memberships rest. Imports nothing from above.

Reading order: `model` (the values that the whole project speaks in), `base` (what a segment store promises), `errors`
(the ways it fails), `postgres` (the store), `sql` (its statements and its schema).
"""
