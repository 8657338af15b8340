#!/usr/bin/env bash
# Prints the licence texts of every crate that is linked into the binary: most ask that their text goes with it. Equal texts come once,
# below the names of all crates that have them.
set -euo pipefail
cd "$(dirname "$0")/.."

registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cargo tree --locked --edges normal --prefix none --no-dedupe --target "$(rustc -vV | sed -n 's/^host: //p')" --format '{p}|{l}' | grep -v '(/\|(proc-macro)' |
    sort -u >"$folder/crates"
while IFS='|' read -r crate licence; do
    name=${crate% v*} version=${crate##* v}
    found=
    for file in "$registry"/*/"$name-$version"/{LICENSE,LICENCE,COPYING,NOTICE,COPYRIGHT,UNLICENSE,license,Licence}*; do
        if [[ -f $file ]]; then
            found=yes
            sum=$(sha256sum <"$file" | cut -d ' ' -f 1)
            [[ -f $folder/$sum ]] || cp "$file" "$folder/$sum"
            echo "$name $version ($licence)" >>"$folder/$sum.names"
        fi
    done
    # What brings no text is under the words of its licence, which others bring.
    [[ -n $found ]] || echo "$name $version ($licence)" >>"$folder/none"
done <"$folder/crates"

for names in "$folder"/*.names; do
    printf '%s\n\n' '================================================================================'
    sort -u "$names"
    echo
    cat "${names%.names}"
    echo
done
if [[ -f $folder/none ]]; then
    printf '%s\n\nWithout a text of their own:\n' '================================================================================'
    cat "$folder/none"
fi
