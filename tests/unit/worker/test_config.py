"""What the configuration accepts, and what it says about everything that it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from worker.config import ConfigError, load_settings
from worker.setting_types import address_in
from worker.settings import Settings

SMALLEST = """\
kafka: {bootstrap_servers: "127.0.0.1:9092"}
postgres: {dsn: "postgresql://cohort_sync@127.0.0.1:5432/cohort_sync"}
feeds:
  - {name: amplitude, topics: [cohorts.amplitude], format: amplitude-webhook, environment: production}
"""


class File:
    """A configuration file of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "cohort-sync.yaml"

    def load(self, text: str = SMALLEST, environ: Mapping[str, str] | None = None) -> Settings:
        self.path.write_text(text)
        return load_settings(self.path, environ or {})

    def problems(self, text: str = SMALLEST, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as raised:
            self.load(text, environ)
        return tuple(line.removeprefix(f"{self.path}:") for line in str(raised.value).splitlines())

    def problem(self, text: str = SMALLEST, environ: Mapping[str, str] | None = None) -> str:
        (only,) = self.problems(text, environ)
        return only


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def test_the_smallest_file_is_enough_and_has_the_documented_defaults(file: File) -> None:
    settings = file.load()
    assert settings.kafka.group_id == "cohort-sync"
    assert settings.kafka.session_timeout_ms == 45_000
    assert settings.kafka.dead_letter_topic == "cohort-sync.dead-letters"
    assert (settings.batch.max_deltas, settings.batch.max_bytes, settings.batch.max_wait_s) == (20_000, 16_777_216, 0.5)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 9400)
    assert settings.record_limits().record_bytes == 8_388_608
    assert settings.feed_list()[0].context_key == "user_id"


def test_the_file_is_the_one_that_the_variable_names_where_none_is_given(file: File) -> None:
    file.load()
    assert load_settings(None, {"COHORT_SYNC_CONFIG": str(file.path)}).kafka.bootstrap_servers == "127.0.0.1:9092"


def test_a_missing_file_is_answered_with_the_smallest_one_that_is_enough(file: File) -> None:
    with pytest.raises(ConfigError, match="there is no such file") as raised:
        load_settings(file.path, {})
    smallest = str(raised.value).partition("\n\n")[2]
    assert file.load(smallest).feeds


def test_every_problem_is_told_at_once_with_its_line(file: File) -> None:
    text = SMALLEST.replace("name: amplitude,", "nme: amplitude,") + "batch:\n  max_deltas: many\n  max_wait_s: 99\n"
    lines = [problem.partition(":")[0] for problem in file.problems(text)]
    assert lines == ["4", "4", "6", "7"]


@pytest.mark.parametrize(
    ("wrong", "right", "nearest"),
    [
        ("kafka: {bootstrap_server: x, ", "kafka: {", "bootstrap_servers"),
        ("format: amplitude-webhok", "format: amplitude-webhook", "amplitude-webhook"),
        ("context_key: userid, name: ", "name: ", "user_id"),
        ("loging: {}\nkafka:", "kafka:", "logging"),
    ],
)
def test_for_an_unknown_name_the_nearest_one_is_offered(file: File, wrong: str, right: str, nearest: str) -> None:
    assert f"did you mean '{nearest}'?" in file.problem(SMALLEST.replace(right, wrong, 1))


@pytest.mark.parametrize(
    "rule", ["customer", "ios_advertising_id", "email:md5", "email:sha-256", "email:md5_or_customer", "user_id_or_mpid"]
)
def test_for_mparticle_the_context_key_is_a_type_of_identity(file: File, rule: str) -> None:
    text = SMALLEST.replace("format: amplitude-webhook", f"format: mparticle, context_key: '{rule}'")
    assert file.load(text).feed_list()[0].context_key == rule
    assert file.load(text.replace("mparticle", "mParticle")).feed_list()[0].context_key == rule
    assert "is no rule" in file.problem(text.replace("format: mparticle", "format: segment"))


@pytest.mark.parametrize("rule", ["Customer", "email:", "email_or_", ":md5", "email:md5:md5", "_or_", "e-mail"])
def test_not_every_text_is_a_type_of_identity(file: File, rule: str) -> None:
    text = SMALLEST.replace("format: amplitude-webhook", f"format: mparticle, context_key: '{rule}'")
    assert "is no rule" in file.problem(text)


