#!/usr/bin/env bash
# The console, GraphiQL and the small page in headless Chromium, against a running service, with every other host blocked. Builds
# web/ and the service first. Words after the command choose among the checks. Screenshots are left in target/browser/.
set -euo pipefail
cd "$(dirname "$0")/../.."

bash tests/tools.sh browser
here=tests/browser

if [[ -z ${CHROMIUM:-} ]]; then
    find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
    if ! find_chromium >/dev/null && ((EUID == 0)) && command -v apt-get >/dev/null; then
        echo 'browser: installing Chromium (package chromium)' >&2
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; } >&2 ||
            echo 'browser: apt-get failed' >&2
    fi
    if ! CHROMIUM=$(find_chromium); then
        cat >&2 <<'TEXT'
Chromium is missing; the pages are tested in it. Install it, or set CHROMIUM to one:
  Debian, Ubuntu   apt-get install chromium
  Fedora           dnf install chromium
  macOS            brew install --cask chromium
TEXT
        exit 1
    fi
fi
export CHROMIUM

bash web/build.sh
npm --prefix web --silent test
# Installs again only when the lock file has changed since.
if ! cmp -s "$here/package-lock.json" "$here/node_modules/.installed"; then
    npm --prefix "$here" ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$here/package-lock.json" "$here/node_modules/.installed"
fi
cargo build --quiet
exec node "$here/run.mjs" "$@"
