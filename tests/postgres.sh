#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own:
#
#   tests/postgres.sh cargo test --test it
#
# The server listens on a free port of the loopback address, keeps its data in a temporary folder without syncing it, and is
# stopped and removed whatever becomes of the command. The command finds it under TEST_DATABASE_URL.
set -euo pipefail

if (($# == 0)); then
    echo "usage: $0 command [argument ...]" >&2
    exit 2
fi

. "$(dirname "$0")/server.sh"

own_folder
data=$folder/data

make_server "$data" >"$folder/initdb.log" 2>&1 || {
    cat "$folder/initdb.log" >&2
    exit 1
}

settings='-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=400 -c fsync=off -c full_page_writes=off'
start_server "$data" "$settings" || exit 1

export TEST_DATABASE_URL="postgres://zerostate:$password@127.0.0.1:$port/postgres"
say "$("$bin/postgres" --version), TEST_DATABASE_URL=$TEST_DATABASE_URL"

# Not `exec`: the server has to be stopped afterwards.
status=0
"$@" || status=$?
exit "$status"
