"""Every setting with its unit, bounds and default. `worker.config` reads them from a file and the environment.

What stands here is checked value by value; what concerns several values together is in `worker.config.checks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from consumers.connection import KafkaConnection
from consumers.feeds import ContextKeyRule, Environment, Environments, Feed, Limits
from stores.model import DEFAULT_CONTEXT_KIND
from worker.setting_types import (
    SYSTEM,
    Authorities,
    ContextKind,
    Dsn,
    DsnFromFile,
    Folder,
    Name,
    Pattern,
    Port,
    Prefix,
    ReadableFile,
    RedisUrl,
    RedisUrlFromFile,
    Region,
    SecretFromFile,
    Table,
    TopicName,
    WebUrl,
    address_in,
    manifests_in,
    trusts_nobody,
    with_parameters,
    with_system_authorities,
)

MIB = 1 << 20


class Section(BaseModel):
    """A part of the configuration: unknown names are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class KafkaSettings(Section):
    """How to reach Kafka, and as which member of which group."""

    bootstrap_servers: Name
    """`host:port`, several of them separated by commas."""
    group_id: Name = "cohort-sync"
    """The consumer group; workers with the same one share the partitions."""
    client_id: Name = "cohort-sync"
    """Used as it is, or as a prefix, to name our connections in the brokers' logs and quotas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: Name | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: SecretFromFile | None = None
    """A file that holds the password and nothing else."""
    ssl_cafile: ReadableFile | None = None
    """Certificates, in PEM, of the authorities to trust; the system's where it is left out."""
    ssl_certfile: ReadableFile | None = None
    """Our own certificate, in PEM, where brokers ask for one."""
    ssl_keyfile: ReadableFile | None = None
    """The key of `ssl_certfile`, where that does not hold it."""
    session_timeout_ms: Annotated[int, Field(ge=6_000, le=1_800_000)] = 45_000
    """A worker that Kafka has not heard of for so long loses its partitions to the others."""
    dead_letter_topic: TopicName = "cohort-sync.dead-letters"

    def connection(self) -> KafkaConnection:
        """The same for the clients."""
        password = self.sasl_password or self.sasl_password_file
        return KafkaConnection(
            bootstrap_servers=self.bootstrap_servers,
            client_id=self.client_id,
            security_protocol=self.security_protocol,
            sasl_mechanism=self.sasl_mechanism,
            sasl_username=self.sasl_username,
            sasl_password=password.get_secret_value if password else None,
            ssl_cafile=self.ssl_cafile,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
        )


class PostgresSettings(Section):
    """How to reach the store of the truth. `dsn` or `dsn_file` is needed."""

    dsn: Dsn | None = None
    """`postgresql://user:password@host:5432/database`."""
    dsn_file: DsnFromFile | None = None
    """A file that holds the DSN and nothing else."""
    pool_max_size: Annotated[int, Field(ge=2, le=100)] = 4
    """Connections at most of one worker: two writers, one that resolves segments, one that looks on."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    sslrootcert: Authorities | None = None
    """Certificates, in PEM, of the authorities to trust; `system` for those that this machine trusts."""
    sslcert: ReadableFile | None = None
    sslkey: ReadableFile | None = None

    @model_validator(mode="after")
    def _names_authorities(self) -> Self:
        if (self.dsn or self.dsn_file) and trusts_nobody(self.url()):
            raise ValueError(
                f"sslmode verify-ca or verify-full needs sslrootcert: a file of authorities, or `{SYSTEM}`"
            )
        return self

    def url(self) -> str:
        """The DSN, with what the `ssl*` settings say. It may hold a password."""
        dsn = self.dsn or self.dsn_file
        names = ("sslmode", "sslrootcert", "sslcert", "sslkey")
        said = {name: value for name in names if (value := getattr(self, name))}
        return with_system_authorities(with_parameters(dsn.get_secret_value() if dsn else "", said))

    def address(self) -> str:
        """Host and port in the DSN, and nothing else of it."""
        return address_in(self.url())


class DeadLetterSettings(Section):
    """Above this share of dead letters consumption pauses, rather than a bad deploy draining a topic into them."""

    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    window_records: Annotated[int, Field(ge=10, le=1_000_000)] = 1_000
    """The share is taken over so many records of a topic."""


class LimitSettings(Section):
    """The bounds of what a record may hold; beyond them it, or the member, is rejected."""

    context_key_bytes: Annotated[int, Field(ge=1, le=8_192)] = 512
    record_bytes: Annotated[int, Field(ge=1_024, le=64 * MIB)] = 8 * MIB
    json_depth: Annotated[int, Field(ge=4, le=500)] = 100
    future_skew_s: Annotated[int, Field(ge=0, le=31_536_000)] = 300
    """A source's clock may be ahead of the record's by so much; beyond it the record's time is taken."""
    freshness_s: Annotated[int, Field(ge=1, le=3_600)] = 30
    """`synchronized_on` of the projections stops when records wait for longer."""


