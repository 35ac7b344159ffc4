"""How every Kafka client of the project reaches the brokers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaClient
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed

from consumers.record import TopicPartition

REQUEST_TIMEOUT_MS = 15_000
"""aiokafka's 40 s would keep a dead connection longer than a group keeps a member."""
REFUSAL_WITHIN_S = 5.0


class CurrentContext(ssl.SSLContext):
    """Builds a context for each connection, so that certificates that were replaced count from the next one on.

    A context of the standard library can be given further authorities, but none can be taken away from it.
    """

    def __new__(cls, build: Callable[[], ssl.SSLContext]) -> Self:  # noqa: ARG004 - for __init__
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, build: Callable[[], ssl.SSLContext]) -> None:
        build()  # so that what can't be read is told at the start
        self._build = build

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """What event loops call once for each connection."""
        return self._build().wrap_bio(*args, **kwargs)


class KafkaConnection(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and credentials of a Kafka cluster. Its repr holds no secret."""

    bootstrap_servers: str
    client_id: str = "cohort-sync"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Callable[[], str] | None = None
    """Asked for each client and by `renew`, since the file that holds it may be replaced."""
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    def __repr__(self) -> str:
        return f"KafkaConnection({self.bootstrap_servers!r}, {self.security_protocol})"

    def options(self) -> dict[str, Any]:
        """The keyword arguments that aiokafka's consumer, producer and admin client share."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = CurrentContext(self._ssl_context)
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism or "SCRAM-SHA-512"
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password and self.sasl_password()
        return options

    def renew(self, client: AIOKafkaClient) -> None:
        """Lets a client that lives on log in with the password of now; aiokafka keeps the one it was made with."""
        if self.sasl_password is not None:
            client._sasl_plain_password = self.sasl_password()  # noqa: SLF001 - there is no public way to say it

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ssl_cafile)
        if self.ssl_certfile:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        return context


# aiokafka refuses a record that has neither key nor value, but others produce such, and their dead letters have neither
# too. So a missing key is given a stand-in, and the producer's serializer takes it away again.
_NO_KEY = "no key"


def any_key(key: bytes | None) -> bytes | str:
    """The key as a producer with `key_as_it_was` takes it, also for a record without one."""
    return _NO_KEY if key is None else key


def key_as_it_was(key: bytes | str) -> bytes | None:
    """A producer's key serializer: the reverse of `any_key`."""
    return None if isinstance(key, str) else key


@asynccontextmanager
async def admin_client(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client for a moment."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def all_partitions(connection: KafkaConnection) -> dict[str, list[TopicPartition]]:
    """The partitions of every topic, by topic, in order. Consumers only know those of topics they subscribed to."""
    async with admin_client(connection) as admin:
        described = await admin.describe_topics()
    return {
        topic["topic"]: sorted(TopicPartition(topic["topic"], each["partition"]) for each in topic["partitions"])
        for topic in described
    }


async def topic_settings(connection: KafkaConnection, topics: Collection[str]) -> dict[str, dict[str, str]]:
    """Of each topic, its settings as Kafka names them, the broker's defaults included."""
    async with admin_client(connection) as admin:
        responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics])
    return {
        topic: {name: value for name, value, *_ in entries}
        for response in responses
        for _error, _message, _kind, topic, entries in response.resources
    }


async def why_unreachable(connection: KafkaConnection, exc: BaseException) -> str:
    """The cause of an error of a client, in words where a person can mend it.

    A client that reaches no broker does not say why, so one is asked once more.
    """
    if _in_words(exc) is None:
        exc = await _refusal(connection) or exc
    return _in_words(exc) or type(exc).__name__


def _in_words(exc: BaseException) -> str | None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({exc.verify_message}): see kafka.ssl_cafile"
    if isinstance(exc, ssl.SSLError):
        return "it does not take our certificate, or speaks no TLS: see kafka.security_protocol and kafka.ssl_certfile"
    if isinstance(exc, SaslAuthenticationFailed):
        return "the user or the password is wrong: see kafka.sasl_username and its password"
    return None


async def _refusal(connection: KafkaConnection) -> BaseException | None:
    options = connection.options()
    host, port, _ = collect_hosts(options.pop("bootstrap_servers"))[0]
    try:
        async with asyncio.timeout(REFUSAL_WITHIN_S):
            (await create_conn(host, port, **options)).close()
    except (OSError, KafkaError) as exc:
        return exc
    return None
