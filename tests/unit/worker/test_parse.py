"""`cohort-sync parse`: what it takes for a record, what it prints, and at which speed and size."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from worker.commands import cli
from worker.commands.frame import run_command_line
from worker.commands.json_records import json_records

ROOT = Path(__file__).parents[3]
A_USER = b'{"cohort_id":"c1","in_cohort":true,"users":[{"user_id":"u1"}]}'

MANIFEST = {
    "name": "Acme",
    "capabilities": {
        "syncedSegment": {
            "requestParser": {
                "environmentIdPath": "/env",
                "cohortIdPath": "/id",
                "cohortNamePath": "/name",
                "memberArrayPath": "/who",
                "memberArrayParser": {"memberIdPath": "/key", "booleanMembershipPath": "/in"},
            }
        }
    },
}


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Parse:
    """Runs `parse` in this process on a file with these bytes."""

    def __init__(self, folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self.folder = folder
        self._captured = capfdbinary

    def __call__(self, content: bytes, *options: str, integration: str = "amplitude-webhook") -> Done:
        file = self.folder / "records"
        file.write_bytes(content)
        status = run_command_line(cli, ["parse", "--integration", integration, *options, str(file)])
        out, err = self._captured.readouterr()
        return Done(status, out.decode(), err.decode())

    def rows(self, content: bytes, *options: str, integration: str = "amplitude-webhook") -> list[dict[str, Any]]:
        return self(content, "--json", *options, integration=integration).rows


@pytest.fixture
def parse(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Parse:
    return Parse(tmp_path, capfdbinary)


def values(content: bytes, largest: int = 1_000) -> list[bytes]:
    return [line.value for line in json_records(io.BytesIO(content), largest)]


def test_a_file_has_one_record_a_line() -> None:
    assert values(b'{"a":1}\n{"b":2}\r\n{"c":3}') == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


def test_an_empty_file_has_none() -> None:
    assert values(b"") == []


def test_a_blank_line_is_a_record_without_a_value_but_not_at_the_end() -> None:
    assert [tuple(line) for line in json_records(io.BytesIO(b'{"a":1}\n\n{"b":2}\n\n\n'), 1_000)] == [
        (0, b'{"a":1}', 7),
        (1, b"", 0),
        (2, b'{"b":2}', 7),
    ]


def test_a_file_of_one_blank_line_is_one_record_without_a_value() -> None:
    assert values(b"\n") == [b""]


def test_a_document_over_many_lines_is_one_record() -> None:
    pretty = json.dumps({"a": [1, {"b": None}]}, indent=2).encode()
    assert values(pretty + b"\n") == [pretty]
    assert values(b"\xef\xbb\xbf" + pretty) == [b"\xef\xbb\xbf" + pretty]


def test_lines_that_are_no_json_are_records_of_their_own() -> None:
    assert values(b'{"a":\n{"b":2}\nnonsense\n') == [b'{"a":', b'{"b":2}', b"nonsense"]


@pytest.mark.parametrize("first", [b'{"a":1}', b"no json"])
def test_of_a_line_that_is_too_long_only_the_size_is_kept(first: bytes) -> None:
    long = b'"' + b"x" * 5_000_000 + b'"'
    lines = list(json_records(io.BytesIO(first + b"\n" + long + b"\n" + b'{"b":2}'), 1_000))
    assert [line.size for line in lines] == [len(first), 5_000_002, 7]
    assert len(lines[1].value) < 1_100


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("more", [-1, 0, 1, 2, 3, 4])
def test_sizes_near_the_limit_are_exact(more: int, end: bytes) -> None:
    line = b"1" * (1_000 + more)
    _, found = json_records(io.BytesIO(b"{}\n" + line + end), 1_000)
    assert (found.number, found.size) == (1, len(line))
    assert line.startswith(found.value)
    assert found.value == line or more > 0


def test_every_kind_of_thing_that_would_happen_has_its_line(parse: Parse) -> None:
    beta = {"cohort_id": "7khm89cz", "cohort_name": "Beta", "in_cohort": True, "computed_time": "1692206763"}
    users = [{"user_id": "u1"}, {"user_id": None}, {"user_id": 7}]
    content = b"\n".join([json.dumps(beta | {"users": each}).encode() for each in (users, [])] + [b"{"])
    done = parse(content, "--environment", "production", "--json")
    first, rejected, last, ignored, invalid = done.rows
    assert done.status == 3
    assert list(first) == [
        "record",
        "member",
        "environment",
        "segment",
        "cohort_id",
        "cohort_name",
        "context_kind",
        "context_key",
        "included",
        "event_time_us",
    ]
    assert rejected == {
        "record": 0,
        "member": 1,
        "rejected": "context_key_missing",
        "detail": "/users/1/user_id is null",
    }
    assert (last["member"], last["context_key"], last["event_time_us"]) == (2, "7", 1_692_206_763_000_000)
    assert ignored == {"record": 1, "member": None, "ignored": "no_members"}
    assert (invalid["record"], invalid["member"], invalid["rejected"]) == (2, None, "json_invalid")


def test_what_the_payload_does_not_say_comes_from_the_options(parse: Parse) -> None:
    content = b'{"in_cohort":true,"users":[{"user_id":"u1"}]}'
    options = ("--environment", "staging", "--context-kind", "device", "--cohort-id", "a b", "--cohort-name", "A B")
    (row,) = parse.rows(content, *options)
    assert (row["environment"], row["context_kind"], row["cohort_id"]) == ("staging", "device", "a b")
    assert row["cohort_name"] == "A B"
    assert row["segment"].startswith("amplitude-a-b-")


def test_where_nobody_names_an_environment_there_is_none(parse: Parse) -> None:
    (row,) = parse.rows(A_USER)
    assert row["environment"] is None


def test_nothing_rejected_ends_with_0(parse: Parse) -> None:
    assert parse(A_USER).status == 0
    assert parse(A_USER, "--json").status == 0


def test_a_manifest_makes_an_integration_of_the_name_that_was_given(parse: Parse) -> None:
    manifest = parse.folder / "manifest.json"
    manifest.write_text(json.dumps(MANIFEST))
    payload = b'{"env":"e","id":"vip","name":"VIP","who":[{"key":"u1","in":true},{"key":"u2","in":false}]}'
    rows = parse.rows(payload, "--manifest", str(manifest), integration="acme")
    assert [(row["segment"], row["context_key"], row["included"]) for row in rows] == [
        ("acme-vip", "u1", True),
        ("acme-vip", "u2", False),
    ]


def test_a_bad_manifest_is_told_with_its_file(parse: Parse) -> None:
    manifest = parse.folder / "acme.json"
    manifest.write_text("{}")
    done = parse(A_USER, "--manifest", str(manifest), integration="acme")
    assert done.status == 2
    assert str(manifest) in done.err


def test_the_configuration_is_the_one_that_every_command_finds_but_there_need_be_none(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parse.folder / "cohort-sync.yaml").write_text("nonsense: true\n")
    assert parse(A_USER).status == 0
    monkeypatch.setenv("COHORT_SYNC_CONFIG", str(parse.folder / "cohort-sync.yaml"))
    assert "nonsense" in parse(A_USER).err
    monkeypatch.setenv("COHORT_SYNC_CONFIG", str(parse.folder / "none.yaml"))
    assert "there is no such file" in parse(A_USER).err
    monkeypatch.delenv("COHORT_SYNC_CONFIG")
    monkeypatch.chdir(parse.folder)
    assert "nonsense" in parse(A_USER).err


def test_the_limits_of_a_configuration_hold(parse: Parse) -> None:
    config = parse.folder / "cohort-sync.yaml"
    config.write_text(
        """
