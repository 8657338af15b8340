#!/usr/bin/env bash
# Says what a build needs and this computer lacks; with the word `conformance`, also what the checks by third-party clients need, and
# with the word `browser` what the checks of the pages need, but for Chromium, which they install themselves where they can.
# Exits with 0 when nothing is missing.
set -euo pipefail

missing=0

if ! command -v cargo >/dev/null; then
    missing=1
    cat >&2 <<'TEXT'
cargo is missing. Install Rust, 1.95 or newer:
  https://rustup.rs, or your system's package of rustup
and open a new shell, or run: . "$HOME/.cargo/env"
TEXT
fi

if ! command -v "${CC:-cc}" >/dev/null && ! command -v gcc >/dev/null && ! command -v clang >/dev/null; then
    missing=1
    cat >&2 <<'TEXT'
A C compiler is missing; SQLite and the linker need one. Install it:
  Debian, Ubuntu   apt-get install gcc libc6-dev
  Fedora           dnf install gcc
  macOS            xcode-select --install
TEXT
fi

if [[ ${1:-} == conformance ]]; then
    node_major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
    if ((${node_major:-0} < 20)) || ! command -v npm >/dev/null; then
        missing=1
        cat >&2 <<'TEXT'
Node.js 20 or newer with npm is missing; the conformance checks run third-party clients with it. Install it:
  Debian 13, Ubuntu 25.04 and newer   apt-get install nodejs npm
  Fedora                              dnf install nodejs npm
  macOS                               brew install node
  elsewhere                           https://nodejs.org
TEXT
    fi
    if ! python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        missing=1
        cat >&2 <<'TEXT'
Python 3.11 or newer with venv is missing; the conformance checks run a third-party client with it. Install it:
  Debian, Ubuntu   apt-get install python3 python3-venv
  Fedora           dnf install python3
  macOS            brew install python
TEXT
    fi
fi

if [[ ${1:-} == browser ]] && { ! command -v npm >/dev/null || ! node --eval '
    const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1);' 2>/dev/null; }; then
    missing=1
    cat >&2 <<'TEXT'
Node.js 20.19 or newer with npm is missing; the console and GraphiQL are built and tested with it. Install it:
  Debian 13, Ubuntu 25.04 and newer   apt-get install nodejs npm
  Fedora                              dnf install nodejs npm
  macOS                               brew install node
  elsewhere                           https://nodejs.org
TEXT
fi

exit "$missing"
