"""Access tokens: how one is shown, found, believed and forgotten."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime

import pytest

from stores.errors import StoreUnavailableError
from stores.postgres.tokens import TokenInForce
from worker.gateway.policies import ROLES
from worker.gateway.tokens import FRESH_S, TRUSTED_S, KnownTokens, NewToken, credential_in, new_token
from worker.health import Health


class Store:
    """A token store in memory."""

    def __init__(self, *tokens: NewToken) -> None:
        self.tokens = {each.id: each for each in tokens}
        self.used: dict[str, datetime] = {}
        self.read = 0
        self.is_away = False

    async def fingerprint(self) -> str:
        if self.is_away:
            raise StoreUnavailableError("PostgreSQL", "away")
        return " ".join(self.tokens)

    async def in_force(self) -> list[TokenInForce]:
        self.read += 1
        return [TokenInForce(each.id, each.sha256, ROLES["writer"], None) for each in self.tokens.values()]

    async def note_use(self, last_used: Mapping[str, datetime]) -> None:
        if self.is_away:
            raise StoreUnavailableError("PostgreSQL", "away")
        self.used.update(last_used)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_token_is_random_and_long_and_its_hash_is_of_all_of_it() -> None:
    made = [new_token() for _ in range(100)]

    assert len({each.text for each in made}) == len({each.id for each in made}) == 100
    assert all(each.text.startswith(f"cs_{each.id}_") and len(each.text.rsplit("_", 1)[1]) == 52 for each in made)
    assert all(len(each.sha256) == 32 for each in made)


@pytest.mark.parametrize("scheme", ["{}", "Bearer {}", "bearer  {}", " {} "])
def test_a_token_is_shown_bare_or_as_bearer(scheme: str) -> None:
    assert credential_in(scheme.format("cs_a_b")) == "cs_a_b"


def test_by_basic_it_is_the_user_or_else_the_password() -> None:
    assert credential_in(basic("cs_a_b")) == "cs_a_b"
    assert credential_in(basic("cs_a_b", "ignored")) == "cs_a_b"
    assert credential_in(basic("anyone", "cs_a_b")) == "cs_a_b"


@pytest.mark.parametrize("header", [None, "Basic", "Basic !", "Basic /w==", "Basic " + "A" * 5_000, "x" * 5_000])
def test_what_is_no_credential_is_none(header: str | None) -> None:
    assert not credential_in(header)


async def test_only_the_whole_token_is_found() -> None:
    token, other = new_token(), new_token()
    known = KnownTokens(Store(token), Health(()))
    await known.refresh()

    assert (found := known.find(token.text)) is not None
    assert found.id == token.id
    for wrong in (
        None,
        "",
        token.id,
        token.text[:-1],
        token.text + "a",
        other.text,
        f"cs_{token.id}_",
        "cs_",
        "\udcff",
    ):
        assert known.find(wrong) is None


async def test_a_revoked_token_is_gone_with_the_next_refresh_and_others_are_not_read_again() -> None:
    token, other = new_token(), new_token()
    store = Store(token, other)
    known = KnownTokens(store, Health(()))
    await known.refresh()
    await known.refresh()
    assert store.read == 1

    del store.tokens[token.id]
    await known.refresh()

    assert known.find(token.text) is None
    assert known.find(other.text) is not None


async def test_tokens_are_believed_for_a_while_when_the_store_is_away() -> None:
    clock, token = Clock(), new_token()
    store = Store(token)
    known = KnownTokens(store, Health(()), clock=clock)
    assert not known.are_current()
    await known.refresh()
    store.is_away = True

    clock.now += FRESH_S - 1
    assert known.are_all()
    clock.now = clock.now - FRESH_S + TRUSTED_S
    assert not known.are_all()
    assert known.are_current()
    clock.now += 2
    assert not known.are_current()


async def test_use_is_noted_once_and_kept_while_it_cannot_be_written() -> None:
    token, unused = new_token(), new_token()
    store = Store(token, unused)
    known = KnownTokens(store, Health(()))
    await known.refresh()
    known.find(token.text)
    known.find("cs_no_token")

    store.is_away = True
    with pytest.raises(StoreUnavailableError):
        await known.note_use()
    store.is_away = False
    await known.note_use()

    assert set(store.used) == {token.id}
    store.used.clear()
    await known.note_use()
    assert store.used == {}
