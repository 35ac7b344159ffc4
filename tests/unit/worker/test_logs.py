"""What is logged, in which form, and what never is."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import structlog

from stores.errors import StoreUnavailableError
from worker.logs import MOST_LINES_KNOWN, Format, setup_logging
from worker.safe_errors import describe_error, safe_traceback

SOMEBODY = "bob@example.com"


class Log:
    """Everything that this process logs, as lines of JSON or as a console."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.now = 0.0
        self.set_up()
        self.ours = structlog.get_logger("worker.somewhere")

    def set_up(self, form: Format = "json", level: str = "info") -> None:
        setup_logging(format=form, level=level, stream=self.stream, clock=lambda: self.now)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (only,) = self.lines
        return only


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Log()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def a_unique_violation() -> asyncpg.PostgresError:
    """As the server raises it: the detail quotes the row."""
    error = asyncpg.UniqueViolationError(f"duplicate key value: Key (context_key)=({SOMEBODY})")
    error.detail = f"Key (context_key)=({SOMEBODY}) already exists."
    error.sqlstate = "23505"
    return error


def test_an_event_is_one_json_object_a_line_with_its_fields_beside_it(log: Log) -> None:
    log.ours.warning("record_dead_lettered", topic="cohorts", offset=7)
    line = log.line
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "record_dead_lettered",
        "logger": "worker.somewhere",
        "topic": "cohorts",
        "offset": 7,
    }


def test_without_a_terminal_auto_is_json_and_on_one_it_is_for_people(log: Log) -> None:
    log.set_up("auto")
    log.ours.info("worker_started")
    assert log.line["event"] == "worker_started"

    terminal = Terminal()
    setup_logging(stream=terminal)
    log.ours.info("worker_started")
    assert "worker_started" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_what_is_below_the_level_is_not_logged(log: Log) -> None:
    log.set_up(level="warning")
    log.ours.info("worker_started")
    log.ours.debug("worker_started")
    assert log.text == ""


@pytest.mark.parametrize(
    "field",
    [
        "context_key",
        "context_keys",
        "value",
        "payload",
        "password",
        "token",
        "dsn",
        "sasl_password",
        "postgres_dsn",
        "key",
    ],
)
def test_a_field_that_could_hold_data_or_a_secret_is_named_but_not_shown(log: Log, field: str) -> None:
    log.ours.info("thing_done", **{field: SOMEBODY}, inner={field: SOMEBODY}, several=[{field: SOMEBODY}])
    assert log.line[field] == "[redacted]"
    assert SOMEBODY not in log.text


def test_names_that_only_look_like_those_are_shown(log: Log) -> None:
    log.ours.info("token_created", token_id="t1", segment_key_count=3, values=2)
    assert (log.line["token_id"], log.line["segment_key_count"], log.line["values"]) == ("t1", 3, 2)


def test_bytes_are_told_by_their_number(log: Log) -> None:
    log.ours.info("thing_done", raw=SOMEBODY.encode())
    assert log.line["raw"] == "[15 bytes]"


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_error_of_postgresql_is_logged_without_the_row_that_it_quotes(log: Log, form: Format) -> None:
    log.set_up(form)
    try:
        raise a_unique_violation()
    except asyncpg.PostgresError as exc:
        log.ours.exception("write_failed")
        log.ours.error("write_failed", cause=exc)
    assert SOMEBODY not in log.text
    assert all("UniqueViolationError (SQLSTATE 23505)" in text for text in log.text.split("write_failed")[1:])


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_has_places_and_types_but_no_texts_and_no_values(log: Log, form: Format) -> None:
    log.set_up(form)
    members = {SOMEBODY: 1}
    try:
        try:
            members[SOMEBODY + "2"]
        except KeyError as exc:
            raise ValueError(SOMEBODY) from exc
    except ValueError:
        log.ours.exception("parse_failed")
    assert SOMEBODY not in log.text
    assert "test_logs.py" in log.text
    assert log.text.index("KeyError") < log.text.index("-> led to") < log.text.rindex("ValueError")


