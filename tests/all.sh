#!/usr/bin/env bash
# Every test on SQLite, then the stories again on PostgreSQL, then third-party clients and audits against a running server, then the
# example agents, then the pages in a browser, then what the documents show. Says at the end how many ran on each, and fails if one
# failed.
set -uo pipefail
cd "$(dirname "$0")/.."

bash tests/tools.sh conformance || exit 1
bash tests/tools.sh browser || exit 1
# First, because the binary carries the console.
bash web/build.sh || exit 1

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Adds up cargo's "test result:" lines. A run without one of them ran nothing, which is a failure too.
count() {
    awk '
        /^test result:/ {
            results++
            for (i = 1; i < NF; i++) {
                if ($(i + 1) == "passed;") passed += $i
                if ($(i + 1) == "failed;") failed += $i
                if ($(i + 1) == "ignored;") ignored += $i
            }
        }
        END {
            printf "%d passed, %d failed", passed, failed
            if (ignored) printf ", %d ignored", ignored
            print ""
            exit !(results && passed && !failed)
        }
    ' "$1"
}

# The committed modules are what their sources give, byte for byte. Only one compiler gives the same bytes; where it neither is nor
# can be installed, the modules are still compared with their sums, and the last lines say what was not done.
agents_status=0
agents_verdict='the modules are what their sources give'
echo '== agents: the sample modules'
(cd agents/wasm && sha256sum --check --quiet ../SHA256SUMS) || agents_status=1
debian_12=$(. /etc/os-release 2>/dev/null && echo "${ID:-}${VERSION_ID:-}")
if clang --version 2>/dev/null | grep -q 'Debian clang version 14' || { [[ $debian_12 == debian12 ]] && ((EUID == 0)); }; then
    bash agents/check.sh || agents_status=1
else
    agents_verdict="the modules match SHA256SUMS; NOT REBUILT, which needs Debian 12's clang 14 (agents/check.sh names the packages)"
fi
if ((agents_status)); then agents_verdict='agents/check.sh says what differs'; fi

echo '== SQLite: the whole workspace'
env -u TEST_DATABASE_URL cargo test --workspace --no-fail-fast 2>&1 | tee "$logs/sqlite"
sqlite_status=$?

echo '== PostgreSQL: the stories again'
if [[ -n ${TEST_DATABASE_URL:-} ]]; then
    cargo test --test it --no-fail-fast 2>&1 | tee "$logs/postgres"
else
    bash tests/postgres.sh cargo test --test it --no-fail-fast 2>&1 | tee "$logs/postgres"
fi
postgres_status=$?

echo '== deploy: the deployments against one another, and stories on the schema of a next release'
bash tests/deploy/run.sh 2>&1 | tee "$logs/deploy"
deploy_status=$?
ZEROSTATE_TEST_NEWER=1 cargo test --test it -- story::a_ story::the_ delegation:: dispute:: 2>&1 | tee "$logs/newer"
newer_status=$?
deploy=$(grep '^deploy:' "$logs/deploy" | tail -n 1)

echo '== conformance: audits and unmodified clients'
bash tests/conformance/run.sh 2>&1 | tee "$logs/conformance"
conformance_status=$?
conformance=$(grep '^conformance:' "$logs/conformance" | tail -n 1)

echo '== examples: outside agents, and a small load over them and fifty hosted ones'
{ bash tests/examples/run.sh && PROFILE=debug bash tests/load/run.sh 100; } 2>&1 | tee "$logs/examples"
examples_status=$?
examples=$(grep '^examples:' "$logs/examples" | tail -n 1)

echo '== observability: a Prometheus over the demonstration, rules, dashboards, runbooks'
bash tests/observability/run.sh 2>&1 | tee "$logs/observability"
observability_status=$?
observability=$(grep '^observability:' "$logs/observability" | tail -n 1)

echo '== browser: the console, GraphiQL and the small page in headless Chromium'
bash tests/browser/run.sh 2>&1 | tee "$logs/browser"
browser_status=$?
browser=$(grep '^browser:' "$logs/browser" | tail -n 1)

echo '== documents: what they show is executed'
bash tests/docs/run.sh 2>&1 | tee "$logs/documents"
documents_status=$?
documents=$(grep '^documents:' "$logs/documents" | tail -n 1)

echo
sqlite=$(count "$logs/sqlite") || sqlite_status=1
postgres=$(count "$logs/postgres") || postgres_status=1
newer=$(count "$logs/newer") || newer_status=1
verdict() { if (($1)); then echo 'FAILED'; else echo 'ok'; fi; }
# What failed once more, here at the end, where it is found.
for part in sqlite postgres deploy newer conformance examples observability browser documents; do
    status=${part}_status
    if ((${!status:-0})); then
        echo "-- $part, what failed:"
        grep --extended-regexp --after-context 6 'FAILED|panicked at|^error|wrong:' "$logs/$part" | cut -c 1-300 | head -n 60
        echo
    fi
done
printf '%-11s %-7s %s\n' SQLite "$(verdict $sqlite_status)" "$sqlite"
printf '%-11s %-7s %s\n' PostgreSQL "$(verdict $postgres_status)" "$postgres"
printf '%-11s %-7s %s; on a newer schema %s\n' deploy "$(verdict $((deploy_status || newer_status)))" "${deploy#deploy: }" "$newer"
printf '%-11s %-7s %s\n' conformance "$(verdict $conformance_status)" "${conformance#conformance: }"
printf '%-11s %-7s %s\n' examples "$(verdict $examples_status)" "${examples#examples: }"
printf '%-11s %-7s %s\n' browser "$(verdict $browser_status)" "${browser#browser: }"
printf '%-11s %-7s %s\n' documents "$(verdict $documents_status)" "${documents#documents: }"
printf '%-13s %-5s %s\n' observability "$(verdict $observability_status)" "${observability#observability: }"
printf '%-11s %-7s %s\n' agents "$(verdict $agents_status)" "$agents_verdict"
exit $((sqlite_status || postgres_status || conformance_status || examples_status || deploy_status || newer_status || agents_status || browser_status || documents_status || observability_status))
