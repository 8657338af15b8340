#!/usr/bin/env bash
# The documents are true: every block of README.md and docs/ that shows a command or a request is executed against a server of
# its own, every answer shown is compared, every link leads somewhere, and the generated references are what their sources give.
# Words after the command choose among the pages; `--write` writes the references.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/tools.sh conformance
here=tests/docs

# Installs again only when the lock file has changed since.
if ! cmp -s "$here/requirements.txt" "$here/.venv/installed"; then
    python3 -m venv --clear "$here/.venv"
    "$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$here/.venv/installed"
fi

# What `make run` would build, so that the pages which begin with it find it built.
bash web/build.sh --if-possible
cargo build --quiet
# The tutorial runs one of the example agents, and a page shows the clients of all of them.
bash tests/examples/build.sh
# One page is about PostgreSQL.
case "$*" in
'' | *postgresql*) exec env -u TEST_DATABASE_URL bash tests/postgres.sh "$here/.venv/bin/python" "$here/run.py" "$@" ;;
*) exec "$here/.venv/bin/python" "$here/run.py" "$@" ;;
esac
