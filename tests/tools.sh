#!/usr/bin/env bash
# Says what a build needs and this computer lacks. Exits with 0 when nothing is missing.
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

exit "$missing"
