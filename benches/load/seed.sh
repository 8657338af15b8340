#!/usr/bin/env bash
# Fills the database under DATABASE_URL with a history, by statements over whole sets; see `seed.sql` for what it is. It has to be a
# PostgreSQL database that the service has migrated, and `--payer` a user with the credits for the open tasks:
#
#   benches/load/seed.sh --payer UUID --owner UUID [--agents N] [--tasks N] [--bids N] [--pages N] [--open N] [--events N]
#
# `--tasks` counts those that are over and share `--bids` between them; as many bids as `--events` says are in the event log too. No service may run meanwhile.
set -euo pipefail

payer= owner= agents=1000 tasks=0 bids=0 pages=200 open=20000 events=0
while (($# > 0)); do
    case $1 in
    --payer | --owner | --agents | --tasks | --bids | --pages | --open | --events)
        if (($# < 2)); then echo "$0: $1 needs a value" >&2 && exit 2; fi
        printf -v "${1#--}" %s "$2" && shift 2
        ;;
    *) echo "$0: $1 is no option; see the head of this file" >&2 && exit 2 ;;
    esac
done
if [[ -z $payer || -z $owner || -z ${DATABASE_URL:-} ]]; then
    echo "$0: DATABASE_URL, --payer and --owner are needed; see the head of this file" >&2
    exit 2
fi
each=$((tasks > 0 ? bids / tasks : 0))
if ((agents <= 20 || agents <= each)); then
    echo "$0: there have to be more agents than bids in one auction" >&2
    exit 2
fi
exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set payer="$payer" --set owner="$owner" --set agents="$agents" --set past="$tasks" \
    --set past_bids="$each" --set pages="$pages" --set open="$open" --set events="$events" --file "$(dirname "$0")/seed.sql" "$DATABASE_URL"
