#!/usr/bin/env bash
# The deployments against one another and against the program, and what the lock file brings in against deny.toml. Ends with
# `deploy: N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/deploy/install.sh
if ! command -v kubectl >/dev/null; then
    cat >&2 <<'TEXT'
kubectl, 1.27 or newer, is missing; the manifests are put together with it (Debian 12's own package is too old). Install it:
  Debian 13, Ubuntu   apt-get install kubernetes-client, or the package kubectl of Kubernetes
  Fedora              dnf install kubernetes-client
  macOS               brew install kubectl
TEXT
    exit 1
fi

cargo build --quiet
exec tests/deploy/.venv/bin/python tests/deploy/check.py
