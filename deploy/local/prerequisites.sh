#!/bin/sh
# Names whatever `make` needs and this machine lacks, all at once, with how to install it. Exit 2 if something is missing.
# Plain sh, because Python may be what is missing. $1: the Python that make found, empty if it found none.
set -u

missing=""

lacks() { # what is wrong, then how to mend it on Debian or Ubuntu, on Fedora, on macOS
    missing="${missing}
  $1
      Debian, Ubuntu   $2
      Fedora           $3
      macOS            $4
"
}

python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

java_version() { # the number before the first dot: 17 for 17.0.15
    java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1
}

python="${1:-}"
if [ -z "$python" ]; then
    found=$(python_version python3)
    lacks "Python 3.11 or newer: ${found:+python3 is $found, and }no python3.11, python3.12 or later is on the PATH" \
        "sudo apt install python3 python3-venv" "sudo dnf install python3" "brew install python"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$(python_version "$python")
    lacks "Python 3.11 or newer: PYTHON=$python is ${found:-no Python}" \
        "sudo apt install python3 python3-venv" "sudo dnf install python3" "brew install python"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lacks "Python's venv module: $python cannot make virtual environments" \
        "sudo apt install python3-venv" "sudo dnf install python3" "brew install python"
fi

found=$(java_version)
if [ "${found:-0}" -lt 17 ]; then
    lacks "Java 17 or newer, for Apache Kafka: ${found:+java is version }${found:-no working java is on the PATH}" \
        "sudo apt install openjdk-17-jre-headless" "sudo dnf install java-21-openjdk-headless" "brew install openjdk@21"
fi

if ! command -v mvn >/dev/null 2>&1; then
    lacks "Maven, which fetches Apache Kafka: no mvn is on the PATH" \
        "sudo apt install maven" "sudo dnf install maven" "brew install maven"
fi

if [ -n "$missing" ]; then
    printf 'cohort-sync cannot be installed yet. This machine lacks:\n%s\nThen run make again.\n' "$missing" >&2
    exit 2
fi
