"""Records in, deltas out.

Reading order: `record` (what arrives), `feeds` (what the configuration says about it), `normalize` (the one way in), then one
format, and `values` (the rules that all of them share).

    Record -> document.checked -> formats.find -> a format's `parse` -> Parsed -> Normalizer: versions -> Normalized

A format is one file with a class that has a `name` and `parse(value, feed, rules) -> Parsed`, as `formats.Format` promises
it. To provide one:

- ask `rules.environment` first; then read the value, with a typed decoder where lists are long, and with `document.decode`
  where the typed one does not take it. Both must come to the same result.
- take every id, membership, cohort id, name and kind through `values`, so that all formats accept and refuse the same.
- gather members with `parsed.Collector`: it keeps the last of several, counts conflicts, and groups in document order. A
  member that raises `InvalidValue` is rejected at its place; one that nobody catches rejects the record.
- give `event_time_us` only from a clock that can be trusted (`event_times`), else None: then the record's time counts.
- never quote the payload in a detail, and never take what was not understood for a removal.
- name it in `formats`. Payloads that a LaunchDarkly manifest can describe need no code: put the manifest in `integrations/`.

`Normalizer.parse` gives a record's `Parsed` without versions, and `Parsed.in_order` all of it in the order of the document.
"""
