"""Logs: one event a line, JSON in production and readable on a terminal, and nothing personal in either."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

UNSAFE_FIELDS = frozenset(
    ("context_key", "context_keys", "key", "value", "payload", "body", "user_id", "email", "password", "token", "dsn",
     "secret", "headers")
)
"""Fields that would carry data or secrets. Coordinates (topic, partition, offset) are enough to find a record."""

NOISY_LIBRARIES = ("aiokafka", "asyncio", "uvicorn", "uvicorn.error", "asyncpg")

Event = MutableMapping[str, Any]


def configure(form: str = "auto", level: str = "info") -> None:
    """Sends everything to standard error: `json`, `console`, or by whether that is a terminal."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact_unsafe_fields,
        exception_without_data,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[drop_foreign_arguments, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def redact_unsafe_fields(_: object, __: str, event: Event) -> Event:
    """A field that could hold data is named, but not shown."""
    for field in UNSAFE_FIELDS & event.keys():
        event[field] = "[redacted]"
    return event


def exception_without_data(_: object, __: str, event: Event) -> Event:
    """An exception becomes its type and its place. Texts of drivers quote rows and payloads, so none is logged."""
    raised = event.pop("exc_info", None)
    exc = sys.exc_info()[1] if raised is True else raised[1] if isinstance(raised, tuple) else raised
    if isinstance(exc, BaseException):
        event["error"] = type(exc).__name__
        event["at"] = _place(exc)
    return event


def drop_foreign_arguments(_: object, __: str, event: Event) -> Event:
    """A library's line keeps its text, without the exception's."""
    record = event.get("_record")
    if record is not None and record.exc_info:
        event["exc_info"] = record.exc_info
        record.exc_info = None
        record.exc_text = None
    return event


def _place(exc: BaseException) -> str:
    traceback = exc.__traceback__
    if traceback is None:
        return "unknown"
    while traceback.tb_next:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
