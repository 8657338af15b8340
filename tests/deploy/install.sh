#!/usr/bin/env bash
# Installs what the checks of the deployments and of the supply chain need into tests/deploy/.venv.
set -euo pipefail
cd "$(dirname "$0")"

if ! python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    cat >&2 <<'TEXT'
Python 3.11 or newer with venv is missing; the deployments are checked with it. Install it:
  Debian, Ubuntu   apt-get install python3 python3-venv
  Fedora           dnf install python3
  macOS            brew install python
TEXT
    exit 1
fi
if ! cmp -s requirements.txt .venv/installed; then
    python3 -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
    cp requirements.txt .venv/installed
fi
