"""A Kafka that asks who we are: SCRAM over TLS, and certificates, with no more rights than are needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.gateway import GatewayUnderTest, a_batch
from tests.secure_kafka import (
    DESCRIBE,
    DESCRIBE_CONFIGS,
    FIRST_PASSWORD,
    GROUP,
    READ,
    TOPIC,
    USER,
    WRITE,
    Acl,
    SecureKafka,
)
from tests.worker_process import Bench, eventually, webhook


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("secure-kafka")).start() as server:
        server.set_password(USER, FIRST_PASSWORD)
        yield server


@pytest.fixture
async def secure_bench(secure_kafka: SecureKafka, database: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Its own producer uses the plain listener; what is tested is given one of the others."""
    async with Bench(secure_kafka.bootstrap_servers, database, tmp_path) as bench:
        yield bench


def scram(server: SecureKafka, folder: Path) -> dict[str, Any]:
    password = folder / "password"
    password.write_text(f"{FIRST_PASSWORD}\n")
    return {
        "bootstrap_servers": server.scram,
        "security_protocol": "SASL_SSL",
        "sasl_username": USER,
        "sasl_password_file": str(password),
        "ssl_cafile": str(server.cafile),
    }


def mutual(server: SecureKafka, _: Path, user: str = USER) -> dict[str, Any]:
    certificate = server.certificate(user)
    return {
        "bootstrap_servers": server.mutual,
        "security_protocol": "SSL",
        "ssl_cafile": str(server.cafile),
        "ssl_certfile": str(certificate.certfile),
        "ssl_keyfile": str(certificate.keyfile),
    }


async def allow_the_least(server: SecureKafka, bench: Bench) -> None:
    """As the README tells them: of the worker, and WRITE on the feeds' topics, of the gateway and `publish`."""
    topics = [topic for feed in bench.settings["feeds"] for topic in feed["topics"]]
    rights = [(TOPIC, topic, operation) for topic in topics for operation in (READ, WRITE)]
    rights += [(TOPIC, bench.dead_letter_topic, operation) for operation in (WRITE, DESCRIBE_CONFIGS)]
    rights.append((GROUP, bench.group_id, READ))
    await server.allow([Acl(f"User:{USER}", *right) for right in rights])


@pytest.mark.parametrize("security", [scram, mutual])
async def test_all_of_it_works_with_the_fewest_rights(
    secure_kafka: SecureKafka, secure_bench: Bench, security: Any
) -> None:
    bench = secure_bench
    gateway = GatewayUnderTest(bench)
    async with gateway:
        await allow_the_least(secure_kafka, bench)
        bench.settings["kafka"] |= security(secure_kafka, bench.folder)
        await gateway.start()
        assert (await gateway.sync(a_batch("u1"), await gateway.token())).status_code == 204
    published = await bench.run(
        "publish", "--feed", "webhook", "-", stdin=json.dumps(webhook("c2", "u2", 1.5)).encode()
    )
    assert published.returncode == 0, published.stderr
    await bench.catch_up()

    assert await bench.members("amplitude-c1") == {"u1": True}
    assert await bench.members("amplitude-c2") == {"u2": True}
    assert [letter["reason"] for letter in await bench.dead_letters()] == ["context_key_invalid"]
    assert (await bench.run("config", "check")).returncode == 0
    assert (await bench.run("status")).returncode == 0


