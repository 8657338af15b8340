#!/bin/sh
# Builds the sample agents into a folder: agents/build.sh [FOLDER], by default agents/wasm.
#
# Needs clang and lld with the WebAssembly target and a WASI C library; on Debian 12 these are the packages
#   clang lld wasi-libc libclang-rt-14-dev-wasm32
# and, for the agent in AssemblyScript, the packages of text-transform/package-lock.json (npm ci in that folder); without them
# that agent is left out.
# Nothing is installed here. The same compiler gives the same bytes, wherever the repository lies: no names, no times and no
# paths end up in a module. Another compiler may be named by CC.
set -eu
cd "$(dirname "$0")"
out=${1:-wasm}
cc=${CC:-clang}
mkdir -p "$out"

build() { # name source pro [more flags]
    name=$1 source=$2 pro=$3
    shift 3
    # Stack first: a stack that overflows hits the end of the memory instead of the data.
    "$cc" --target=wasm32-wasi -std=c11 -Os -Wall -Wextra -Werror -DPRO="$pro" "$@" \
        -fno-ident -ffunction-sections -fdata-sections \
        -Wl,--gc-sections -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=262144 \
        -o "$out/$name.wasm" "$source/main.c" common/agent.c common/words.c
}

for capability in text-stats csv-summary json-validate text-keywords; do
    build "$capability-lite" "$capability" 0
    build "$capability-pro" "$capability" 1
done

# A reactor: a module whose functions are called, instead of a program that is started.
build text-transform-pro text-transform 1 -mexec-model=reactor -DJSON_ABI=1 -Dmain=answer
asc=text-transform/node_modules/.bin/asc
if [ -x "$asc" ]; then
    # No part of the runtime that collects garbage, and no import that says where the program failed.
    "$asc" text-transform/lite.ts -Oz --runtime stub --use abort= --noColors -o "$out/text-transform-lite.wasm"
else
    echo "agents/build.sh: text-transform-lite is left out; run npm ci in agents/text-transform to build it" >&2
fi
