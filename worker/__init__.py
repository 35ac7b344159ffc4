"""The process: it runs the flow and owns time, retries and shutdown.

Reading order: `pipeline` tells the flow. Its steps, as a record meets them: `decoder` (records into a batch), `batch`
(when it is due), `delivery` (`segments`, then `lanes` and `writer`, then dead letters), `checkpoint` (what may be
committed). `app` builds them all and is the only place that names concrete classes. Around the flow: `health`,
`http_server`, `watchdog`, `observer`, `metrics`, `logs`, `settings` with `config`, and `commands`, one file each.
"""
