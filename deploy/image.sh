#!/usr/bin/env bash
# Takes the steps of the Dockerfile without Docker and tries the result: target/image is what the image holds, but for the files of its
# base. With a path it takes that binary instead of building one. Trying it needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
binary=${1:-$target/$host/dist/zerostate}

if (($# == 0)); then
    bash web/build.sh --if-possible
    GIT_SHA=${GIT_SHA:-$(git rev-parse HEAD 2>/dev/null || true)} RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --profile dist --locked --bin zerostate --target "$host"
fi

root=$target/image
rm -rf "$root"
install -D -m 0755 "$binary" "$root/zerostate"
mkdir "$root/licenses"
bash deploy/licenses.sh | gzip -9 >"$root/licenses/THIRD-PARTY.txt.gz"
cp LICENSE-APACHE LICENSE-MIT "$root/licenses/"
install -d -m 0700 "$root/data"

exec python3 tests/deploy/image.py "$root"
