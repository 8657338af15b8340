#!/usr/bin/env bash
# Public audits and unmodified clients against a running server. Installs what the lock files name, builds the server and runs
# the checks; words after the command choose among them.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/tools.sh conformance
here=tests/conformance

# Installs again only when a lock file has changed since.
if ! cmp -s "$here/package-lock.json" "$here/node_modules/.installed"; then
    npm --prefix "$here" ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$here/package-lock.json" "$here/node_modules/.installed"
fi
if ! cmp -s "$here/requirements.txt" "$here/.venv/installed"; then
    python3 -m venv --clear "$here/.venv"
    "$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$here/.venv/installed"
fi

cargo build --quiet
exec node "$here/run.mjs" "$@"
