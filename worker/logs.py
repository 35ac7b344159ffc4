"""Logs on standard error: JSON lines for machines, a readable console on a terminal, and nothing personal in either.

Our own events are constants with fields beside them. What libraries say through `logging` comes out the same way. Texts
of exceptions may quote keys and payloads (PostgreSQL's DETAIL does), so only those of our own errors are shown; of all
others the type, the SQLSTATE and the places in the code.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.safe_errors import OUR_PACKAGES, describe_error, safe_traceback

LOUDEST_OF_LIBRARIES = {
    "aiokafka": logging.WARNING,
    "asyncpg": logging.ERROR,  # warnings of the server may quote data
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "botocore": logging.WARNING,
    "aiobotocore": logging.WARNING,
}
UNSAFE_NAMES = frozenset(("key", "body", "headers", "user_id", "email", "context_keys"))
"""Fields that may hold data of a record. Coordinates (topic, partition, offset) are enough to find it."""
UNSAFE_ENDINGS = ("context_key", "value", "payload", "password", "token", "dsn", "secret", "authorization")
"""Likewise, and with anything before them: `sasl_password`."""
_UNSAFE_SUFFIXES = tuple(f"_{ending}" for ending in UNSAFE_ENDINGS)
REDACTED = "[redacted]"
LONGEST_MESSAGE = 300
REPEATED_AFTER_S = 10.0
"""A line that a chatty library repeats is let through once in so long."""
MOST_LINES_KNOWN = 500
"""So many different lines are told apart; the one that was let through longest ago is forgotten first."""

Format = Literal["auto", "json", "console"]


def setup_logging(
    *,
    format: Format = "auto",  # noqa: A002 - as the setting is called
    level: str = "info",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sends the logs of this process, its libraries' too, to the stream: standard error where none is given."""
    stream = stream or sys.stderr
    as_json = format == "json" or (format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, _only_a_message],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_exception_texts,
                _redacted,
                *(_AS_JSON if as_json else _on_console(stream)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    handler.addFilter(_QuietClient(root.level, clock))
    logging.captureWarnings(capture=True)
    for name, least in LOUDEST_OF_LIBRARIES.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


class _QuietClient(logging.Filter):
    """Keeps aiokafka's lines few, and below an error: what matters of them our own code logs.

    While Kafka is down it says the same dozens of times a second. What it logs with a traceback stays an error.
    """

    def __init__(self, least: int, clock: Callable[[], float]) -> None:
        super().__init__("aiokafka")
        self._least = least
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True
        if record.levelno == logging.ERROR and not record.exc_info:
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        return record.levelno >= self._least and self._is_due(record)

    def _is_due(self, record: logging.LogRecord) -> bool:
        line = record.name, str(record.msg)[:LONGEST_MESSAGE]
        now = self._clock()
        said_at, suppressed = self._said.get(line, (-math.inf, 0))
        if now - said_at < REPEATED_AFTER_S:
            self._said[line] = said_at, suppressed + 1
            return False
        self._said.pop(line, None)
        self._said[line] = now, 0
        if len(self._said) > MOST_LINES_KNOWN:
            del self._said[next(iter(self._said))]
        record.suppressed = suppressed
        return True


def _timestamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event


def _without_exception_texts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces the exception at hand by what may be said of it."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        event["error"] = describe_error(raised)
        event["traceback"] = safe_traceback(raised)
    event.pop("exception", None)
    event.pop("exc_text", None)
    event.pop("stack", None)
    return event


def _redacted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Refuses fields that must not be logged, however deep they stand."""
    return {name: _safe(name, value) for name, value in event.items()}


def _safe(name: str, value: object) -> object:
    if name in UNSAFE_NAMES or f"_{name}".endswith(_UNSAFE_SUFFIXES):
        return REDACTED
    if isinstance(value, BaseException):
        return describe_error(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping):
        return {str(key): _safe(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe("", inner) for inner in value]
    return value


def _only_a_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a library says is free text: its first line becomes a field, as what follows may quote exceptions."""
    if not str(event.get("logger", "")).startswith(OUR_PACKAGES):
        lines = str(event.get("event", "")).splitlines() or [""]
        event["message"] = lines[0][:LONGEST_MESSAGE]
        event["event"] = "library_message_logged"
        if suppressed := getattr(event["_record"], "suppressed", 0):
            event["suppressed"] = suppressed
    return event


def _on_console(stream: TextIO) -> list[Processor]:
    return [_traceback_last, structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=26)]


def _traceback_last(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The renderer puts this field below the line and lets it have several."""
    if "traceback" in event:
        event["exception"] = event.pop("traceback")
    return event


def _known_fields_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {name: event[name] for name in ("timestamp", "level", "event", "logger") if name in event}
    return first | dict(event)


_SHARED: list[Callable[..., EventDict]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    _timestamp,
]
_AS_JSON: list[Processor] = [_known_fields_first, structlog.processors.JSONRenderer()]
