"""How we speak to one table of DynamoDB, and what its answers mean.

botocore is imported when a table is first used, since commands without DynamoDB need none of it. It repeats nothing by
itself: what a table has no capacity for is asked again here, at the pace that it bears, all else by the projector.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any, Self

from stores.dynamodb.pace import Pace
from stores.errors import StoreError, StoreRefusedError, StoreUnavailableError

CONNECTIONS = 16
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
SETTLED_AFTER_S = 5.0
"""DynamoDB carries a request out within milliseconds, or not at all; so much later nothing of it is on its way."""
MADE_WITHIN_S = 300.0
ASKED_EVERY_S = 0.5
PARTITION_KEY, SORT_KEY = "namespace", "key"

_KEYS = {PARTITION_KEY: "HASH", SORT_KEY: "RANGE"}
_THROTTLES = frozenset(
    (
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TransactionConflictException",
    )
)
_PASSING_REASONS = frozenset(("None", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"))
"""For which a transaction was not carried out, and may be a little later."""
_SERVERS_FAULT = 500
_CONDITIONS = frozenset(("ConditionalCheckFailedException", "ResourceInUseException"))
_TOO_LARGE = "exceeded the maximum allowed size"
_WRONG_TYPE = "incorrect data type"
_WRONG_KEYS = "key"


class ItemTooLargeError(Exception):
    """The item would be larger than the 400 KB that one may have. It is as it was."""


class WrongTypeError(Exception):
    """The attribute is there, and is no set of strings."""


class ConditionError(Exception):
    """What had to be so is not, and nothing was done."""


_Meaning = StoreError | ItemTooLargeError | WrongTypeError | ConditionError


class Table:
    """One table, over a few connections. Credentials are those that AWS's own tools would find.

    Every call raises `StoreUnavailableError` where it can't be done now, and `StoreRefusedError` where a person has to
    act: there is no such table, it has other keys, or who we are or where it is can't be told.
    """

    def __init__(self, name: str, *, region: str | None, endpoint_url: str | None) -> None:
        self.name = name
        self.pace = Pace()
        self._region = region
        self._endpoint_url = endpoint_url
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._abandoned_at: float | None = None
        """When a request was last given up of which nobody knows whether it was, or will be, carried out."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        self._client = None

    async def call(self, operation: str, **request: Any) -> Mapping[str, Any]:
        """The answer to a request about this table.

        Raises `ItemTooLargeError`, `WrongTypeError` and `ConditionError`, too.
        """
        return await self.call_service(operation, TableName=self.name, **request)

    async def call_service(self, operation: str, **request: Any) -> Mapping[str, Any]:
        """The same for a request that names tables inside."""
        while True:
            wait_s = await self.pace.turn()
            with self._errors():
                await self._connect()
                response = await self._sent(operation, request)
            if "Error" not in response:
                self.pace.succeeded(wait_s)
                return response
            if not _is_throttled(response):
                self.pace.succeeded(wait_s)
                raise self._meaning(response)
            self.pace.throttled(_code(response), wait_s)

    async def settle(self) -> None:
        """Returns when nothing of what was given up can still be carried out."""
        if self._abandoned_at is not None:
            await asyncio.sleep(max(0.0, self._abandoned_at + SETTLED_AFTER_S - time.monotonic()))
            self._abandoned_at = None

    async def create(self) -> None:
        """Makes the table, billed by request, unless it is there. Returns when it can be used."""
        with suppress(ConditionError):  # it is there, or somebody else makes it just now
            await self.call(
                "create_table",
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in _KEYS.items()],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in _KEYS],
            )
        deadline = time.monotonic() + MADE_WITHIN_S
        while (description := await self._description()) is None or description["TableStatus"] == "CREATING":
            if time.monotonic() > deadline:
                raise StoreUnavailableError("DynamoDB", f"the table {self.name} is still being made")
            await asyncio.sleep(ASKED_EVERY_S)
        types = {each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]}
        keys = {each["AttributeName"]: each["KeyType"] for each in description["KeySchema"]}
        if keys != _KEYS or {types[name] for name in keys} != {"S"}:
            raise self._wrong_keys()

    async def _description(self) -> Mapping[str, Any] | None:
        """The table as it is. One that was made just now may not be found yet."""
        try:
            described: Mapping[str, Any] = (await self.call("describe_table"))["Table"]
        except StoreRefusedError:
            return None
        return described

    async def _sent(self, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """What DynamoDB answers, be it an error."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        try:
            answer: Mapping[str, Any] = await getattr(self._client, operation)(**request)
        except ClientError as exc:
            error: Mapping[str, Any] = exc.response
            return error
        except BaseException as exc:
            if not _was_never_sent(exc):
                self._abandoned_at = time.monotonic()
            raise
        return answer

    async def _connect(self) -> None:
        if self._client is not None:
            return
        from aiobotocore.config import AioConfig  # noqa: PLC0415
        from aiobotocore.session import get_session  # noqa: PLC0415

        config = AioConfig(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=ANSWER_TIMEOUT_S,
            max_pool_connections=CONNECTIONS,
            parameter_validation=False,  # the requests are all in this package
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        async with self._connecting:
            if self._client is None:
                client = get_session().create_client(
                    "dynamodb", region_name=self._region, endpoint_url=self._endpoint_url, config=config
                )
                self._client = await self._stack.enter_async_context(client)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What keeps an answer from coming. The client's texts may quote a URL."""
        from aiohttp import ClientError as ConnectionFailed  # noqa: PLC0415
        from botocore import exceptions  # noqa: PLC0415

        try:
            yield
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound):
            raise StoreRefusedError(
                f"the DynamoDB table {self.name} can't be reached without AWS credentials: give the process a role, "
                "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except (exceptions.NoRegionError, exceptions.InvalidRegionError):
            raise StoreRefusedError(
                f"nothing says in which AWS region the DynamoDB table {self.name} is: set the projection's region, "
                "or AWS_DEFAULT_REGION"
            ) from None
        except (exceptions.BotoCoreError, ConnectionFailed, OSError) as exc:
            raise StoreUnavailableError("DynamoDB", type(exc).__name__) from None
        except ValueError:
            raise StoreRefusedError(
                f"the endpoint_url of the DynamoDB table {self.name} should be a URL, as in http://127.0.0.1:8000"
            ) from None

    def _meaning(self, response: Mapping[str, Any]) -> _Meaning:
        """What an error of DynamoDB's means. Its texts may quote data, so none is passed on."""
        code, text = _code(response), str(response["Error"].get("Message", ""))
        if code in _CONDITIONS or "ConditionalCheckFailed" in _reasons(response):
            return ConditionError()
        if code == "ResourceNotFoundException":
            return StoreRefusedError(
                f"DynamoDB has no table {self.name}: run `cohort-sync project --create-table`, or create it with "
                "partition key `namespace` (S) and sort key `key` (S)"
            )
        if code == "ValidationException":
            # Only its text tells what it is about.
            meanings: dict[str, _Meaning] = {
                _TOO_LARGE: ItemTooLargeError(),
                _WRONG_TYPE: WrongTypeError(),
                _WRONG_KEYS: self._wrong_keys(),
            }
            return next(
                (meanings[words] for words in meanings if words in text), StoreUnavailableError("DynamoDB", code)
            )
        return StoreUnavailableError("DynamoDB", code)

    def _wrong_keys(self) -> StoreRefusedError:
        return StoreRefusedError(
            f"the DynamoDB table {self.name} has other keys than the SDKs look for: create one with partition key "
            "`namespace` (S) and sort key `key` (S)"
        )


def _code(response: Mapping[str, Any]) -> str:
    return str(response["Error"].get("Code", ""))


def _reasons(response: Mapping[str, Any]) -> set[str]:
    return {str(reason.get("Code")) for reason in response.get("CancellationReasons", ())}


def _is_throttled(response: Mapping[str, Any]) -> bool:
    if _code(response) == "TransactionCanceledException":
        return _reasons(response) <= _PASSING_REASONS
    return _code(response) in _THROTTLES or response["ResponseMetadata"]["HTTPStatusCode"] >= _SERVERS_FAULT


def _was_never_sent(exc: BaseException) -> bool:
    """Whether it failed before there was a connection. What failed on one may be carried out yet."""
    from aiohttp import ClientConnectorError  # noqa: PLC0415
    from botocore import exceptions  # noqa: PLC0415

    if isinstance(exc, exceptions.EndpointConnectionError):
        return isinstance(exc.kwargs.get("error"), ClientConnectorError)
    return isinstance(exc, (exceptions.ConnectTimeoutError, exceptions.NoCredentialsError))
