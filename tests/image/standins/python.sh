#!/usr/bin/env bash
# Make docker.io/library/python:VERSION-slim-TAG where no image registry can be reached:
#
#     python.sh VERSION SUITE [TAG]     such as: python.sh 3.13 trixie
#
# Debian's minimal system of that SUITE with the libraries of the official image, and Debian's
# CPython moved below /usr/local. As in the official image there is no byte code of the standard
# library, no compiler, and /usr/local/bin holds python, python3 and pythonX.Y.
# An image that this very file made is left as it is.
set -euo pipefail

version=$1
suite=$2
reference=docker.io/library/python:$version-slim-${3:-$suite}
recipe=$(sha256sum "$0" | cut -c 1-16)-$suite-$version
label='{{ index .Labels "fiveweeks.recipe" }}'
if [ "$(podman image inspect --format "$label" "$reference" 2>/dev/null)" = "$recipe" ]; then
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# mmdebstrap runs this with the new system as its argument.
cat >"$work/install" <<EOF
#!/bin/sh
set -eu
root=\$1
into=\$root/usr/local
mkdir "\$root/debs"
# Unpacked, not installed: /usr/bin stays without a Python, as in the official image.
chroot "\$root" sh -c 'cd /debs && apt-get -qq -o APT::Sandbox::User=root download \
    python$version python$version-minimal python$version-venv \
    libpython$version-minimal libpython$version-stdlib python3-pip-whl >/dev/null'
for deb in "\$root"/debs/*.deb; do
    dpkg-deb --extract "\$deb" "\$root/debs/all"
done
mv "\$root/debs/all/usr/bin/python$version" "\$into/bin/"
mv "\$root/debs/all/usr/lib/python$version" "\$into/lib/"
mv "\$root/debs/all/usr/share/python-wheels" "\$root/usr/share/"
mkdir "\$into/lib/python$version/dist-packages"
rm -f "\$into/lib/python$version/EXTERNALLY-MANAGED" "\$into/lib/python$version/sitecustomize.py"
ln -s python$version "\$into/bin/python3"
ln -s python3 "\$into/bin/python"
find "\$into" -depth \
    '(' -type d '(' -name test -o -name tests -o -name idlelib ')' -o -name '*.pyc' ')' \
    -exec rm -r {} +
# Where the network looks into TLS, an organisation's base image brings its certificates.
cp /etc/ssl/certs/ca-certificates.crt "\$root/etc/ssl/certs/"
rm -r "\$root/debs" "\$root"/var/lib/apt/lists/* "\$root"/var/cache/apt/*
EOF
chmod +x "$work/install"

libraries=ca-certificates,netbase,tzdata,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6
libraries+=,libreadline8t64,libsqlite3-0,libssl3t64,libuuid1,zlib1g
# A mirror may lag behind, so that its list of a suite in development is past its date.
mmdebstrap --quiet --variant=minbase --include="$libraries" \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="$work/install" "$suite" "$work/system.tar" >&2
podman import --quiet \
    --change "LABEL fiveweeks.recipe=$recipe" \
    --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change "ENV PYTHON_VERSION=$version" \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    "$work/system.tar" "$reference" >/dev/null
echo "Made $reference" >&2