async def test_commands_work_with_the_fewest_rights(secure_kafka: SecureKafka, secure_bench: Bench) -> None:
    bench, operator = secure_bench, "operator"
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", 1.5))
    await bench.catch_up()
    topics = [topic for feed in bench.settings["feeds"] for topic in feed["topics"]]
    rights = [(TOPIC, topic, each) for topic in topics for each in (READ, WRITE, DESCRIBE_CONFIGS)]
    rights += [(TOPIC, bench.dead_letter_topic, each) for each in (READ, DESCRIBE_CONFIGS)]
    rights.append((GROUP, bench.group_id, DESCRIBE))
    await secure_kafka.allow([Acl(f"User:{operator}", *right) for right in rights])
    bench.settings["kafka"] |= mutual(secure_kafka, bench.folder, operator)
    other = bench.folder / "old-cell.yaml"  # the same rows, for what is asked of Kafka is what counts here
    dsn = f"{bench.dsn}{'&' if '?' in bench.dsn else '?'}application_name=old-cell"
    other.write_text(yaml.safe_dump(bench.settings | {"postgres": {"dsn": dsn}}))

    for command in (
        ["status"],
        ["copy", "production", "--from", str(other)],
        ["dead-letters", "list"],
        ["dead-letters", "replay"],
        ["explain", "amplitude-c1", "u1", "--record"],
        ["erase", "u1"],
    ):
        done = await bench.run(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert b"not available" not in done.stdout + done.stderr, command


async def test_a_stranger_is_refused_and_told_why(secure_kafka: SecureKafka, secure_bench: Bench) -> None:
    bench, folder = secure_bench, secure_bench.folder
    other = folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    wrong = folder / "wrong"
    wrong.write_text("a wrong one")
    known = scram(secure_kafka, folder)
    for settings, why in (
        ({"ssl_cafile": str(other)}, "its certificate is not trusted"),
        ({"bootstrap_servers": secure_kafka.scram.replace("127.0.0.1", "localhost")}, "its certificate is not trusted"),
        ({"sasl_password_file": str(wrong)}, "the user or the password is wrong"),
    ):
        bench.settings["kafka"] |= known | settings
        checked = await bench.run("config", "check", "--json")
        [found] = [each for each in map(json.loads, checked.stdout.splitlines()) if each["check"] == "Kafka"]
        assert why in found["why"], found
        assert b"a wrong one" not in checked.stdout + checked.stderr


async def test_a_password_that_is_replaced_while_it_runs_is_used_at_the_next_connection(
    secure_kafka: SecureKafka, secure_bench: Bench
) -> None:
    await _runs_on(secure_kafka, secure_bench, scram(secure_kafka, secure_bench.folder), _replace_password)
    secure_kafka.set_password(USER, FIRST_PASSWORD)


async def test_a_password_that_is_refused_while_it_runs_is_told_in_words_until_the_right_one_is_there(
    secure_kafka: SecureKafka, secure_bench: Bench
) -> None:
    bench = secure_bench
    async with GatewayUnderTest(bench) as gateway:
        await allow_the_least(secure_kafka, bench)
        bench.settings["kafka"] |= scram(secure_kafka, bench.folder)
        processes = (bench.start_worker(), await gateway.start())
        await processes[0].logged("worker_started")
        secure_kafka.set_password(USER, "second")
        secure_kafka.restart()

        async def both_say_why() -> bool:
            told = [(await each.get("/readyz")).text for each in processes]
            return all("the user or the password is wrong" in text for text in told)

        async def both_are_ready() -> bool:
            return all([(await each.get("/readyz")).status_code == 200 for each in processes])

        await eventually(both_say_why)
        (bench.folder / "password").write_text("second")
        await eventually(both_are_ready)
    secure_kafka.set_password(USER, FIRST_PASSWORD)


async def test_certificates_that_are_replaced_while_it_runs_are_used_at_the_next_connection(
    secure_kafka: SecureKafka, secure_bench: Bench
) -> None:
    await _runs_on(secure_kafka, secure_bench, mutual(secure_kafka, secure_bench.folder), _replace_certificates)


async def _runs_on(server: SecureKafka, bench: Bench, security: dict[str, Any], replace: Any) -> None:
    """Worker and gateway, over the replacement, while all connections are cut."""
    async with GatewayUnderTest(bench) as gateway:
        await allow_the_least(server, bench)
        bench.settings["kafka"] |= security
        worker = bench.start_worker()
        await gateway.start()
        token = await gateway.token()
        before, after = a_batch("u1", "bad"), a_batch("u2", "bad")
        for batch in (before, after):
            batch["batch"][1]["userId"] = 1.5  # type: ignore[index]
        assert (await gateway.sync(before, token)).status_code == 204
        await eventually(bench.dead_letters)

        server.stop()
        replace(server, bench)
        server.restart()

        async def is_taken() -> bool:
            return (await gateway.sync(after, token)).status_code == 204

        async def all_arrived() -> bool:
            return (
                await bench.members("amplitude-c1") == {"u1": True, "u2": True} and len(await bench.dead_letters()) > 1
            )

        await eventually(is_taken)
        await eventually(all_arrived)
        assert worker.returncode is None


def _replace_certificates(server: SecureKafka, _: Bench) -> None:
    server.replace_authority()
    server.certificate(USER)


def _replace_password(server: SecureKafka, bench: Bench) -> None:
    server.restart()
    server.set_password(USER, "second")
    server.stop()
    (bench.folder / "password").write_text("second")
