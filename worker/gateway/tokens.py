"""Access tokens: how they look, how a request shows one, and which are in force.

A token is `cs_<id>_<secret>`. The id finds it, the secret has 256 random bits, and only a hash of the whole is kept.
What is wrong with a credential is told nobody and costs always the same: missing, malformed, unknown and revoked ones
go the way of a token that is no one's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import structlog

from consumers.feeds import Feed
from stores.errors import StoreUnavailableError
from stores.postgres.tokens import TokenInForce
from worker.gateway.policies import Policy, PolicyError, parse_policy
from worker.health import Health

log = structlog.get_logger(__name__)

PREFIX = "cs_"
REFRESH_S = 1.0
FRESH_S = 5.0
"""So long after the store was asked, a token that it did not have is none. Later it may be a new one."""
TRUSTED_S = 60.0
"""So long tokens are still believed when the store can't be asked which of them are in force."""
NOTE_USE_EVERY_S = 60.0
LONGEST_CREDENTIAL = 1_024
_ID_BYTES, _SECRET_BYTES = 10, 32
_DENIES_ALL = '[{"effect": "deny", "resources": ["proj/*"], "actions": ["*"]}]'


class NewToken(NamedTuple):
    """A token that was just made; its text is nowhere else."""

    id: str
    text: str
    sha256: bytes


def new_token() -> NewToken:
    """A random token."""
    token_id = _base32(secrets.token_bytes(_ID_BYTES))
    text = f"{PREFIX}{token_id}_{_base32(secrets.token_bytes(_SECRET_BYTES))}"
    return NewToken(token_id, text, hashlib.sha256(text.encode()).digest())


class Token(NamedTuple):
    """A token that was shown and is in force."""

    id: str
    policy: Policy
    feed: str | None

    def may_use(self, feed: Feed) -> bool:
        """Whether it is for this feed, as it is where it is tied to none."""
        return self.feed is None or self.feed == feed.name


class _Known(NamedTuple):
    sha256: bytes
    token: Token


class TokenSource(Protocol):
    """Where tokens are kept. Every method raises one of `stores.errors` and nothing else."""

    async def fingerprint(self) -> str:
        """Something that differs whenever a token was made or revoked."""

    async def in_force(self) -> list[TokenInForce]:
        """Every token that is not revoked."""

    async def note_use(self, last_used: Mapping[str, datetime]) -> None:
        """When these tokens were last used, by id."""


class KnownTokens:
    """The tokens in force, as they were a second ago, and when each was last used."""

    def __init__(self, store: TokenSource, health: Health, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._health = health
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._fingerprint: str | None = None
        self._asked_at = -float("inf")
        self._used: dict[str, datetime] = {}
        self._nobody = _Known(bytes(32), Token("", parse_policy(_DENIES_ALL), None))

    def are_current(self) -> bool:
        """Whether it may be told at all who is let in."""
        return self._clock() - self._asked_at < TRUSTED_S

    def are_all(self) -> bool:
        """Whether it may be told who is not let in: there is no newer token that we don't know of."""
        return self._clock() - self._asked_at < FRESH_S

    def find(self, credential: str | None) -> Token | None:
        """The token that this credential is, or None."""
        # A comparison is made in any case, so that time tells nothing.
        text = credential or ""
        token_id = text.removeprefix(PREFIX).partition("_")[0]
        known = self._known.get(token_id, self._nobody)
        shown = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        is_it = hmac.compare_digest(shown, known.sha256)
        if not is_it or known is self._nobody:
            return None
        self._used[token_id] = datetime.now(UTC)
        return known.token

    async def refresh(self) -> None:
        """Asks the store which are in force. Raises one of `stores.errors`."""
        asked_at = self._clock()
        fingerprint = await self._store.fingerprint()
        if fingerprint != self._fingerprint:
            self._known = dict(_known(await self._store.in_force()))
            self._fingerprint = fingerprint
            log.info("tokens_read", tokens=len(self._known))
        self._asked_at = asked_at

    async def keep(self) -> None:
        """Refreshes for ever, and writes down what was used."""
        noted_at = self._clock()
        while True:
            try:
                await self.refresh()
                if self._used and self._clock() - noted_at >= NOTE_USE_EVERY_S:
                    noted_at = self._clock()
                    await self.note_use()
                self._health.check_passed("postgres")
            except StoreUnavailableError as exc:
                # Until then everybody who is known is let in, and other replicas would not know better.
                if not self.are_current():
                    self._health.check_failed("postgres", exc.cause)
            await asyncio.sleep(REFRESH_S)

    async def note_use(self) -> None:
        """Writes down when each token was last used since this was called last."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.note_use(used)
        except StoreUnavailableError:
            self._used = used | self._used
            raise


def credential_in(authorization: str | None) -> str | None:
    """The token that such a header shows: bare, as Bearer, or by Basic as the user or else as the password."""
    if authorization is None or len(authorization) > LONGEST_CREDENTIAL:
        return None
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.casefold() == "bearer":
        return rest.strip()
    if scheme.casefold() != "basic":
        return authorization.strip()
    try:
        user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if user.startswith(PREFIX) else password


def _known(tokens: Iterable[TokenInForce]) -> Iterable[tuple[str, _Known]]:
    for each in tokens:
        try:
            policy = parse_policy(each.policy)
        except PolicyError:  # written by a newer version, or by hand: such a token may do nothing
            log.warning("token_policy_not_understood", token_id=each.id)
            continue
        yield each.id, _Known(each.sha256, Token(each.id, policy, each.feed))


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
