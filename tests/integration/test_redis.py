"""Redis as it is run: as a cluster, behind TLS, with a user of few rights, and started anew."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.asyncio import Redis

from deploy.local.processes import HOST, free_ports
from deploy.local.valkey import Valkey, ValkeyCluster
from stores.errors import StoreUnavailableError
from stores.redis.target import RedisTarget
from stores.target import Change, Reference, context_reference
from tests.integration.test_projection import InRedis
from tests.worker_process import Bench, eventually, webhook

CHANGES = [Change("beta", 1, f"u{number}", included=True) for number in range(2_500)]
REFERENCES = [Reference(each.segment, each.generation, context_reference(each.context_key)) for each in CHANGES]
FEWEST_RIGHTS = (
    "-@all +auth +hello +ping +client|setname +client|setinfo +info +cluster|slots +get +set +unlink +watch +unwatch "
    "+multi +exec +sadd +srem +sismember +smembers +scan"
)
"""As the README tells them."""
TO_END_CONNECTIONS = "+client|list +client|kill"


@pytest.fixture
async def own_cluster(tmp_path: Path) -> AsyncIterator[ValkeyCluster]:
    """To break."""
    with ValkeyCluster(tmp_path).start() as cluster:
        yield cluster


async def is_whole(target: RedisTarget) -> bool:
    return all(await target.hold(REFERENCES))


async def works(doing: Callable[[], Awaitable[object]]) -> bool:
    """Whether this can be done now."""
    try:
        await doing()
    except StoreUnavailableError:
        return False
    return True


async def test_what_one_server_of_a_cluster_has_lost_is_noticed(own_cluster: ValkeyCluster) -> None:
    async with RedisTarget(own_cluster.url) as target:
        for node in own_cluster.nodes:
            await target.mark("ours")
            await target.apply(CHANGES)
            assert await target.marker() == "ours"
            with node.client() as client:
                client.flushall()

            assert await target.marker() is None
            assert not await is_whole(target)


async def test_a_server_of_a_cluster_that_is_down_is_waited_for(own_cluster: ValkeyCluster) -> None:
    async with RedisTarget(own_cluster.url) as target:
        await target.mark("ours")
        for node in (own_cluster.nodes[0], own_cluster.nodes[2]):
            node.stop()
            with pytest.raises(StoreUnavailableError):
                await target.apply(CHANGES)
            node.restart()
            await eventually(partial(works, target.settle))
            await eventually(partial(works, partial(target.apply, CHANGES)))
            assert await is_whole(target)
            assert await target.marker() is None
            await target.mark("ours")


async def test_an_audit_does_not_take_what_it_may_not_read_for_nothing(tmp_path: Path) -> None:
    with Valkey(tmp_path).start() as server:
        async with Redis.from_url(server.url) as admin:
            rules = ["reset", "on", ">secret", "~ours:*", *FEWEST_RIGHTS.split(), "-smembers"]
            await admin.execute_command("ACL", "SETUSER", "projector", *rules)  # type: ignore[no-untyped-call]
        url = server.url.replace("redis://", "redis://projector:secret@")
        async with RedisTarget(url, prefix="ours") as target:
            await target.apply(CHANGES[:10])
            with pytest.raises(StoreUnavailableError, match="NoPermissionError"):
                [page async for page in target.references()]


async def test_what_was_sent_to_a_cluster_while_one_of_its_servers_is_down_does_not_arrive_later(
    own_cluster: ValkeyCluster,
) -> None:
    down, slow, _ = own_cluster.nodes
    async with RedisTarget(own_cluster.url) as target:
        await target.apply(CHANGES)
        with slow.client() as client:
            _asked(client, "CLIENT", "PAUSE", 60_000, "WRITE")  # it answers, but what it is told to write waits
            down.stop()
            with pytest.raises(StoreUnavailableError):
                await target.apply([each._replace(included=False) for each in CHANGES])
            down.restart()
            await eventually(partial(works, target.settle))
            _asked(client, "CLIENT", "UNPAUSE")
            await asyncio.sleep(0.5)

            assert len(client.keys("*:big_segment_include:*")) > len(CHANGES) / 4


async def test_a_replica_that_takes_over_is_followed_also_where_the_url_names_a_server_that_froze(
    tmp_path: Path,
) -> None:
    with ValkeyCluster(tmp_path, with_replicas=True).start() as cluster:
        async with RedisTarget(cluster.url) as target:
            await target.mark("ours")
            await target.apply(CHANGES[:1_000])
            cluster.nodes[0].suspend()

            await eventually(partial(works, partial(target.apply, CHANGES)), timeout_s=60)
            assert await is_whole(target)
            assert await target.marker() is None  # what was acknowledged last may not have reached the replica
            cluster.nodes[0].resume()


async def test_slots_that_move_to_another_server_are_followed(own_cluster: ValkeyCluster) -> None:
    first, second, third = own_cluster.nodes
    async with RedisTarget(own_cluster.url) as target:
        await target.mark("ours")
        assert await target.marker() == "ours"
        with first.client() as one, second.client() as two, third.client() as three:
            new_owner = _asked(two, "CLUSTER", "MYID")
            for slot in range(100):
                for key in _asked(one, "CLUSTER", "GETKEYSINSLOT", slot, 1_000):
                    one.unlink(key)
                for client in (two, one, three):
                    _asked(client, "CLUSTER", "SETSLOT", slot, "NODE", new_owner)
        await eventually(partial(works, partial(target.apply, CHANGES)))
        assert await is_whole(target)


def _asked(client: redis.Redis, *command: object) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


async def test_a_server_that_was_started_anew_may_have_lost_its_last_writes(tmp_path: Path) -> None:
    with Valkey(tmp_path).start() as server:
        async with RedisTarget(server.url) as target:
            await target.mark("ours")
            async with Redis.from_url(server.url) as client:
                await client.save()  # what is written from now on is not in the file that it is started from again
            await target.apply(CHANGES)
            assert await target.marker() == "ours"
            server.kill()
            server.restart()
            async with Redis.from_url(server.url) as client:
                assert await client.dbsize() == 1
            await eventually(partial(works, target.settle))
            assert await target.marker() is None


async def test_a_user_with_the_fewest_rights_can_project(tmp_path: Path) -> None:
    with Valkey(tmp_path).start() as server:
        async with Redis.from_url(server.url) as admin:
            for rights in (FEWEST_RIGHTS, f"{FEWEST_RIGHTS} {TO_END_CONNECTIONS}"):
                rules = ["reset", "on", ">secret", "~ours:*", *rights.split()]
                await admin.execute_command("ACL", "SETUSER", "projector", *rules)  # type: ignore[no-untyped-call]
                url = server.url.replace("redis://", "redis://projector:secret@")
                async with RedisTarget(url, prefix="ours") as target:
                    await target.mark("it")
                    await target.apply(CHANGES)
                    assert await is_whole(target)
                    assert await target.marker() == "it"
                    assert await target.synchronize(1)
                    assert sum([len(page) async for page in target.references()]) == len(CHANGES)
                    await target.remove(REFERENCES[:1])
                    await target.forget(REFERENCES[1].context)
                    await _interrupted(target, server)
                    await target.settle()
                    assert sum(await target.hold(REFERENCES)) == len(CHANGES) - 2
            left = [each for each in await admin.client_list() if each["name"].startswith("cohort-sync")]
            assert left == []


async def _interrupted(target: RedisTarget, server: Valkey) -> None:
    """An exchange of which nobody knows what became."""
    server.suspend()
    sending = asyncio.create_task(target.hold(REFERENCES))
    await asyncio.sleep(0.1)
    sending.cancel()
    await asyncio.wait({sending})
    server.resume()


async def test_a_wrong_password_is_told_by_config_check(bench: Bench, tmp_path: Path) -> None:
    with Valkey(tmp_path / "own").start() as server:
        async with Redis.from_url(server.url) as admin:
            await admin.config_set("requirepass", "right")
            bench.settings["projections"] = [
                {
                    "name": "sdk",
                    "type": "redis",
                    "environment": "production",
                    "url": server.url.replace("redis://", "redis://:wrong-one@"),
                }
            ]
            checked = await bench.run("config", "check")

    assert checked.returncode == 1
    assert b"the user or the password is wrong" in checked.stdout
    assert b"wrong-one" not in checked.stdout + checked.stderr


async def test_a_password_that_is_replaced_is_used_at_the_next_connection(tmp_path: Path) -> None:
    file = tmp_path / "url"
    with Valkey(tmp_path / "own").start() as server:
        file.write_text(server.url.replace("redis://", "redis://:none-yet@"))
        async with Redis.from_url(server.url) as admin, RedisTarget(file.read_text) as target:
            for password in ("first", "second"):
                file.write_text(server.url.replace("redis://", f"redis://:{password}@"))
                await admin.config_set("requirepass", password)
                await admin.client_kill_filter(_type="normal", skipme=True)
                await eventually(partial(works, target.settle))
                await eventually(partial(works, partial(target.apply, CHANGES)))
                assert await is_whole(target)


async def test_a_url_that_is_replaced_by_that_of_another_server_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "url"
    with Valkey(tmp_path / "one").start() as one, Valkey(tmp_path / "other").start() as other:
        file.write_text(one.url)
        async with RedisTarget(file.read_text) as target, Redis.from_url(other.url) as admin:
            await target.mark("ours")
            for url in (other.url, other.url.removesuffix("/0") + "/1"):
                file.write_text(url)
                assert await target.marker() is None
                await target.mark("ours")
                await target.apply(CHANGES)
                assert await target.marker() == "ours"
                assert await is_whole(target)
            await admin.config_set("requirepass", "first")  # of which the URL has had none so far
            file.write_text(url.replace("redis://", "redis://:first@"))
            assert await target.marker() == "ours"
            one.stop()
            assert await is_whole(target)


async def test_a_url_that_leads_elsewhere_is_followed_also_where_the_server_that_was_left_froze(tmp_path: Path) -> None:
    file = tmp_path / "url"
    with Valkey(tmp_path / "one").start() as one, Valkey(tmp_path / "other").start() as other:
        file.write_text(one.url)
        async with RedisTarget(file.read_text) as target:
            await target.mark("ours")
            one.suspend()
            file.write_text(other.url)
            await eventually(partial(works, partial(target.mark, "ours")))
            assert await target.marker() == "ours"
            one.resume()


async def test_a_projector_fills_the_server_that_its_url_file_leads_to_by_now(
    bench: Bench, valkey: Valkey, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    with Valkey(tmp_path / "other").start() as other:
        before = InRedis(bench, valkey)
        where = bench.settings["projections"][0]
        del where["url"]
        where["url_file"] = str(file)
        file.write_text(valkey.url)
        projector = before.start()
        await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
        await bench.catch_up()
        await eventually(lambda: before.references("u1"))
        key = f"{before.prefix}:big_segment_include:{context_reference('u1')}"
        try:
            file.write_text("redis:")
            told = await projector.logged("secret_file_not_taken")
            file.write_text(other.url)

            async def is_filled() -> bool:
                async with Redis.from_url(other.url) as client:
                    return await client.exists(key) == 1

            await eventually(is_filled)
        finally:
            before.close()
    assert told["setting"] == "url_file"


@asynccontextmanager
async def behind_tls(server: Valkey, authority: trustme.CA, name: str) -> AsyncIterator[str]:
    """The URL of a proxy that speaks TLS. The Valkey that we have is built without."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(HOST, server.port)
        await asyncio.gather(_pump(reader, ours), _pump(theirs, writer))

    (port,) = free_ports(1)
    async with await asyncio.start_server(serve, HOST, port, ssl=context):
        yield f"rediss://{HOST}:{port}/0"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_a_server_behind_tls_is_trusted_by_its_authority_and_name(valkey: Valkey, tmp_path: Path) -> None:
    authority = trustme.CA()
    cafile = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(cafile))
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with behind_tls(valkey, authority, HOST) as url:
        async with RedisTarget(url, prefix="tls", ssl_cafile=str(cafile)) as target:
            await target.apply(CHANGES)
            assert await is_whole(target)
        for trusted in (str(other), None):
            async with RedisTarget(url, prefix="tls", ssl_cafile=trusted) as target:
                with pytest.raises(StoreUnavailableError, match="certificate is not trusted"):
                    await target.marker()
    async with (
        behind_tls(valkey, authority, "another.example") as url,
        RedisTarget(url, prefix="tls", ssl_cafile=str(cafile)) as target,
    ):
        with pytest.raises(StoreUnavailableError, match="certificate is not trusted"):
            await target.marker()