def test_every_error_of_a_group_is_told(log: Log) -> None:
    group = ExceptionGroup("unhandled", [ValueError(SOMEBODY), StoreUnavailableError("PostgreSQL", "cut off")])
    log.ours.error("worker_failed", exc_info=group)
    assert SOMEBODY not in log.text
    assert "ValueError" in log.line["traceback"]
    assert "StoreUnavailableError: PostgreSQL is not available: cut off" in log.line["traceback"]


def test_our_own_errors_and_those_of_the_system_keep_their_text() -> None:
    assert describe_error(StoreUnavailableError("PostgreSQL", "cut off")).endswith(
        "PostgreSQL is not available: cut off"
    )
    assert (
        describe_error(ConnectionRefusedError(111, "Connection refused"))
        == "ConnectionRefusedError: Connection refused"
    )
    assert describe_error(ValueError(SOMEBODY)) == "ValueError"


def test_a_traceback_ends_though_its_causes_go_round_for_ever() -> None:
    error = ValueError(SOMEBODY)
    for _ in range(1_000):
        error.__cause__, error = error, ValueError()
    first, second = ValueError(), ValueError()
    first.__context__, second.__context__ = second, first
    assert safe_traceback(first).count("ValueError") < 20


def test_what_a_library_says_has_one_event_name_and_only_its_first_line(log: Log) -> None:
    logging.getLogger("aiokafka.consumer").warning("Heartbeat failed: %s\nvalue=%s", "no coordinator", SOMEBODY)
    assert log.line["event"] == "library_message_logged"
    assert log.line["message"] == "Heartbeat failed: no coordinator"
    assert log.line["logger"] == "aiokafka.consumer"


def test_what_a_library_logs_of_an_exception_is_as_safe_as_what_we_log(log: Log) -> None:
    try:
        raise a_unique_violation()
    except asyncpg.PostgresError as exc:
        text = "".join(traceback.format_exception(exc))
        logging.getLogger("asyncio").exception("Task exception was never retrieved\n%s", text)
    assert SOMEBODY not in log.text
    assert log.line["error"] == "UniqueViolationError (SQLSTATE 23505)"


def test_the_small_talk_of_libraries_is_not_logged(log: Log) -> None:
    logging.getLogger("aiokafka.consumer.group_coordinator").info("Joined group")
    logging.getLogger("uvicorn.access").info("GET /healthz")
    assert log.text == ""


def test_a_line_that_the_kafka_client_repeats_is_logged_once_in_ten_seconds_with_a_count(log: Log) -> None:
    client = logging.getLogger("aiokafka.client")
    for tenth in range(201):
        log.now = tenth / 10
        client.warning("Unable connect to node with id %s", tenth)
    assert [line.get("suppressed") for line in log.lines] == [None, 99, 99]
    assert log.lines[1]["message"] == "Unable connect to node with id 100"


def test_other_lines_of_the_kafka_client_and_those_of_others_are_not_held_back(log: Log) -> None:
    for name in ("aiokafka.client", "aiokafka.conn", "httpx", "httpx"):
        logging.getLogger(name).warning("cut off")
    logging.getLogger("aiokafka.client").warning("came back")
    log.ours.warning("store_unavailable")
    log.ours.warning("store_unavailable")
    assert len(log.lines) == 7


def test_lines_that_are_told_apart_take_bounded_memory(log: Log) -> None:
    for number in range(MOST_LINES_KNOWN + 1):
        logging.getLogger("aiokafka").warning(f"line {number}")  # noqa: G004 - as a template that is never the same
    logging.getLogger("aiokafka").warning("line 1")
    logging.getLogger("aiokafka").warning("line 0")
    assert [line["message"] for line in log.lines[-2:]] == [f"line {MOST_LINES_KNOWN}", "line 0"]


def test_what_the_kafka_client_calls_an_error_is_a_warning_unless_it_has_a_traceback(log: Log) -> None:
    client = logging.getLogger("aiokafka.consumer.group_coordinator")
    client.error("Group Coordinator Request failed: %s", "GroupCoordinatorNotAvailableError")
    client.error("Unexpected error in coordinator routine", exc_info=ValueError(SOMEBODY))
    assert [line["level"] for line in log.lines] == ["warning", "error"]

    log.set_up(level="error")
    client.error("Group Coordinator Request failed: %s", "GroupCoordinatorNotAvailableError")
    assert len(log.lines) == 2
