#!/usr/bin/env bash
# A PostgreSQL market that is damaged, and brought back as it was a moment before: a base backup, the log that the server archived,
# and a point in time. The steps are those of docs/how-to/backup.md. ZEROSTATE names the program.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/server.sh

program=${ZEROSTATE:-$PWD/target/debug/zerostate}
passed=0
own_folder archive data

holds() {
    if "${@:2}" >"$folder/said" 2>&1; then
        passed=$((passed + 1))
    else
        say "$1 does not hold:"
        cat "$folder/said" "$folder"/*.log >&2 2>/dev/null || true
        echo "$passed passed, 1 failed"
        exit 1
    fi
}
ask() { PGPASSWORD=$password "$bin/psql" --host 127.0.0.1 --port "$port" --username zerostate --dbname postgres --no-align --tuples-only --command "$1"; }
zerostate() { env DATABASE_URL="postgres://zerostate:$password@127.0.0.1:$port/postgres" ZEROSTATE_DATA="$folder/data" "$program" "$@"; }

make_server "$folder/primary" >"$folder/initdb.log" 2>&1
settings="-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=50 -c fsync=off"
archive="-c archive_mode=on -c archive_command='cp %p $folder/archive/%f'"
start_server "$folder/primary" "$settings $archive"

holds 'a market is made' zerostate user create before@example.com --role admin
holds 'a base backup is made' env PGPASSWORD="$password" "$bin/pg_basebackup" --pgdata "$folder/restored" --checkpoint fast --no-sync \
    --host 127.0.0.1 --port "$port" --username zerostate
holds 'the market goes on' zerostate user create after@example.com
moment=$(ask 'SELECT clock_timestamp()')
sleep 1
holds 'a mistake is made' ask 'DELETE FROM sessions; DELETE FROM users'
holds 'the log is archived' ask 'SELECT pg_switch_wal()'
for _ in $(seq 100); do
    if [[ $(ask 'SELECT archived_count > 0 FROM pg_stat_archiver') == t ]]; then break; fi
    sleep 0.1
done
holds 'the damaged server ends' server "$bin/pg_ctl" --pgdata "$folder/primary" --mode fast --wait stop

cat >>"$folder/restored/postgresql.auto.conf" <<CONF
restore_command = 'cp $folder/archive/%f %p'
recovery_target_time = '$moment'
recovery_target_action = 'promote'
CONF
touch "$folder/restored/recovery.signal"
rm -f "$folder/restored/postmaster.pid"
if [[ -n $owner ]]; then chown -R "$owner" "$folder/restored"; fi
holds 'the restored server starts' start_server "$folder/restored" "$settings"
for _ in $(seq 100); do
    if [[ $(ask 'SELECT pg_is_in_recovery()') == f ]]; then break; fi
    sleep 0.1
done
there() { [[ $(ask "SELECT COUNT(*) FROM users WHERE email IN ('before@example.com', 'after@example.com')") == 2 ]]; }
holds 'everything up to the moment is there' there
holds 'the books are right' zerostate audit
holds 'the market goes on from there' zerostate user create later@example.com
echo "$passed passed, 0 failed"
