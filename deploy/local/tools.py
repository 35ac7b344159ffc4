"""The tools that `make deploy-check` works with, built by the Go toolchain: each once on a machine, pinned.

Prebuilt binaries can't be had from everywhere; Go modules can, and Go checks each by hash against its checksum
database or `control_plane/go.sum`. `python -m deploy.local.tools` builds what is missing: some 20 minutes on two cores
the first time. `python -m deploy.local.tools promtool helm` only these.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deploy.local.openapi_schemas import crd_schemas, kubernetes_schemas

HERE = Path(__file__).parent
CONTROL_PLANE = HERE / "control_plane"
TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cohort-sync" / "tools"
"""Checkouts of the same version share them."""
BUILD_S = 3_000
POLICY_LOCK = HERE / "policy-tools.lock"
POLICY_TOOLS = ("checkov", "hadolint")
"""Linters that come as wheels."""
DEBIAN_TOOLS = ("debootstrap", "buildah", "bwrap")
"""What builds and runs the image, as root."""
DEBIAN_PACKAGES = ("debootstrap", "buildah", "bubblewrap")
KUBERNETES = "1.37.2"
NICENESS = 10
"""A build must not slow down what somebody waits for."""


class ToolNotBuiltError(Exception):
    """The text says which tool is missing and why."""


class Tool(NamedTuple):
    """A program as `go install` knows it; without a package it is one of `control_plane`."""

    name: str
    package: str | None = None
    flags: Sequence[str] = ()

    def recipe(self) -> str:
        """All that the program comes from: it is built anew when this changes."""
        if self.package:
            return " ".join((*self.flags, self.package))
        sources = [CONTROL_PLANE / "go.mod", CONTROL_PLANE / "go.sum", CONTROL_PLANE / self.name / "main.go"]
        return " ".join((*self.flags, *(hashlib.sha256(source.read_bytes()).hexdigest() for source in sources)))

    def command(self, folder: Path) -> list[str]:
        """Puts the program into the folder. To be run in `control_plane`."""
        if self.package:
            return ["go", "install", *self.flags, self.package]
        return ["go", "build", *self.flags, "-o", str(folder / self.name), f"./{self.name}"]


_NAME = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_KUBERNETES = (
    "-ldflags",
    f"-s -w -X {_NAME}.gitVersion=v{KUBERNETES} -X {_NAME}.gitMajor={_MAJOR} -X {_NAME}.gitMinor={_MINOR}",
)
# Without the service discovery of twenty clouds, which nothing here asks and one of which can't be had.
_PROMETHEUS = ("-tags", "remove_all_sd")

CATALOGUE = (
    Tool("promtool", "github.com/prometheus/prometheus/cmd/promtool@v0.316.0", _PROMETHEUS),
    Tool("prometheus", "github.com/prometheus/prometheus/cmd/prometheus@v0.316.0", _PROMETHEUS),
    Tool("helm", "helm.sh/helm/v4/cmd/helm@v4.3.1"),
    Tool("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"),
    Tool("kubectl", flags=_KUBERNETES),
    Tool("etcd", flags=("-ldflags", "-s -w")),
    Tool("kube-apiserver", flags=_KUBERNETES),
    Tool("kube-controller-manager", flags=_KUBERNETES),
    Tool("kube-scheduler", flags=_KUBERNETES),
    Tool("kwok", "sigs.k8s.io/kwok/cmd/kwok@v0.7.0"),
    Tool("compose-spec", "github.com/compose-spec/compose-go/v2/cmd@v2.9.0"),
)
BY_NAME = {tool.name: tool for tool in CATALOGUE}

SCHEMAS = TOOLS / "schemas"
"""For kubeconform: `KIND-GROUP-VERSION.json`, strict."""
CRDS = TOOLS / "crds"
"""The definitions of what the chart can make beyond Kubernetes' own kinds."""
CRD_FILES = {
    "github.com/kedacore/keda/v2@v2.19.0": (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.89.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "sigs.k8s.io/gateway-api@v1.6.3": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
}
_SCHEMAS_RECIPE = json.dumps([KUBERNETES, CRD_FILES])


def tool(name: str) -> Path:
    """The program, built now if it is not there or from something else."""
    wanted = BY_NAME[name]
    if not is_made(TOOLS / name, wanted.recipe()):
        _build(wanted)
        stamp_of(name).write_text(wanted.recipe())
    return TOOLS / name


def policy_tool(name: str) -> Path:
    """A linter of `policy-tools.lock`, installed apart from our own packages, whose versions it would bend."""
    folder = TOOLS / "policy"
    if not is_made(folder, POLICY_LOCK.read_text()):
        print("Installing checkov and hadolint", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        install = ["bin/python", "-m", "pip", "install", "--quiet", "--require-hashes", f"--requirement={POLICY_LOCK}"]
        done = subprocess.run(
            ["nice", f"-n{NICENESS}", *install],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if done.returncode:
            raise ToolNotBuiltError(f"{name} could not be installed:\n{done.stderr[-3000:]}")
        stamp_of(folder.name).write_text(POLICY_LOCK.read_text())
    return folder / "bin" / name


def debian_tool(name: str) -> Path:
    """A program that only Debian's packages bring, so whoever owns the machine has to install it."""
    if found := shutil.which(name):
        return Path(found)
    message = f"{name} is missing, without which no image is built: apt-get install {' '.join(DEBIAN_PACKAGES)}"
    raise ToolNotBuiltError(message)


def schemas() -> Path:
    """The folder with a schema of every kind that the chart may use, and `CRDS` beside it."""
    if not is_made(SCHEMAS, _SCHEMAS_RECIPE):
        _make_schemas()
        stamp_of(SCHEMAS.name).write_text(_SCHEMAS_RECIPE)
    return SCHEMAS


def missing() -> list[str]:
    """What `make deploy-check` would have to build first."""
    made = {
        **{TOOLS / name: each.recipe() for name, each in BY_NAME.items()},
        TOOLS / "policy": POLICY_LOCK.read_text(),
        SCHEMAS: _SCHEMAS_RECIPE,
    }
    return [path.name for path, recipe in made.items() if not is_made(path, recipe)]


def is_made(path: Path, recipe: str) -> bool:
    """Whether this is there, and from this recipe."""
    stamp = stamp_of(path.name)
    return path.exists() and stamp.exists() and stamp.read_text() == recipe


def stamp_of(name: str) -> Path:
    """The file beside a tool that has its recipe."""
    return TOOLS / f"{name}.recipe"


def _build(wanted: Tool) -> None:
    print(f"Building {wanted.name} with Go; this happens once and can take minutes", file=sys.stderr)
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        _go(wanted.name, wanted.command(Path(folder)), {"GOBIN": folder})
        (built,) = Path(folder).iterdir()  # called after the package's folder, which need not be the tool's name
        built.replace(TOOLS / wanted.name)


def _make_schemas() -> None:
    for folder in (SCHEMAS, CRDS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    swagger = json.loads((_module(f"k8s.io/kubernetes@v{KUBERNETES}") / "api/openapi-spec/swagger.json").read_bytes())
    found: dict[str, dict[str, Any]] = dict(kubernetes_schemas(swagger))
    for module, files in CRD_FILES.items():
        for file in files:
            text = (_module(module) / file).read_text()
            (CRDS / Path(file).name).write_text(text)
            found.update(crd_schemas(text))
    for name, schema in found.items():
        (SCHEMAS / f"{name}.json").write_text(json.dumps(schema))


def _module(module: str) -> Path:
    """The folder where Go keeps this module, fetched now if need be."""
    described = json.loads(_go(module, ["go", "mod", "download", "-json", module], {}))
    return Path(described["Dir"])


def _go(what: str, command: Sequence[str], environment: dict[str, str]) -> str:
    if shutil.which("go") is None:
        raise ToolNotBuiltError(
            f"{what} is not built and can't be: there is no Go toolchain on the PATH (Go 1.26 or newer)"
        )
    done = subprocess.run(
        ["nice", f"-n{NICENESS}", *command],
        cwd=CONTROL_PLANE,
        env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode:
        message = f"{what} could not be built: {' '.join(command)} said\n{done.stderr[-3000:]}"
        raise ToolNotBuiltError(message)
    return done.stdout


def _make(name: str) -> None:
    if name == "schemas":
        schemas()
    elif name in DEBIAN_TOOLS:
        debian_tool(name)
    elif name in POLICY_TOOLS:
        policy_tool(name)
    else:
        tool(name)


def main() -> None:
    """Builds what is missing and says all at once what could not be built. With `--missing` it only says what is."""
    if sys.argv[1:] == ["--missing"]:
        print(" ".join(missing()))
        return
    failures = []
    of_debian = DEBIAN_TOOLS if os.geteuid() == 0 else ()
    for name in sys.argv[1:] or [*of_debian, *BY_NAME, *POLICY_TOOLS, "schemas"]:
        try:
            _make(name)
        except (ToolNotBuiltError, subprocess.TimeoutExpired) as exc:
            failures.append(str(exc))
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
