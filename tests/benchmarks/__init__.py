"""How fast it is, side by side with what else one could do: `make bench`.

Every figure is the median of alternated rounds on one machine in one run. Ratios are what to compare; absolute rates
belong to the machine.
"""
