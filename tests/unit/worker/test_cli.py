"""The command line without any server: usage, configuration, help and what `parse` prints."""

from __future__ import annotations

import io
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from stores.errors import StoreUnavailableError
from worker.commands import COMMANDS, cli
from worker.commands.frame import run_command_line, with_address
from worker.commands.output import rfc3339, shown, shown_content
from worker.config import load_settings

A_WEBHOOK = {"cohort_id": "7khm89cz", "cohort_name": "Beta", "in_cohort": True, "computed_time": "1692206763"}


class Done(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str

    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class CommandLine:
    """Runs commands in this process, with a configuration of the test's own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.closed_port = free.getsockname()[1]
        self.config = folder / "cohort-sync.yaml"
        self.config.write_text(
            f"""
kafka: {{bootstrap_servers: "127.0.0.1:{self.closed_port}"}}
postgres: {{dsn: "postgresql://me:hunter22@127.0.0.1:{self.closed_port}/x"}}
feeds:
  - {{name: webhook, topics: [cohorts.webhook], format: amplitude-webhook, environment: production}}
"""
        )

    def __call__(self, *arguments: str) -> Done:
        status = run_command_line(cli, arguments)
        out, err = self._capsys.readouterr()
        return Done(status, out, err)

    def configured(self, *arguments: str) -> Done:
        return self(*arguments, "--config", str(self.config))

    def parse(self, *lines: object, options: Sequence[str] = ()) -> Done:
        file = self.folder / "records"
        file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return self("parse", "--integration", "amplitude-webhook", *options, str(file))


@pytest.fixture
def command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tmp_path, capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_teaches_with_an_example(command_line: CommandLine, name: str) -> None:
    done = command_line(name, "--help")
    assert done.status == 0
    assert f"  cohort-sync {name}" in done.out


def test_the_help_lists_every_command(command_line: CommandLine) -> None:
    listed = command_line("--help").out.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.strip().splitlines()] == list(COMMANDS)


def test_for_an_unknown_command_the_nearest_one_is_offered(command_line: CommandLine) -> None:
    done = command_line("migate")
    assert (done.status, done.out) == (2, "")
    assert "did you mean 'migrate'?" in done.err


def test_wrong_usage_ends_with_2_and_says_where_help_is(command_line: CommandLine) -> None:
    done = command_line.configured("members")
    assert done.status == 2
    assert "cohort-sync members --help" in done.err


def test_a_wrong_configuration_ends_with_2_and_no_traceback(command_line: CommandLine) -> None:
    command_line.config.write_text("kafka: {bootstrap_server: x}\n")
    done = command_line.configured("segments")
    assert (done.status, done.out) == (2, "")
    assert f"{command_line.config}:1: kafka.bootstrap_server: " in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [["segments"], ["members", "a"], ["explain", "a", "u1"], ["migrate"]])
def test_without_a_database_a_command_ends_with_1_and_says_so(command_line: CommandLine, command: list[str]) -> None:
    done = command_line.configured(*command)
    assert (done.status, done.out) == (1, "")
    address = f"PostgreSQL at 127.0.0.1:{command_line.closed_port} (postgres.dsn) is not available: "
    assert done.err == f"cohort-sync: {address}ConnectionRefusedError\n"


def test_config_check_names_the_addresses_that_do_not_answer(command_line: CommandLine) -> None:
    whys = [str(row["why"]) for row in command_line.configured("config", "check", "--json").rows() if not row["ok"]]
    assert [why.partition(" is not")[0] for why in whys] == [
        f"PostgreSQL at 127.0.0.1:{command_line.closed_port} (postgres.dsn)",
        f"Kafka at 127.0.0.1:{command_line.closed_port} (kafka.bootstrap_servers)",
    ]


def test_a_target_that_is_away_is_not_taken_for_postgresql(command_line: CommandLine) -> None:
    settings = load_settings(command_line.config, {})
    said = with_address(StoreUnavailableError("DynamoDB", "down"), settings)
    assert said == "DynamoDB is not available: down; `projections` in the configuration says where it is"


@pytest.mark.parametrize("command", [["status"], ["dead-letters", "list"]])
def test_without_kafka_a_command_says_so_and_its_client_says_nothing(
    command_line: CommandLine, caplog: pytest.LogCaptureFixture, command: list[str]
) -> None:
    done = command_line.configured(*command)
    assert (done.status, done.out) == (1, "")
    address = f"Kafka at 127.0.0.1:{command_line.closed_port} (kafka.bootstrap_servers) is not available: "
    assert done.err == f"cohort-sync: {address}ConnectionRefusedError\n"
    assert caplog.messages == []


def test_show_masks_every_password(command_line: CommandLine) -> None:
    as_yaml, as_json = command_line.configured("config", "show"), command_line.configured("config", "show", "--json")
    assert (as_yaml.status, as_json.status) == (0, 0)
    assert "hunter22" not in as_yaml.out + as_json.out
    assert as_json.rows()[0]["batch"] == {"max_deltas": 20_000, "max_bytes": 16_777_216, "max_wait_s": 0.5}


def test_what_show_prints_is_a_configuration_with_the_same_meaning(command_line: CommandLine) -> None:
    shown_first = command_line.configured("config", "show").out
    command_line.config.write_text(shown_first)
    assert command_line.configured("config", "show").out == shown_first


def test_publish_to_an_unknown_feed_offers_the_nearest_one(command_line: CommandLine) -> None:
    done = command_line.configured("publish", "--feed", "webhok", str(command_line.config))
    assert done.status == 2
    assert "did you mean 'webhook'?" in done.err


@pytest.mark.parametrize("arguments", [["replay", "--since", "soon"], ["replay", "--reason", "bad"], ["show", "x:1"]])
def test_dead_letters_refuse_what_they_cannot_read(command_line: CommandLine, arguments: list[str]) -> None:
    assert command_line.configured("dead-letters", *arguments).status == 2


def test_for_an_unknown_reason_the_nearest_one_is_offered_or_all(command_line: CommandLine) -> None:
    near = command_line.configured("dead-letters", "list", "--reason", "json-invald")
    assert (near.status, near.out) == (2, "")
    assert "'json-invald' is no reason (did you mean 'json_invalid'?)" in near.err
    far = command_line.configured("dead-letters", "list", "--reason", "nope")
    assert far.status == 2
    assert "'nope' is no reason (known: value_empty, record_too_large, " in far.err


@pytest.mark.parametrize("key", ["", "  "])
def test_explain_refuses_a_context_key_that_nobody_can_have(command_line: CommandLine, key: str) -> None:
    done = command_line.configured("explain", "amplitude-beta", key)
    assert (done.status, done.out) == (2, "")
    assert "CONTEXT_KEY: a blank one is in no segment" in done.err


def test_parse_tells_what_each_member_would_do(command_line: CommandLine) -> None:
    record = A_WEBHOOK | {"users": [{"user_id": "u1"}, {"amplitude_id": 1}]}
    done = command_line.parse(record, options=["--environment", "production", "--json"])
    joins, rejected = done.rows()
    assert joins == {
        "record": 0,
        "member": 0,
        "environment": "production",
        "segment": "amplitude-7khm89cz",
        "cohort_id": "7khm89cz",
        "cohort_name": "Beta",
        "context_kind": "user",
        "context_key": "u1",
        "included": True,
        "event_time_us": 1_692_206_763_000_000,
    }
    assert (rejected["member"], rejected["rejected"]) == (1, "context_key_missing")


def test_parse_ends_with_3_only_when_something_was_rejected(command_line: CommandLine) -> None:
    good = A_WEBHOOK | {"users": [{"user_id": "u1"}]}
    assert command_line.parse(good, options=["--environment", "e"]).status == 0
    assert command_line.parse(good, "no json", options=["--environment", "e"]).status == 3


def test_parse_takes_one_document_over_many_lines(command_line: CommandLine) -> None:
    pretty = json.dumps(A_WEBHOOK | {"users": [{"user_id": "u1"}]}, indent=2)
    done = command_line.parse(pretty, options=["--environment", "e", "--json"])
    assert [row["context_key"] for row in done.rows()] == ["u1"]


def test_parse_offers_the_nearest_integration(command_line: CommandLine) -> None:
    done = command_line("parse", "--integration", "segmant", str(command_line.config))
    assert done.status == 2
    assert "'segment'" in done.err


def test_times_are_utc_with_microseconds_and_z() -> None:
    assert rfc3339(1_692_206_763_000_001) == "2023-08-16T17:26:03.000001Z"
    assert rfc3339(None) is None


def test_control_characters_of_strangers_do_not_reach_a_terminal() -> None:
    assert shown("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"


def test_a_large_value_is_cut_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"x" * 10_000_000
    assert shown_content(large) == large.decode()
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert shown_content(large) == "x" * 4_096 + "... (cut: it has 10,000,000 bytes, and --json gives all)"
    assert shown_content(large[:4_096]) == "x" * 4_096
    assert shown_content(None) == "-"
