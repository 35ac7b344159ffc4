"""Builds the image from its Dockerfile without a Docker engine (buildah), and runs it (bubblewrap). Both need root.

The base is a Debian with Python, made from Debian's packages: image registries are not reached from everywhere.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from deploy.local import tools
from tests.deploy.programs import ROOT, ToolFailedError

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
CERTIFICATES = Path("/etc/ssl/certs")
LIMIT_S = 600
CONFIG_FOLDER = "etc/cohort-sync/config"


class Image:
    """The image of this checkout: its settings as an engine would read them, and its files in `root`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = (f"--root={folder / 'store'}", f"--runroot={folder / 'run'}", "--storage-driver=vfs")
        self.settings: dict[str, Any] = {}
        self.root = Path()

    def build(self, base_files: Path) -> Self:
        """Builds the base from these files, the image from that, and opens it."""
        base = self._folder / "Dockerfile"
        base.write_text(f"FROM scratch\nADD {base_files.name} /\n")
        self._build("base", base_files.parent, base)
        pip = self._folder / "pip.conf"
        pip.write_text(pip_settings())
        self._build(
            "cohort-sync",
            ROOT,
            DOCKERFILE,
            "--build-arg=BASE=localhost/base",
            "--build-arg=REVISION=abc",
            f"--ignorefile={DOCKERFILE}.dockerignore",
            f"--volume={pip}:/etc/pip.conf:ro",
            f"--volume={CERTIFICATES}:{CERTIFICATES}:ro",
        )
        self.settings = json.loads(self._buildah("inspect", "--type=image", "localhost/cohort-sync"))["Docker"][
            "config"
        ]
        container = self._buildah("from", "--pull-never", "localhost/cohort-sync").strip()
        self.root = Path(self._buildah("mount", container).strip())
        (self.root / CONFIG_FOLDER).mkdir(parents=True)  # what an engine does for a mount
        return self

    def command(self, *arguments: str, config: Path, environment: Mapping[str, str], network: bool = True) -> list[str]:
        """Runs the image as the chart does: as its own user, without rights, nothing to be written but /tmp.

        Without arguments it is what the image runs by itself. Only these of our own environment's variables are there.
        """
        user, _, group = self.settings["User"].partition(":")
        of_image = (each.partition("=") for each in self.settings["Env"])
        variables = {name: value for name, _, value in of_image} | dict(environment)
        return [
            str(tools.debian_tool("bwrap")),
            *("--ro-bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
            *("--ro-bind", str(config.parent), f"/{CONFIG_FOLDER}", "--chdir", self.settings["WorkingDir"]),
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--uid", user, "--gid", group, "--as-pid-1"),
            *([] if network else ["--unshare-net"]),
            *("--cap-drop", "ALL", "--die-with-parent", "--clearenv"),
            *(word for name, value in variables.items() for word in ("--setenv", name, value)),
            *(arguments or (*self.settings["Entrypoint"], *self.settings["Cmd"])),
        ]

    def _build(self, name: str, context: Path, dockerfile: Path, *options: str) -> None:
        # In the image format that keeps the health check.
        self._buildah(
            "build",
            "--isolation=chroot",
            "--format=docker",
            "--pull-never",
            f"--tag={name}",
            f"--file={dockerfile}",
            *options,
            str(context),
        )

    def _buildah(self, *arguments: str) -> str:
        return run([str(tools.debian_tool("buildah")), *self._store, *arguments])


def base_files() -> Path:
    """A minimal Debian with Python as a tar file, made once a machine: what stands in for python:3.11-slim."""
    packages = "python3,python3-venv,python-is-python3,ca-certificates"
    recipe = f"{release()} {packages}"
    made = tools.TOOLS / "base-image.tar"
    if not tools.is_made(made, recipe):
        folder = tools.TOOLS / "base-image"
        shutil.rmtree(folder, ignore_errors=True)
        options = ("--variant=minbase", f"--include={packages}")
        run([str(tools.debian_tool("debootstrap")), *options, release(), str(folder), mirror()])
        run(["tar", f"--directory={folder}", "--create", f"--file={made}", "."])
        shutil.rmtree(folder)
        tools.stamp_of(made.name).write_text(recipe)
    return made


def release() -> str:
    """This machine's own release of Debian, by its code name."""
    said = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return said["VERSION_CODENAME"]


def mirror() -> str:
    """From where this machine has its own packages."""
    said = run(["apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", f"Codename: {release()}"])
    return said.split()[0]


def pip_settings() -> str:
    """How pip is set up on this machine, but for folders of packages, which are not in the image."""
    said = run([sys.executable, "-m", "pip", "config", "list"])
    found = (line.split("=", 1) for line in said.splitlines())
    settings = {place.rpartition(".")[2]: ast.literal_eval(value) for place, value in found}
    of_this_machine = {"find-links", "require-virtualenv"}
    return "[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items() if k not in of_this_machine)


def run(command: Sequence[str]) -> str:
    """What it prints. Raises `ToolFailedError`."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout[-3000:]}{done.stderr[-5000:]}"
        raise ToolFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout
