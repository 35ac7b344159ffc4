"""Records in, deltas out.

Reading order: `record` (what arrives), `feeds` (what the configuration says about it), `normalize` (the one way in),
then one format, and `values` (the rules that all of them share).

    Record -> document.checked -> Formats.find -> the format's `parse` -> Parsed -> versions -> Normalized

A format is one file with a class that has a `name` and a `parse`, as `formats.Format` promises it. To provide one:

- ask `rules.environment` first; then read the value, with a typed decoder where lists are long, and with
  `document.decode` what that does not take. Both must come to the same result.
- take every id, membership, cohort id, name and kind through `values`, so that all formats accept and refuse the same.
- gather members with `parsed.Collector`: it keeps the last of several, counts conflicts, and groups in the order of the
  document. A member that raises `InvalidValue` is rejected at its place; where nobody catches it, so is the record.
- give `event_time_us` only from a clock that can be trusted (`event_times`), else None: the record's time counts then.
- never quote the payload in a detail, and never take what was not understood for a removal.
- name it in `formats`. What a LaunchDarkly manifest describes needs no code, but the manifest in `integrations/`.

`Normalizer.parse` gives a record's `Parsed`, without versions, and `Parsed.in_order` what is in it one by one.
"""
