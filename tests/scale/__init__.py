"""Scale on paper and in a simulation: what a load costs, what gives way first, and what to turn.

Reading order: `costs` (what was measured, by `make bench BENCH=scale`), `model` (what a load needs), `simulation` (how
far behind an hour of it falls), `page` (the tables of deploy/docs/scale.md, which `python -m tests.scale` prints).
"""
