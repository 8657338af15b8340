# How to run a PostgreSQL server of one's own; to be sourced. Sets `bin`, the folder with the server's programs, and
# `as_server`, the words before a command of the server, which refuses to run as root.

say() { echo "$(basename "$0"): $*" >&2; }

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

# Runs a program of the server in a folder that its user can enter.
server() { (cd "$folder" && env -u LC_ALL LC_ALL=C "${as_server[@]}" "$@"); }

# start_server DATA SETTINGS: starts the server on a free port, which is left in `port`. Its log is beside its data.
start_server() {
    local data=$1 settings=$2
    for _ in $(seq 20); do
        port=$((20000 + RANDOM % 12000))
        if server "$bin/pg_ctl" --pgdata "$data" --log "$data.log" --options "$settings -p $port" --wait --timeout 60 start \
            >"$data.start" 2>&1; then
            return 0
        fi
        # A port that somebody has is a reason to try another; nothing else is.
        if ! grep -q 'could not bind\|Address already in use' "$data.log" 2>/dev/null; then
            break
        fi
        : >"$data.log"
    done
    say 'the server did not start:'
    cat "$data.start" "$data.log" >&2 2>/dev/null || true
    return 1
}

# own_folder [NAME ...]: makes `folder` for the servers of a script, with folders of these names and a fresh `password` in it. The servers
# end, and it is removed, with the script.
own_folder() {
    folder=$(mktemp -d)
    trap end_servers EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s\n' "$password" >"$folder/password"
    local name
    for name in "$@"; do mkdir "$folder/$name"; done
    if [[ -n $owner ]]; then chown -R "$owner" "$folder"; fi
}

end_servers() {
    trap - EXIT
    local running
    for running in "$folder"/*/postmaster.pid; do
        if [[ -f $running ]]; then
            server "$bin/pg_ctl" --pgdata "$(dirname "$running")" --mode immediate --wait stop >/dev/null 2>&1 || true
        fi
    done
    rm -rf "$folder"
}

# make_server DATA: makes the files of a server whose administrator is `zerostate`.
make_server() {
    server "$bin/initdb" --pgdata "$1" --username zerostate --pwfile "$folder/password" --auth scram-sha-256 --encoding UTF8 --locale C \
        --no-sync
}
