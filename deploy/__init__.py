"""How cohort-sync is run: on a cluster, and in `local` on one machine."""
