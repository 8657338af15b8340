#!/usr/bin/env bash
# Builds the console and GraphiQL into dist/, which the next `cargo build` puts into the binary. Does nothing when nothing has
# changed since, so that the binary is not built again either. With --if-possible it is no failure that it cannot be done.
set -euo pipefail
cd "$(dirname "$0")"

# The service without them has a page too.
without() {
    echo "web: $1; the service shows its small page instead of the console and GraphiQL" >&2
    [[ ${mode:-} == --if-possible ]]
    exit
}
mode=${1:-}

if ! command -v npm >/dev/null || ! node --eval '
    const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1);
' 2>/dev/null; then
    without 'Node.js 20.19 or newer with npm is not here'
fi

sum() {
    find src public index.html graphiql.html package.json package-lock.json tsconfig.json vite.config.ts build.sh ../schema.graphql \
        -type f -not -path '*/generated/*' -print0 | LC_ALL=C sort --zero-terminated | xargs -0 cksum | cksum
}

# Installs again only when the lock file has changed since.
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || without 'npm cannot get the packages'
    cp package-lock.json node_modules/.installed
fi

now=$(sum)
if [[ -f dist/index.html && -f dist/graphiql.html.gz && $now == "$(cat node_modules/.built 2>/dev/null)" ]]; then
    echo 'web: dist/ is up to date'
    exit
fi
npm run --silent check || without 'the sources do not pass their check'
npm run --silent build -- --logLevel warn || without 'the build failed'
echo "$now" >node_modules/.built
echo "web: built dist/, $(find dist -name '*.gz' | wc -l) files, $(find dist -name '*.gz' -exec cat {} + | wc -c) bytes compressed"
