"""The server that a URL leads to, or all primaries where that is one of a cluster: which it is, the server says.

Source of the cluster's part: "Redis cluster specification" and the answer of CLUSTER SLOTS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.crc import key_slot
from redis.credentials import CredentialProvider
from redis.exceptions import AskError, ClusterDownError, MasterDownError, RedisError, ResponseError, TryAgainError

from stores.redis.node import Command, Node

log = structlog.get_logger(__name__)

SLOTS = 16_384
LOOK_WITHIN_S = 2.0
"""So long one server is asked who serves what, before another one is."""
MARKED_SLOTS = 256
"""So many slots, evenly spread, tell whether their servers still have what was written to them."""
_ELSEWHERE = (AskError, ClusterDownError, MasterDownError, TryAgainError)  # MovedError is an AskError
_UNKNOWN = "unknown"
_CREDENTIALS = {"username", "password"}
_HAS_CREDENTIALS = "has_credentials"

Address = tuple[str, int]


class CurrentCredentials(CredentialProvider):
    """The user and the password that the URL has when a connection is made: they may be replaced."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The password, with the user before it where there is one."""
        found = parse_url(self._url())
        user, password = found.get("username"), found.get("password", "")
        return (user, password) if user else (password,)


class Servers:
    """Routes commands. After an error it looks anew who serves what."""

    def __init__(self, url: Callable[[], str], **tls: str | None) -> None:
        self._url = url
        self._tls = {name: value for name, value in tls.items() if value}
        self._open(_place(url()), {})

    def _open(self, place: Mapping[str, Any], abandoned: Mapping[str, Redis]) -> None:
        self._place = place
        self._abandoned = abandoned
        options = dict(place)
        self._connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
        if options.pop(_HAS_CREDENTIALS):
            options["credential_provider"] = CurrentCredentials(self._url)
        if issubclass(self._connection_class, SSLConnection):
            options |= self._tls
        self._options = options
        self._nodes: dict[Address, Node] = {}
        self._node((options.get("host", "localhost"), options.get("port", 6379)))
        self._is_known = False
        self._primaries: list[Node] = []
        self._slots: list[Node] = []
        """By slot, who serves it; empty where there is no cluster."""

    async def renew(self) -> None:
        """Goes to where the URL leads by now. Other credentials alone are taken at the next connection."""
        place = _place(self._url())
        if place == self._place:
            return
        log.warning("redis_opened_anew", why="its URL leads elsewhere")
        # It may be the same server under another name: what is on its way there has to be ended there.
        left = list(self._nodes.values())
        self._open(place, {name: client for node in left for name, client in node.clients().items()})
        # Only now: a server that froze may take longer than there is time.
        for node in left:
            await node.close()

    async def close(self) -> None:
        """Ends all connections."""
        for node in self._nodes.values():
            await node.close()

    async def primaries(self) -> list[Node]:
        """All of them that serve keys."""
        if not self._is_known:
            await self._look()
        return self._primaries

    async def node_of(self, key: str) -> Node:
        """Who serves this key."""
        (first, *_) = await self.primaries()
        return self._slots[key_slot(key.encode())] if self._slots else first

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in their order, errors of single commands among them. The key is the first argument of each."""
        (first, *_) = await self.primaries()
        try:
            answers = await self._ask_all(commands) if self._slots else await first.ask(commands)
        except BaseException:
            self._is_known = False
            raise
        for answer in answers:
            if isinstance(answer, _ELSEWHERE):
                self._is_known = False
                raise answer
        return answers

    async def settle(self) -> None:
        """Nothing can arrive any more of what was sent before and not acknowledged."""
        self._is_known = False
        for node in await self.primaries():
            await node.settle()

    async def marked_keys(self, key: str, prefix: str) -> list[str]:
        """Where to leave a mark, so that a server which loses its data loses one: this key, and some in a cluster."""
        await self.primaries()
        return [key, *(f"{prefix}{{{tag}}}" for tag in _spread_tags())] if self._slots else [key]

    async def identity(self) -> str:
        """Another one after each start, failover or replacement of a server, which may have lost its last writes."""
        ids = []
        for node in await self.primaries():
            (answer,) = await node.ask([("INFO", "server")])
            ids.append(_run_id(answer))
        return sha256(" ".join(sorted(ids)).encode()).hexdigest()[:16]

    async def _look(self) -> None:
        """Asks whoever answers first, the server of the URL before the others."""
        await self.renew()
        error: BaseException | None = None
        for address, node in list(self._nodes.items()):
            try:
                async with asyncio.timeout(LOOK_WITHIN_S if len(self._nodes) > 1 else None):
                    (answer,) = await node.ask([("CLUSTER", "SLOTS")])
            except (RedisError, OSError) as exc:
                error = error or exc
                continue
            if isinstance(answer, ResponseError):  # no cluster; or we may not ask, and it will tell if it is one
                self._slots, self._primaries = [], [node]
            else:
                self._learn(answer, address)
            self._is_known = True
            return
        raise error or ClusterDownError("no server answered")

    def _learn(self, ranges: Sequence[Any], asked: Address) -> None:
        slots: list[Node | None] = [None] * SLOTS
        primaries: dict[Address, Node] = {}
        for first, last, (host, port, *_), *_replicas in ranges:
            address = (host or b"").decode() or asked[0], int(port)
            node = primaries[address] = self._node(address)
            slots[first : last + 1] = [node] * (last + 1 - first)
        known = [node for node in slots if node is not None]
        if len(known) < SLOTS:
            raise ClusterDownError("CLUSTERDOWN not all slots are served")
        self._slots, self._primaries = known, list(primaries.values())

    def _node(self, address: Address) -> Node:
        host, port = address
        if address not in self._nodes:
            options = self._options | {"host": host, "port": port}
            self._nodes[address] = Node(self._connection_class, options, abandoned=self._abandoned)
        return self._nodes[address]

    async def _ask_all(self, commands: Sequence[Command]) -> list[Any]:
        places: dict[Node, list[int]] = {}
        for place, (_, key, *_rest) in enumerate(commands):
            slot = key_slot(key.encode() if isinstance(key, str) else key)
            places.setdefault(self._slots[slot], []).append(place)
        answers: list[Any] = [None] * len(commands)
        asking = (node.ask([commands[at] for at in ats]) for node, ats in places.items())
        # All come to their end, so that none is on its way unknown to `settle`.
        parts = await asyncio.gather(*asking, return_exceptions=True)
        for ats, part in zip(places.values(), parts, strict=True):
            if isinstance(part, BaseException):
                raise part
            for at, answer in zip(ats, part, strict=True):
                answers[at] = answer
        return answers


def _place(url: str) -> dict[str, Any]:
    """Everything that the URL says, but for the credentials: whether there are any."""
    said = dict(parse_url(url))
    place = {name: value for name, value in said.items() if name not in _CREDENTIALS}
    return place | {_HAS_CREDENTIALS: len(place) < len(said)}


@cache
def _spread_tags() -> list[str]:
    """Hash tags whose slots are spread evenly, found by trying."""
    by_part: dict[int, str] = {}
    for number in range(SLOTS):
        by_part.setdefault(key_slot(str(number).encode()) * MARKED_SLOTS // SLOTS, str(number))
        if len(by_part) == MARKED_SLOTS:
            break
    return list(by_part.values())


def _run_id(info: object) -> str:
    if isinstance(info, bytes):
        for line in info.splitlines():
            if line.startswith(b"run_id:"):
                return line.partition(b":")[2].decode()
    return _UNKNOWN
