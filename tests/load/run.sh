#!/usr/bin/env bash
# Many tasks over 50 hosted agents and the three example agents at once: `run.sh [TASKS]`, 1,000 when it is left out. Prints the wall
# time and the most memory that the server took. The release build serves; PROFILE=debug takes the debug build.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/examples/build.sh
if [[ ${PROFILE:-release} == release ]]; then
    cargo build --quiet --release
else
    cargo build --quiet
fi
ZEROSTATE_TEST_PROGRAM=$PWD/target/${PROFILE:-release}/zerostate exec python3 tests/load/run.py "$@"
