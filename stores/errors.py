"""The ways a store fails, told apart by type: later, never, stop.

StoreError
├── StoreUnavailableError   later: the same call may succeed once the store is back
├── BatchRejectedError      never: the server refuses the data itself; split the batch to find the delta
└── StoreRefusedError       stop: a person has to act (schema missing, wrong password, wrong kind of server)
"""

from __future__ import annotations


class StoreError(Exception):
    """Anything that a store raises on purpose. Texts carry no data of a row."""


class StoreUnavailableError(StoreError):
    """The store can't do it now: down, failing over, read-only, out of space, busy. Nothing was changed."""

    def __init__(self, store: str, cause: str) -> None:
        super().__init__(f"{store} is not available: {cause}")
        self.store = store
        self.cause = cause


class BatchRejectedError(StoreError):
    """The server refuses the data of this batch and will refuse it again. Nothing of it was changed."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"the store rejected the data with SQLSTATE {sqlstate}")
        self.sqlstate = sqlstate


class StoreRefusedError(StoreError):
    """The store can't be used as it is, and waiting won't help. The text says what to do."""
