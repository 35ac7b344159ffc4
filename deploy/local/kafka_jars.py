"""Apache Kafka's jars in `.local/kafka/lib`: fetched by Maven once, and checked against `kafka-jars.sha256` always.

After a change in `pom.xml` run `python -m deploy.local.kafka_jars --write-sums`, and read what changed in the sums.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SUMS = HERE / "kafka-jars.sha256"
JARS = HERE.parent.parent / ".local" / "kafka" / "lib"
VERIFIED = JARS / "verified"
FETCH_S = 600


class KafkaNotFetchedError(Exception):
    """The jars could not be had, or are not those that `kafka-jars.sha256` names."""


def kafka_jars() -> Path:
    """The folder with Kafka's jars, fetched now if they are not there yet."""
    if not VERIFIED.exists() or VERIFIED.read_text() != SUMS.read_text():
        fetch()
    if sums(JARS) != SUMS.read_text():
        message = f"the jars in {JARS} are not those of {SUMS.name}: remove the folder and run `make install` again"
        raise KafkaNotFetchedError(message)
    return JARS


def fetch() -> None:
    """Puts the jars in place all at once, so that nobody starts a Kafka that is half there."""
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=JARS.parent) as folder:
        fresh = Path(folder) / "lib"
        copy_dependencies(fresh)
        if sums(fresh) != SUMS.read_text():
            message = f"Maven gave other jars than {SUMS.name} names:\n{difference(sums(fresh), SUMS.read_text())}"
            raise KafkaNotFetchedError(message)
        (fresh / VERIFIED.name).write_text(SUMS.read_text())
        shutil.rmtree(JARS, ignore_errors=True)
        fresh.rename(JARS)


def copy_dependencies(folder: Path) -> None:
    """Has Maven put every jar that `pom.xml` names or implies into the folder."""
    print("Fetching Apache Kafka with Maven", file=sys.stderr)
    maven = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", f"--file={HERE / 'pom.xml'}"]
    done = subprocess.run(
        [*maven, *maven_repository(), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FETCH_S,
        check=False,
    )
    if done.returncode:
        message = f"Maven could not fetch Apache Kafka:\n{done.stdout}{done.stderr}"
        raise KafkaNotFetchedError(message)


def maven_repository() -> list[str]:
    """A place for what Maven keeps, if the account has no home, as in some containers. Java does not look at $HOME."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ""
    return [] if os.access(home, os.W_OK) else [f"-Dmaven.repo.local={JARS.parent / 'maven'}"]


def sums(folder: Path) -> str:
    """What `sha256sum *.jar` prints there."""
    return "".join(
        f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in sorted(folder.glob("*.jar"))
    )


def difference(found: str, wanted: str) -> str:
    """The lines that only one of them has."""
    only_found = [f"found   {line}" for line in found.splitlines() if line not in wanted]
    only_wanted = [f"wanted  {line}" for line in wanted.splitlines() if line not in found]
    return "\n".join(only_found + only_wanted)


def main() -> None:
    """Fetches and checks the jars; with `--write-sums` takes what Maven gives as the new truth."""
    if sys.argv[1:] == ["--write-sums"]:
        with tempfile.TemporaryDirectory() as folder:
            copy_dependencies(Path(folder))
            SUMS.write_text(sums(Path(folder)))
    try:
        kafka_jars()
        VERIFIED.touch()  # make compares its time with that of pom.xml
    except (KafkaNotFetchedError, subprocess.TimeoutExpired) as exc:
        sys.exit(f"{exc}")


if __name__ == "__main__":
    main()
