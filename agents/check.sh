#!/bin/sh
# Proves that agents/wasm is what agents/build.sh makes of the sources, byte for byte, and that SHA256SUMS names it.
# A missing compiler is installed if that is possible, and named otherwise.
set -eu
cd "$(dirname "$0")"
packages="clang lld wasi-libc libclang-rt-14-dev-wasm32"

works() {
    echo 'int main(void) { return 0; }' >"$temp/probe.c"
    clang --target=wasm32-wasi -o "$temp/probe.wasm" "$temp/probe.c" 2>"$temp/probe.log"
}

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
if ! works; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q >&2
        # shellcheck disable=SC2086 # one word a package
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages >&2
    fi
    if ! works; then
        cat "$temp/probe.log" >&2
        echo "agents/check.sh: no C compiler for WebAssembly with WASI; install the Debian packages: $packages" >&2
        exit 1
    fi
fi

# The compiler of AssemblyScript comes from npm, where that is there and answers. Its agent is compared by its sum otherwise.
skipped=
if ! [ -x text-transform/node_modules/.bin/asc ]; then
    if ! command -v npm >/dev/null || ! (cd text-transform && npm ci --silent --no-audit --no-fund >&2); then
        skipped=text-transform-lite
    fi
fi

./build.sh "$temp/wasm"
failed=0
for made in "$temp"/wasm/*.wasm; do
    name=$(basename "$made")
    if ! cmp -s "$made" "wasm/$name"; then
        echo "agents/check.sh: agents/wasm/$name is not what its source gives; run agents/build.sh and update SHA256SUMS" >&2
        failed=1
    fi
done
for kept in wasm/*.wasm; do
    if ! [ -e "$temp/$kept" ] && [ "$(basename "$kept" .wasm)" != "$skipped" ]; then
        echo "agents/check.sh: agents/$kept has no source" >&2
        failed=1
    fi
done
if ! (cd wasm && sha256sum -- *.wasm) | cmp -s - SHA256SUMS; then
    echo "agents/check.sh: agents/SHA256SUMS is out of date; run: (cd agents/wasm && sha256sum -- *.wasm) >agents/SHA256SUMS" >&2
    failed=1
fi
if [ "$failed" != 0 ]; then
    echo "agents/check.sh: built with $(clang --version | head -n 1); the kept modules were built with Debian clang 14" >&2
    exit 1
fi
if [ -n "$skipped" ]; then
    echo "agents/check.sh: all modules but $skipped are what their sources give; that one was not rebuilt, for want of npm"
else
    echo "agents/check.sh: all modules are what their sources give"
fi