def test_a_name_that_is_far_from_all_is_answered_with_all_of_them(file: File) -> None:
    problem = file.problem(SMALLEST + "redis: {}\n")
    assert "did you mean" not in problem
    assert "known: kafka, postgres, " in problem
    assert "did you mean" not in file.problem(environ={"COHORT_SYNC_DEBUG": "1"})


def test_a_name_that_is_given_twice_is_refused_with_both_lines(file: File) -> None:
    problem = file.problem(SMALLEST + "kafka: {bootstrap_servers: other}\n")
    assert problem.startswith("5: kafka: ")
    assert "line 1" in problem


def test_a_syntax_error_is_told_with_its_line_and_column(file: File) -> None:
    assert file.problem(SMALLEST + "batch: {max_deltas: 1\n").startswith("6:1: ")


def test_a_feed_has_topics_or_a_pattern(file: File) -> None:
    feed = "topics: [cohorts.amplitude]"
    assert "feeds[0]" in file.problem(SMALLEST.replace(feed + ", ", ""))
    assert "topic_pattern" in file.problem(SMALLEST.replace(feed, feed + ", topic_pattern: x.*"))
    assert "regular expression" in file.problem(SMALLEST.replace(feed, "topic_pattern: '('"))
    assert file.load(SMALLEST.replace(feed, r"topic_pattern: cohorts\..*")).feed_list()[0].carries("cohorts.x")


def test_no_topic_is_in_two_feeds_and_no_name_is_given_to_two(file: File) -> None:
    again = SMALLEST + SMALLEST.splitlines()[-1] + "\n"
    assert len(file.problems(again)) == 2


def test_the_dead_letter_topic_is_not_read_by_a_feed(file: File) -> None:
    assert "dead letter topic" in file.problem(SMALLEST.replace("cohorts.amplitude", "cohort-sync.dead-letters"))


def test_a_variable_overrides_the_file(file: File) -> None:
    environ = {
        "COHORT_SYNC_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
        "COHORT_SYNC_BATCH__MAX_DELTAS": "7",
        "COHORT_SYNC_FEEDS__0__TOPICS__1": "another",
        "COHORT_SYNC_FEEDS__1": "{name: engage, topics: [e], format: segment}",
        "COHORT_SYNC_FEEDS__1__ENVIRONMENT": "staging",
    }
    settings = file.load(environ=environ)
    assert (settings.kafka.bootstrap_servers, settings.batch.max_deltas) == ("kafka:9092", 7)
    assert settings.feeds[0].topics == ("cohorts.amplitude", "another")
    assert (settings.feeds[1].name, settings.feeds[1].environment) == ("engage", "staging")


def test_text_in_a_variable_stays_text_though_yaml_would_read_a_number(file: File) -> None:
    environ = {"COHORT_SYNC_KAFKA__GROUP_ID": "0123", "COHORT_SYNC_FEEDS__0__COHORT_ID": "no"}
    settings = file.load(environ=environ)
    assert (settings.kafka.group_id, settings.feeds[0].cohort_id) == ("0123", "no")


def test_an_unknown_variable_is_refused_and_the_nearest_one_offered(file: File) -> None:
    problem = file.problem(environ={"COHORT_SYNC_HTTP_PORT": "1"})
    assert "COHORT_SYNC_HTTP_PORT" in problem
    assert "COHORT_SYNC_HTTP__PORT" in problem


def test_a_wrong_value_in_a_variable_is_told_with_the_name_of_the_variable(file: File) -> None:
    assert "COHORT_SYNC_HTTP__PORT" in file.problem(environ={"COHORT_SYNC_HTTP__PORT": "70000"})