class FeedSettings(Section):
    """A source of records: its topics, their format, and what the format does not say."""

    name: Name
    topics: tuple[TopicName, ...] = ()
    topic_pattern: Pattern | None = None
    """A regular expression that whole names of topics match, instead of `topics`."""
    format: Name
    """An integration, or `header`: then the record's header `integration` decides."""
    environment: Name | None = None
    """Used where the payload names none."""
    context_kind: ContextKind = DEFAULT_CONTEXT_KIND
    """Used where the payload names none."""
    context_key: Name = str(ContextKeyRule.USER_ID)
    """Which identifier is the context key; for mParticle a type of identity."""
    cohort_id: Name | None = None
    """For formats that carry none."""
    cohort_name: Name | None = None
    webhook_secret: SecretStr | None = None
    """With which Heap signs what it sends to the gateway's `/webhooks/{name}`; then no token is needed."""
    webhook_secret_file: SecretFromFile | None = None
    """A file that holds the secret and nothing else."""


class EnvironmentSettings(Section):
    """An environment by all the names that a payload may call it."""

    key: Name
    project: Name | None = None
    client_side_id: Name | None = None


class BatchSettings(Section):
    """A batch is written when it holds so many deltas, so many bytes of records, or a record that waited so long."""

    max_deltas: Annotated[int, Field(ge=1, le=200_000)] = 20_000
    max_bytes: Annotated[int, Field(ge=1_024, le=256 * MIB)] = 16 * MIB
    max_wait_s: Annotated[float, Field(gt=0, le=30)] = 0.5


class HttpSettings(Section):
    """Where the process answers `/healthz`, `/readyz` and `/metrics`."""

    host: Name = "127.0.0.1"
    port: Port = 9400
    """0 takes a free port and logs it."""


class ProjectionSettings(Section):
    """A Big Segment store that the SDKs of one environment read."""

    name: Name
    type: Literal["redis", "dynamodb"]
    environment: Name
    prefix: Prefix | None = None
    """As the SDKs are told it; where it is left out their own default, which in DynamoDB is none."""
    url: RedisUrl | None = None
    """Of a Redis: `redis://` or `rediss://`."""
    url_file: RedisUrlFromFile | None = None
    """A file that holds the URL and nothing else."""
    ssl_cafile: ReadableFile | None = None
    """For `rediss://`: certificates, in PEM, of the authorities to trust; the system's where it is left out."""
    ssl_certfile: ReadableFile | None = None
    """Our own certificate, in PEM, where the server asks for one."""
    ssl_keyfile: ReadableFile | None = None
    """The key of `ssl_certfile`, where that does not hold it."""
    table: Table | None = None
    """Of DynamoDB. Who we are there is told by AWS's own means: a role, or AWS_ACCESS_KEY_ID."""
    region: Region | None = None
    """The table's; AWS_DEFAULT_REGION where it is left out."""
    endpoint_url: WebUrl | None = None
    """Where DynamoDB is, if not where AWS has it in that region."""

    def redis_url(self) -> str:
        """Where the Redis is. It may hold a password."""
        url = self.url or self.url_file
        return url.get_secret_value() if url else ""


