#!/bin/sh
# Installs the project into .venv of the checkout: what the lock names, checked by hash, and the project itself in place.
# $1: the Python to make .venv with, the first time.
set -eu

stamp=.venv/installed-in # holds the path of the checkout; make compares its time with the lock's

# A virtual environment knows its own path: in a checkout that was moved or copied it would run the code of the old one.
if [ "$(cat "$stamp" 2>/dev/null)" != "$PWD" ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    "$1" -m venv --clear .venv
fi
rm -f "$stamp"
echo "Installing into .venv" >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements-dev.lock
PYTHONWARNINGS=ignore \
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
pwd >"$stamp"
