"""The fault campaign: a seeded stream, a seeded schedule of faults, and an oracle that knows what must come out.

Reading order: `stream` (what is published, and what each record means by construction), `oracle` (the plain fold of
all that is in the topics), `faults` (what is broken and mended), `campaign` (all of it together, and the comparison).
"""