def test_a_place_behind_a_gap_in_a_list_is_refused(file: File) -> None:
    assert "COHORT_SYNC_FEEDS__2__NAME" in file.problem(environ={"COHORT_SYNC_FEEDS__2__NAME": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COHORT_SYNC_CONFIG", "other.yaml"),
        ("COHORT_SYNC_TEST_KEEP", "1"),
        ("COHORT_SYNC_SERVICE_HOST", "10.0.0.1"),
        ("COHORT_SYNC_PORT", "tcp://10.0.0.1:9400"),
        ("COHORT_SYNC_GATEWAY_PORT_8400_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_are_no_settings_of_ours_are_left_alone(file: File, name: str, value: str) -> None:
    assert file.load(environ={name: value}) == file.load()


def test_secrets_are_read_from_files_beside_the_configuration(file: File) -> None:
    (file.folder / "dsn").write_text("postgresql://me:hidden@db/x\n")
    settings = file.load(
        SMALLEST.replace('dsn: "postgresql://cohort_sync@127.0.0.1:5432/cohort_sync"', "dsn_file: dsn")
    )
    assert settings.postgres.url() == "postgresql://me:hidden@db/x"
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(settings.model_dump(mode="json"))


def test_a_secret_file_that_is_missing_or_empty_is_told_with_its_path(file: File) -> None:
    text = SMALLEST.replace('dsn: "postgresql://cohort_sync@127.0.0.1:5432/cohort_sync"', "dsn_file: dsn")
    assert str(file.folder / "dsn") in file.problem(text)
    (file.folder / "dsn").write_text("\n")
    assert "is empty" in file.problem(text)


@pytest.mark.parametrize("password", ["hunter22", "'[hunter22'", "{hunter22: hunter22}", "*hunter22", "!hunter22 x"])
def test_no_error_quotes_a_secret(file: File, password: str) -> None:
    kafka = f"kafka: {{sasl_password: {password}, sasl_pasword: {password}, security_protocol: SASL_SSL"
    text = SMALLEST.replace("kafka: {", kafka + ", ").replace("postgresql://cohort_sync@", "mysql://me:hunter22@")
    assert "hunter22" not in "\n".join(file.problems(text))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://me:hunter22@db:5432/x", "db:5432"),
        ("postgresql://me@[::1]:5432,db2/x", "[::1]:5432,db2"),
        ("postgresql://me:hunter@22@db/x?sslmode=disable", "db"),
        ("postgresql://db:5432/x?user=me&password=hunter22", "db:5432"),
        ("postgresql://me:1/hunter22@db/x", "its address"),
        ("postgresql://me:1?hunter22@db/x", "its address"),
        ("postgresql://db:5432/x?password=hunter@22", "its address"),
        ("postgresql:///x?host=/run/pg&port=5433&password=hunter22", "/run/pg:5433"),
        ("postgresql://%2Frun%2Fpg/x", "/run/pg"),
        ("postgresql:///x", "its address"),
    ],
)
def test_the_address_in_a_url_has_neither_user_nor_password(url: str, address: str) -> None:
    assert address_in(url) == address


SPOILT_POSTGRES = (
    "postgresql://cs:hunter/22@db:5432/x",
    "postgresql://cs:hunter?22@db:5432/x",
    "postgresql://cs:hunter#22@db:5432/x",
    "postgresql://cs:12?a=hunter@db:5432/x",
    "postgresql://cs:12#hunter22@db:5432/x",
    "postgresql://cs:1/hunter22@db:5432/x",
    "postgresql://cs:a[hunter22]b@db:5432/x",
    "postgresql://cs:a[hunter22@db:5432/x",
    "postgresql://cs:hunter@22@db:5432/x",
    "postgresql://cs:hunter\u210022@db:5432/x",
    "postgresql://cs:hunter22",
    "postgresql://cs@db:hunter22/x",
    "postgresql://cs@db/x?hunter22",
    "postgresql://cs@db/x?port=hunter22",
)
SPOILT_REDIS = (
    "redis://u:a[hunter22]x@127.0.0.1:6379/0",
    "redis://u:hunter\u210022@127.0.0.1:6379/0",
    "redis://u:hunter/22@127.0.0.1:6379/0",
    "redis://u:hunter#22@127.0.0.1:6379/0",
    "redis://u:hunter22",
    "redis://:hunter22",
)


@pytest.mark.parametrize("dsn", SPOILT_POSTGRES)
def test_a_dsn_whose_password_is_not_encoded_is_told_by_its_setting_and_without_a_part_of_it(
    file: File, dsn: str
) -> None:
    (file.folder / "dsn").write_text(dsn)
    inline = SMALLEST.replace("postgresql://cohort_sync@127.0.0.1:5432/cohort_sync", dsn)
    in_file = SMALLEST.replace('dsn: "postgresql://cohort_sync@127.0.0.1:5432/cohort_sync"', "dsn_file: dsn")
    for text, name in ((inline, "postgres.dsn"), (in_file, "postgres.dsn_file")):
        problem = file.problem(text)
        assert f" {name}: " in problem
        assert "should be that of a PostgreSQL" in problem
        assert "hunter" not in problem


@pytest.mark.parametrize("url", SPOILT_REDIS)
def test_a_redis_url_whose_password_is_not_encoded_is_told_by_its_setting_and_without_a_part_of_it(
    file: File, url: str
) -> None:
    (file.folder / "url").write_text(url)
    projection = f"{SMALLEST}projections:\n  - {{name: sdk, type: redis, environment: production, "
    for setting, name in ((f'url: "{url}"', "projections[0].url"), ("url_file: url", "projections[0].url_file")):
        problem = file.problem(projection + setting + "}")
        assert f" {name}: " in problem
        assert "hunter" not in problem


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p%2F%3F%23%40@db:5432/x",
        "postgresql://u@db1:1,db2,[::1]:3/x?target_session_attrs=primary",
        "postgres://%2Frun%2Fpg/x?user=me@server&password=p",
        "postgresql:///x?host=/run/pg&port=5433,5434",
        "postgresql://db",
    ],
)
def test_a_dsn_that_the_driver_takes_is_taken(file: File, dsn: str) -> None:
    text = SMALLEST.replace("postgresql://cohort_sync@127.0.0.1:5432/cohort_sync", dsn)
    assert file.load(text).postgres.url() == dsn


