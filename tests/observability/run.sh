#!/usr/bin/env bash
# Metrics, rules, dashboards and runbooks against one another: a real Prometheus scrapes the demonstration, and every panel and every
# rule has to find something. Installs Prometheus where it may.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing() { for tool in prometheus promtool python3; do command -v "$tool" >/dev/null || return 0; done; return 1; }
if missing && ((EUID == 0)) && command -v apt-get >/dev/null; then
    echo 'observability: installing Prometheus (package prometheus)' >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends prometheus python3; } >&2 ||
        echo 'observability: apt-get failed' >&2
fi
if missing; then
    cat >&2 <<'TEXT'
prometheus, promtool or python3 is missing; the rules and dashboards are tried with them. Install them:
  Debian, Ubuntu   apt-get install prometheus python3
  macOS            brew install prometheus python
TEXT
    exit 1
fi

cargo build --quiet
exec python3 tests/observability/check.py
