#!/usr/bin/env bash
# Each example agent against a real server that is killed in the middle: they win, work, are paid, and lose nothing. Words after
# the command choose among them.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/examples/build.sh
cargo build --quiet
exec python3 tests/examples/run.py "$@"
