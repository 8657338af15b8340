#!/usr/bin/env bash
# The load suite: how fast the market is against what its database can do and against other GraphQL servers over the same tables.
#
#   benches/load/run.sh [smoke] [--only NAME,…]
#
# Starts a PostgreSQL server and the release build by itself, and leaves target/bench/report.md and report.json. `smoke` does the same with
# short rounds over little data and does not look at the ratios. PROGRAM=PATH measures another build. See docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/benches/load

for tool in wrk node npm python3 cargo; do
    command -v "$tool" >/dev/null && continue
    if [[ $tool == wrk ]] && ((EUID == 0)) && command -v apt-get >/dev/null; then
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends wrk; } >&2 || true
        command -v wrk >/dev/null && continue
    fi
    echo "$0: $tool is missing. Debian, Ubuntu: apt-get install wrk nodejs npm python3; cargo comes from https://rustup.rs" >&2
    exit 1
done
oha=target/tools/bin/oha
[[ -x $oha ]] || cargo install oha@1.16.0 --locked --no-default-features --features rustls --root target/tools --target-dir target/tools/build
rm -rf target/tools/build
if ! cmp -s "$here/peers/package-lock.json" "$here/peers/node_modules/.installed"; then
    npm --prefix "$here/peers" ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$here/peers/package-lock.json" "$here/peers/node_modules/.installed"
fi
if [[ -z ${PROGRAM:-} ]]; then
    cargo build --quiet --release
    PROGRAM=$PWD/target/release/zerostate
fi

. tests/server.sh
own_folder
export PATH="$bin:$PATH"
for tool in pgbench psql; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing. Debian, Ubuntu: apt-get install postgresql" >&2 && exit 1; }
done
make_server "$folder/data" >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2 && exit 1; }
# Durable in every respect, for everybody that is measured; the memory that a small server would be given.
settings='-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 -c fsync=on -c synchronous_commit=on
    -c full_page_writes=on -c shared_buffers=512MB -c max_wal_size=8GB -c checkpoint_timeout=15min'
start_server "$folder/data" "${settings//$'\n'/ }" || exit 1

export ZEROSTATE_TEST_PROGRAM=$PROGRAM OHA=$PWD/$oha BENCH_POSTMASTER BENCH_DATABASE BENCH_SETTINGS BENCH_LOG=$folder/data.log
BENCH_POSTMASTER=$(head -1 "$folder/data/postmaster.pid")
BENCH_DATABASE="postgres://zerostate:$password@127.0.0.1:$port"
BENCH_SETTINGS=$(tr -s ' \n' ' ' <<<"${settings//-c /}")
# Not `exec`: the server has to be stopped afterwards.
status=0
python3 "$here/run.py" "$@" || status=$?
exit "$status"