@pytest.mark.parametrize("endpoint", ["http://me:hunter22", "http://me:a[hunter22]b@db", "https://:1"])
def test_an_address_that_is_none_is_told_by_its_setting_and_without_a_part_of_it(file: File, endpoint: str) -> None:
    target = f'type: dynamodb, environment: production, table: segments, endpoint_url: "{endpoint}"'
    problem = file.problem(f"{SMALLEST}projections:\n  - {{name: aws, {target}}}")
    assert "endpoint_url: should be an address" in problem
    assert "hunter" not in problem


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_server_that_is_to_be_verified_needs_authorities(
    file: File, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(file.folder))
    (file.folder / "ca.pem").touch()
    setting = SMALLEST.replace("postgres: {", f"postgres: {{sslmode: {mode}, ")
    in_dsn = SMALLEST.replace("5432/cohort_sync", f"5432/cohort_sync?sslmode={mode}")
    for text in (setting, in_dsn):
        assert "postgres: sslmode verify-ca or verify-full needs sslrootcert" in file.problem(text)
        named = file.load(text.replace("postgres: {", "postgres: {sslrootcert: ca.pem, "))
        assert "sslrootcert=" in named.postgres.url()
    monkeypatch.setenv("PGSSLROOTCERT", str(file.folder / "ca.pem"))
    assert file.load(setting).postgres.sslmode == mode