kafka: {bootstrap_servers: "127.0.0.1:9092"}
postgres: {dsn: "postgresql://127.0.0.1/x"}
feeds: [{name: a, topics: [a], format: amplitude-webhook}]
limits: {record_bytes: 1024, context_key_bytes: 1}
"""
    )
    rows = parse.rows(A_USER + b"\n" + A_USER + b" " * 1_000 + b"\n", "--config", str(config))
    assert [row["rejected"] for row in rows] == ["context_key_too_long", "record_too_large"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--context-kind", "multi"), "--context-kind"),
        (("--context-key", "userid"), "'user_id'"),
        (("--context-key", "email:md5"), "--context-key"),
        (("--integration", "mparticle", "--context-key", "Email"), "'email'"),
        (("--cohort", "x"), "--cohort-id"),
    ],
)
def test_wrong_options_end_with_2_and_say_what_was_meant(parse: Parse, options: tuple[str, ...], told: str) -> None:
    done = parse(A_USER, *options)
    assert (done.status, done.out) == (2, "")
    assert told in done.err


def test_for_people_a_few_things_are_shown_one_by_one(parse: Parse) -> None:
    done = parse(A_USER + b"\n{\n", "--environment", "production")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["records", "2:", "join", "1,", "leave", "0,", "rejected", "1,", "ignored", "0"]
    assert lines[3][:5] == ["0", "0", "join", "amplitude-c1", "u1"]
    assert lines[4][:5] == ["1", "-", "be", "rejected", "-"]
    assert "json_invalid:" in done.out


def test_for_people_many_things_are_counted_by_segment_and_reason(parse: Parse) -> None:
    users = [{"user_id": f"u{number}"} for number in range(1_234)] + [{"user_id": None}] * 2
    record = json.dumps({"cohort_id": "c1", "cohort_name": "Beta", "in_cohort": True, "users": users}).encode()
    done = parse(record, "--environment", "production")
    assert done.status == 3
    assert "production   amplitude-c1  user  1,234      0  Beta" in done.out
    assert "context_key_missing      2  The member has no id." in done.out
    assert "record 0, member 1234" in done.out


MIXPANEL = {"mixpanel_cohort_id": 9, "mixpanel_session_id": "s1", "members": [{"mixpanel_distinct_id": "u1"}]}
HEAP = {"action_type": "segment.users.drain", "data": {"segment": {"id": 1338065}}}


def test_replacing_and_draining_have_their_lines(parse: Parse) -> None:
    page = MIXPANEL | {"page_info": {"total_pages": 10, "page_count": 6}}
    replace, change = parse.rows(
        json.dumps({"action": "members", "parameters": page}).encode(), "--environment", "e", integration="mixpanel"
    )
    assert replace == {
        "record": 0,
        "member": None,
        "operation": "replace",
        "cohort_id": "9",
        "session": "s1",
        "page": 6,
        "pages": 10,
    }
    assert (change["member"], change["segment"], change["context_key"]) == (0, "mixpanel-9", "u1")
    assert parse.rows(json.dumps(HEAP).encode(), "--environment", "e", integration="heap-inbound") == [
        {"record": 0, "member": None, "operation": "drain", "cohort_id": "1338065"}
    ]


def test_replacing_and_draining_are_told_to_people(parse: Parse) -> None:
    few = parse(json.dumps(HEAP).encode(), "--environment", "e", integration="heap-inbound")
    assert "drain  heap-inbound-1338065" in few.out
    many = parse(json.dumps(HEAP).encode() + b"\n" + b"{}\n" * 30, "--environment", "e", integration="heap-inbound")
    assert "heap-inbound-1338065  user  drain" in many.out


def test_where_nothing_fits_the_integrations_that_do_are_told(parse: Parse) -> None:
    record = json.dumps({"action": "add_members", "parameters": MIXPANEL}).encode()
    done = parse(record, "--environment", "e", "--json", integration="hightouch")
    assert done.status == 3
    assert "try --integration mixpanel" in done.err
    assert len(done.rows) == 1


def test_where_something_fits_nothing_else_is_told(parse: Parse) -> None:
    record = json.dumps({"action": "add_members", "parameters": MIXPANEL}).encode()
    assert parse(record + b"\n{}", "--environment", "e", integration="mixpanel").err == ""


def test_a_cohort_that_is_missing_is_told_with_its_option(parse: Parse) -> None:
    record = b'{"type": "track", "event": "new", "userId": "u1"}'
    done = parse(record, "--environment", "e", integration="segment")
    assert "try --integration segment --cohort-id ID" in done.err


def test_keys_from_strangers_cannot_control_the_terminal(parse: Parse) -> None:
    done = parse(b'{"cohort_id":"c","in_cohort":true,"users":[{"user_id":"\\u001b[2J"}]}')
    assert "\x1b" not in done.out
    assert "\\x1b[2J" in done.out


def start(*options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "worker", "parse", "--integration", "amplitude-webhook", *options]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_standard_input_is_read_too() -> None:
    with start("--json", "-") as process:
        out, err = process.communicate(A_USER + b"\n")
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["context_key"] == "u1"


def test_a_reader_who_has_seen_enough_is_no_reason_for_an_error_message(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes((A_USER + b"\n") * 20_000)
    with start("--json", str(file)) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_hundred_thousand_members_take_no_time_to_speak_of(tmp_path: Path) -> None:
    users = [{"user_id": f"u{number}"} for number in range(1_000)]
    record = json.dumps({"cohort_id": "c1", "in_cohort": True, "users": users}).encode() + b"\n"
    file = tmp_path / "records.jsonl"
    file.write_bytes(record * 100)
    started = time.perf_counter()
    with start("--json", str(file)) as process:
        out, _ = process.communicate()
    assert out.count(b"\n") == 100_000
    # Alone it takes 0.5 s, half of which is the start; the bound is for a machine that does other things besides.
    assert time.perf_counter() - started < 10
