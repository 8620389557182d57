#!/usr/bin/env bash
# Make ghcr.io/astral-sh/uv:X.Y where no image registry can be reached, from the uv of this machine:
# like the official image it holds /uv and /uvx, and nothing else.
set -euo pipefail

binary=$(realpath "$(command -v uv)")
version=$(uv --version | cut -d ' ' -f 2)
reference=ghcr.io/astral-sh/uv:${version%.*}
label='{{ index .Labels "fiveweeks.version" }}'
if [ "$(podman image inspect --format "$label" "$reference" 2>/dev/null)" = "$version" ]; then
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar --create --file "$work/system.tar" --directory "$(dirname "$binary")" \
    --owner=0 --group=0 --mtime=@0 --mode=0755 uv uvx
podman import --quiet \
    --change "LABEL fiveweeks.version=$version" \
    --change 'ENTRYPOINT ["/uv"]' \
    "$work/system.tar" "$reference" >/dev/null
echo "Made $reference" >&2
