"""The schema of our tables is ours alone: whoever else may create there could have us run what is not ours.

PostgreSQL takes a function or an operator from any schema of the session's path where it fits the arguments better than
its own do. Whoever migrates owns the tables, so before that anything is run the path is pinned to one schema, creating
there is taken from everybody, and what others have put there already is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stores.errors import StoreRefusedError
from stores.postgres.queries import query

if TYPE_CHECKING:
    from asyncpg import Connection

REVOKE = "create_on_schema_revoked_from_public"
"""Told among the migrations where everybody could create in our schema."""


async def make_ours(session: Connection) -> list[str]:
    """Pins the path, and closes the schema; returns what was changed. Raises `StoreRefusedError` where it may not."""
    await session.execute(query("pin_to_first_schema"))
    done = []
    for opening in await session.fetch(query("list_openings")):
        if opening["may_revoke"]:
            await session.execute(opening["statement"])
            done.append(REVOKE)
    for opening in await session.fetch(query("list_openings")):
        message = (
            "everybody may create functions in the schema of our tables, and have us run them. Close it as its owner, "
            f"{opening['owner']}: {opening['statement']}"
        )
        raise StoreRefusedError(message)
    await refuse_planted(session)
    return done


async def is_open(session: Connection) -> bool:
    """Whether everybody may create in our schema. Changes nothing."""
    return bool(await session.fetch(query("list_openings")))


async def refuse_planted(session: Connection) -> None:
    """Raises `StoreRefusedError` where somebody else has put into our schema what we would run."""
    planted = await session.fetch(query("list_planted"))
    if planted:
        names = ", ".join(f"{each['what']} of {each['owner']}" for each in planted)
        message = (
            f"in the schema of our tables is what would be run in place of PostgreSQL's own: {names}. Find out how it "
            "came there, then drop it, or give it to the owner of the schema"
        )
        raise StoreRefusedError(message)


async def refuse_excess(session: Connection, role: str) -> None:
    """Raises `StoreRefusedError` where this role may make what a role that may do more would run."""
    excesses = [privilege for (privilege,) in await session.fetch(query("list_excesses"), role)]
    if excesses:
        what = " and ".join(excesses)
        message = (
            f"the role {role} has {what}: it could have us run functions of its own. Revoke that, also from the roles "
            "that it is a member of"
        )
        raise StoreRefusedError(message)
