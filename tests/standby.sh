#!/usr/bin/env bash
# A PostgreSQL primary with a synchronous streaming standby, for a test that talks to this script by standard input and output:
#
#   it says  ready PRIMARY_PORT STANDBY_PORT PASSWORD
#   kill     ends the primary at once with all its processes, as when its machine dies; it says  killed
#   promote  makes the standby the primary; it says  promoted
#
# Both servers listen on the loopback address and end with the script, which ends with its input.
set -euo pipefail
. "$(dirname "$0")/server.sh"

own_folder

{
    make_server "$folder/primary"
    # That the disks of this test are not synced changes nothing, because it is the processes that die.
    settings='-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=100 -c fsync=off'
    start_server "$folder/primary" "$settings"
    primary=$port
    target="host=127.0.0.1 port=$primary user=zerostate password=$password"
    server "$bin/pg_basebackup" --pgdata "$folder/standby" --write-recovery-conf --checkpoint fast --no-sync --dbname "$target"
    start_server "$folder/standby" "$settings"
    standby=$port
    # From now on a commit is acknowledged when the standby has it too. The standby does not know of this, so that it can be alone.
    ask() { server "$bin/psql" --dbname "$target dbname=postgres" --no-align --tuples-only --command "$1"; }
    ask "ALTER SYSTEM SET synchronous_standby_names = '*'"
    ask 'SELECT pg_reload_conf()'
    for _ in $(seq 100); do
        state=$(ask 'SELECT sync_state FROM pg_stat_replication')
        if [[ $state == sync ]]; then break; fi
        sleep 0.1
    done
    [[ $state == sync ]]
} >"$folder/log" 2>&1 || {
    cat "$folder/log" >&2
    exit 1
}
echo "ready $primary $standby $password"

while read -r word; do
    case $word in
    kill)
        postmaster=$(head -n 1 "$folder/primary/postmaster.pid")
        # The postmaster first, so that it does not see its children die.
        children=$(ps -o pid= --ppid "$postmaster")
        # shellcheck disable=SC2086
        kill -9 "$postmaster" $children 2>/dev/null || true
        rm -f "$folder/primary/postmaster.pid"
        echo killed
        ;;
    promote)
        server "$bin/pg_ctl" --pgdata "$folder/standby" --wait promote >>"$folder/log" 2>&1
        echo promoted
        ;;
    esac
done