def test_the_authorities_of_postgresql_may_be_those_of_the_system(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.folder / "ca.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(file.folder / "ca.pem"))
    setting = SMALLEST.replace("postgres: {", "postgres: {sslmode: verify-full, sslrootcert: system, ")
    in_dsn = SMALLEST.replace("5432/cohort_sync", "5432/cohort_sync?sslmode=verify-full&sslrootcert=system")
    for text in (setting, in_dsn):
        assert file.load(text).postgres.url().endswith("ca.pem")


def test_sasl_needs_a_name_and_a_password(file: File) -> None:
    text = SMALLEST.replace("kafka: {", "kafka: {security_protocol: SASL_SSL, ")
    assert len(file.problems(text)) == 2
    environ = {"COHORT_SYNC_KAFKA__SASL_USERNAME": "me", "COHORT_SYNC_KAFKA__SASL_PASSWORD": "123"}
    connection = file.load(text, environ).kafka.connection()
    assert connection.sasl_password is not None
    assert (connection.sasl_username, connection.sasl_password()) == ("me", "123")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('url: "redis://127.0.0.1:6379/abc"', "url: should be that of a Redis, as in"),
        ('url: "http://127.0.0.1:6379"', "url: should be that of a Redis, as in"),
        ('url: "redis://127.0.0.1:many/0"', "url: should be that of a Redis, as in"),
        ('url: "redis:///0"', "url: should be that of a Redis, as in"),
        ('url: "redis://127.0.0.1:6379/0?foo=bar"', "url: should end with the number of the database"),
        ('url: "redis://127.0.0.1:6379/0", prefix: "a{b"', "prefix: should have no braces, or one pair"),
        ('url: "redis://127.0.0.1:6379/0", prefix: "{}"', "prefix: should have no braces, or one pair"),
    ],
)
def test_a_target_that_can_not_be_is_refused_before_anything_starts(file: File, setting: str, problem: str) -> None:
    text = f"{SMALLEST}projections:\n  - {{name: sdk, type: redis, environment: production, {setting}}}"

    assert problem in file.problem(text)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("table: t, region: eu-west-1", "table: is not a name that DynamoDB takes"),
        ("table: segments, region: eu west", "region: is not the name of a region, as in eu-west-1"),
        ("table: segments, endpoint_url: localhost", "endpoint_url: should begin with https:// or http://"),
    ],
)
def test_a_table_that_can_not_be_is_refused_before_anything_starts(file: File, setting: str, problem: str) -> None:
    text = f"{SMALLEST}projections:\n  - {{name: aws, type: dynamodb, environment: production, {setting}}}"

    assert problem in file.problem(text)


def test_a_prefix_may_keep_all_of_an_environment_in_one_slot(file: File) -> None:
    target = 'type: redis, environment: production, url: "rediss://u:p@h:1/2", prefix: "{ld}-a"'

    assert file.load(f"{SMALLEST}projections:\n  - {{name: sdk, {target}}}").projections[0].prefix == "{ld}-a"


def test_two_projections_do_not_share_a_target(file: File) -> None:
    target = 'type: redis, environment: production, url: "redis://127.0.0.1:6379/0"'
    projections = [
        f"  - {{name: one, {target}}}",
        f"  - {{name: two, {target}}}",
        f"  - {{name: own, {target}, prefix: p}}",
    ]

    problem = file.problem("\n".join([SMALLEST + "projections:", *projections]))

    assert problem.endswith("projections[1].prefix: is that of projections[0], in the same place: give each its own")


def test_a_secret_in_a_file_is_the_one_that_it_holds_now(file: File) -> None:
    secret = file.folder / "password"
    secret.write_text("first\n")
    text = SMALLEST.replace(
        "kafka: {", "kafka: {security_protocol: SASL_SSL, sasl_username: me, sasl_password_file: password, "
    )
    password = file.load(text).kafka.connection().sasl_password
    assert password is not None

    assert password() == "first"
    secret.write_text("second\n")
    assert password() == "second"
    secret.write_text("")
    assert password() == "second"
    secret.unlink()
    assert password() == "second"


@pytest.mark.parametrize(
    "spoilt", ["", "postgresql", "postgresql://me:hunt", "postgresql://me:a[hunter22]b@db/x", None]
)
def test_a_secret_file_that_is_being_written_is_told_once_and_taken_once_it_is_whole(
    file: File, spoilt: str | None
) -> None:
    dsn = file.folder / "dsn"
    dsn.write_text("postgresql://me:first@db/x\n")
    text = SMALLEST.replace('dsn: "postgresql://cohort_sync@127.0.0.1:5432/cohort_sync"', "dsn_file: dsn")
    postgres = file.load(text).postgres
    with capture_logs() as logs:
        if spoilt is None:
            dsn.unlink()
        else:
            dsn.write_text(spoilt)
        assert postgres.url() == postgres.url() == "postgresql://me:first@db/x"
        dsn.write_text("postgresql://me:second@db/x")
        assert postgres.url() == "postgresql://me:second@db/x"

    [told] = logs
    assert told["event"] == "secret_file_not_taken"
    assert told["setting"] == "dsn_file"
    assert str(dsn) in told["why"]
    assert "hunt" not in str(told)
