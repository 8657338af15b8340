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

say() { echo "postgres.sh: $*" >&2; }

# The folder with initdb and pg_ctl, the newest version first.
find_server() {
    local folder
    for folder in "${PG_BINDIR:-}" $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -Vr) \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
        "$(pg_config --bindir 2>/dev/null || true)" "$(dirname "$(command -v initdb 2>/dev/null || echo /none/initdb)")"; do
        if [[ -n $folder && -x $folder/initdb && -x $folder/pg_ctl && -x $folder/postgres ]]; then
            echo "$folder"
            return
        fi
    done
    return 1
}

if ! bin=$(find_server); then
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        say 'installing the PostgreSQL server (package postgresql)'
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql; } >&2 ||
            say 'apt-get failed'
    fi
    if ! bin=$(find_server); then
        cat >&2 <<'TEXT'
The PostgreSQL server (initdb, pg_ctl, postgres) is missing. Install it, or set PG_BINDIR to its folder:
  Debian, Ubuntu   apt-get install postgresql
  Fedora           dnf install postgresql-server
  macOS            brew install postgresql
Or set TEST_DATABASE_URL to a server whose user may create databases.
TEXT
        exit 1
    fi
fi

# The server refuses to run as root.
as_server=()
owner=
if ((EUID == 0)); then
    for owner in postgres nobody; do
        if id "$owner" >/dev/null 2>&1; then break; fi
        owner=
    done
    if [[ -z $owner ]]; then
        say 'running as root, and there is no user postgres or nobody to run the server as'
        exit 1
    fi
    if command -v setpriv >/dev/null; then
        as_server=(setpriv --reuid "$owner" --regid "$(id -g "$owner")" --clear-groups)
    elif command -v runuser >/dev/null; then
        as_server=(runuser -u "$owner" --)
    else
        say 'running as root, and neither setpriv nor runuser is there to start the server as another user'
        exit 1
    fi
fi

folder=$(mktemp -d)
data=$folder/data
started=
server() { (cd "$folder" && env -u LC_ALL LC_ALL=C "${as_server[@]}" "$@"); }

stop() {
    trap - EXIT
    if [[ -n $started ]]; then
        server "$bin/pg_ctl" --pgdata "$data" --mode immediate --wait stop >/dev/null 2>&1 || true
    fi
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
printf '%s\n' "$password" >"$folder/password"
if [[ -n $owner ]]; then chown -R "$owner" "$folder"; fi

server "$bin/initdb" --pgdata "$data" --username zerostate --pwfile "$folder/password" --auth scram-sha-256 \
    --encoding UTF8 --locale C --no-sync >"$folder/initdb.log" 2>&1 || {
    cat "$folder/initdb.log" >&2
    exit 1
}

settings='-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=400 -c fsync=off -c full_page_writes=off'
for _ in $(seq 20); do
    port=$((20000 + RANDOM % 12000))
    started=yes
    if server "$bin/pg_ctl" --pgdata "$data" --log "$folder/log" --options "$settings -p $port" --wait --timeout 60 start \
        >"$folder/start.log" 2>&1; then
        break
    fi
    started=
    # A port that somebody has is a reason to try another; nothing else is.
    if ! grep -q 'could not bind\|Address already in use' "$folder/log" 2>/dev/null; then
        break
    fi
    : >"$folder/log"
done
if [[ -z $started ]]; then
    say 'the server did not start:'
    cat "$folder/start.log" "$folder/log" >&2 2>/dev/null || true
    exit 1
fi

export TEST_DATABASE_URL="postgres://zerostate:$password@127.0.0.1:$port/postgres"
say "$("$bin/postgres" --version), TEST_DATABASE_URL=$TEST_DATABASE_URL"

# Not `exec`: the server has to be stopped afterwards.
status=0
"$@" || status=$?
exit "$status"
