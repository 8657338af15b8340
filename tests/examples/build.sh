#!/usr/bin/env bash
# Builds the example agents: installs what the lock files name and makes the typed clients from the schema.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/tools.sh conformance

# Installs again only when a lock file has changed since; the clients are made each time, because the schema may have changed.
python=examples/agents/python
if ! cmp -s "$python/requirements.txt" "$python/.venv/installed"; then
    python3 -m venv --clear "$python/.venv"
    "$python/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$python/requirements.txt"
    cp "$python/requirements.txt" "$python/.venv/installed"
fi
(cd "$python" && .venv/bin/ariadne-codegen >/dev/null)

typescript=examples/agents/typescript
if ! cmp -s "$typescript/package-lock.json" "$typescript/node_modules/.installed"; then
    npm --prefix "$typescript" ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$typescript/package-lock.json" "$typescript/node_modules/.installed"
fi
npm --prefix "$typescript" run --silent build

CARGO_TARGET_DIR=$PWD/target cargo build --quiet --locked --manifest-path examples/agents/rust/Cargo.toml
