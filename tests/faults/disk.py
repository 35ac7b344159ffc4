"""A small disk in memory, which can be full."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Self

MIB = 1 << 20
SIZE_BYTES = 4 << 30
"""At most: memory is used for what is written only."""
ATTEMPTS = 50


class Disk:
    """A folder that is a file system of its own where that is wanted and allowed (to root, as a rule)."""

    def __init__(self, folder: Path, *, may_be_full: bool) -> None:
        self.folder = folder
        self.can_be_full = may_be_full and os.geteuid() == 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.can_be_full = self.can_be_full and self._mount(f"size={SIZE_BYTES},mode=0777")
        return self

    def __exit__(self, *exc: object) -> None:
        if self.can_be_full:
            subprocess.run(["umount", "--lazy", self.folder], check=False)

    def fill(self) -> None:
        """From now on, nothing more can be written."""
        for _ in range(ATTEMPTS):  # somebody may be writing just now
            room = os.statvfs(self.folder)
            if self._mount(f"remount,size={(room.f_blocks - room.f_bfree) * room.f_frsize}"):
                return
            time.sleep(0.01)
        message = f"{self.folder}: it could not be made full"
        raise OSError(message)

    def free(self) -> None:
        """There is room again."""
        self._mount(f"remount,size={SIZE_BYTES}")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "cohort-sync-faults", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