class GatewaySettings(Section):
    """Where the gateway listens, and what it takes."""

    host: Name = "127.0.0.1"
    port: Port = 8400
    max_body_bytes: Annotated[int, Field(ge=1_024, le=64 * MIB)] = 8 * MIB
    max_members: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """What all lists of one body may hold together; tools send a thousand to ten thousand members."""
    feed: Name | None = None
    """Where `segment-targets` and `/lists` publish; the first feed with `format: header` where it is left out."""
    token_requests_per_s: Annotated[float, Field(ge=1, le=1_000_000)] = 5_000
    """What one token may send to one gateway; beyond it the answer is 429."""


class ShutdownSettings(Section):
    """How long a stop may take."""

    grace_s: Annotated[float, Field(ge=5, le=3_600)] = 60.0
    """What Kubernetes calls terminationGracePeriodSeconds. The drain takes 3/4 of it at most."""


class WatchdogSettings(Section):
    """When a process that hangs ends itself, so that it is started anew."""

    stall_s: Annotated[float, Field(ge=30, le=3_600)] = 60.0
    """Without any progress for so long the process logs where it hangs and exits with 1."""


class LoggingSettings(Section):
    """What is said on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto` is for people on a terminal and JSON lines elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


def _at_least_one(feeds: tuple[FeedSettings, ...]) -> tuple[FeedSettings, ...]:
    # As a bound of the field it would be told of a list with one bad feed, too.
    if not feeds:
        raise ValueError("should have at least one feed: without one there is nothing to read")
    return feeds


class Settings(Section):
    """The whole configuration."""

    kafka: KafkaSettings
    postgres: PostgresSettings
    feeds: Annotated[tuple[FeedSettings, ...], AfterValidator(_at_least_one)]
    environments: tuple[EnvironmentSettings, ...] = ()
    """With none listed, any name that a payload gives is taken as it is."""
    unknown_environment: Literal["reject", "skip"] = "reject"
    """What happens to records of other environments: `skip` where other cells own them."""
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    limits: LimitSettings = LimitSettings()
    batch: BatchSettings = BatchSettings()
    http: HttpSettings = HttpSettings()
    projections: tuple[ProjectionSettings, ...] = ()
    gateway: GatewaySettings = GatewaySettings()
    manifests_dir: Folder | None = None
    """LaunchDarkly integration manifests: each file, or folder with a `manifest.json`, becomes an integration."""
    shutdown: ShutdownSettings = ShutdownSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    logging: LoggingSettings = LoggingSettings()

    def feed_list(self) -> tuple[Feed, ...]:
        """The feeds as consumers know them."""
        of_gateway = {"webhook_secret", "webhook_secret_file"}
        return tuple(Feed(**feed.model_dump(exclude=of_gateway)) for feed in self.feeds)

    def webhook_secrets(self) -> dict[str, SecretStr]:
        """The secrets of feeds that have one, by the feed's name."""
        found = {feed.name: feed.webhook_secret or feed.webhook_secret_file for feed in self.feeds}
        return {name: secret for name, secret in found.items() if secret}

    def environment_list(self) -> tuple[Environment, ...]:
        """The environments as consumers know them."""
        return tuple(Environment(**environment.model_dump()) for environment in self.environments)

    def record_limits(self) -> Limits:
        """The limits as consumers know them."""
        return Limits(**self.limits.model_dump(exclude={"freshness_s"}))

    def manifest_paths(self) -> tuple[Path, ...]:
        """The manifests in `manifests_dir`, for `consumers.formats.Formats`."""
        return manifests_in(self.manifests_dir) if self.manifests_dir else ()


def environment_of(settings: Settings, projection: ProjectionSettings) -> str:
    """The environment of a projection, by the name that segments have it under."""
    return Environments(settings.environment_list()).find(projection.environment) or projection.environment
