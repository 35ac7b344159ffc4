"""The worker as it is, but on a signal its event loop stands still: as if some code had forgotten to await.

A signal's handler runs in the main thread, between two steps of the loop, and nothing else does until it returns.
"""

from __future__ import annotations

import signal
import time

from worker.__main__ import main

BLOCK = signal.SIGUSR1
BLOCKED_S = 15.0


def _block(_signum: int, _frame: object) -> None:
    time.sleep(BLOCKED_S)


if __name__ == "__main__":
    signal.signal(BLOCK, _block)
    main()
