"""How often the interpreter looks for garbage that has cycles."""

from __future__ import annotations

import gc


def make_collections_rare() -> None:
    """For a process that has come up and makes many objects without cycles.

    A batch is tens of thousands of them: looking for cycles among them took a sixth of the CPU. What has some (tasks,
    errors) must go at times all the same: with rarer looks at the old, 2 MiB a minute gathered.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 5)
