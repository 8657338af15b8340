#!/bin/sh
# Builds the sample agents into a folder: agents/build.sh [FOLDER], by default agents/wasm.
#
# Needs clang and lld with the WebAssembly target and a WASI C library; on Debian 12 these are the packages
#   clang lld wasi-libc libclang-rt-14-dev-wasm32
# Nothing is installed here. The same compiler gives the same bytes, wherever the repository lies: no names, no times and no
# paths end up in a module. Another compiler may be named by CC.
set -eu
cd "$(dirname "$0")"
out=${1:-wasm}
cc=${CC:-clang}
mkdir -p "$out"

build() { # name source pro
    # Stack first: a stack that overflows hits the end of the memory instead of the data.
    "$cc" --target=wasm32-wasi -std=c11 -Os -Wall -Wextra -Werror -DPRO="$3" \
        -fno-ident -ffunction-sections -fdata-sections \
        -Wl,--gc-sections -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=262144 \
        -o "$out/$1.wasm" "$2/main.c" common/agent.c common/words.c
}

for capability in text-stats csv-summary json-validate text-keywords; do
    build "$capability-lite" "$capability" 0
    build "$capability-pro" "$capability" 1
done
