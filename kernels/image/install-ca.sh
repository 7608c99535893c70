#!/bin/sh
# Install every certificate of a PEM bundle as a file of its own, for update-ca-certificates.
#
#   install-ca.sh BUNDLE DESTINATION KNOWN
#
# update-ca-certificates wants one certificate per .crt file: of a bundle it hashes the first one only, and
# OpenSSL's directory look-up then misses the others. Certificates that already lie in the directory KNOWN
# (the distribution's own) are left out: a company bundle usually repeats all of them, and every TLS client
# would parse each twice. An empty or missing BUNDLE installs nothing.
set -eu

bundle=$1
destination=$2
known=$3

[ -s "$bundle" ] || exit 0
mkdir -p "$destination"

# Text between the certificates (names, comments) is dropped; Windows line ends are made plain.
tr -d '\r' <"$bundle" | awk -v prefix="$destination/jupyter-sandbox-extra-" '
    /^-----BEGIN CERTIFICATE-----/ { n += 1; file = sprintf("%s%04d.crt", prefix, n) }
    file != "" { print > file }
    /^-----END CERTIFICATE-----/ { close(file); file = "" }
'

digests=$(find "$known" -name '*.crt' -exec sha256sum {} + 2>/dev/null | cut -d ' ' -f 1 || true)
for file in "$destination"/jupyter-sandbox-extra-*.crt; do
    [ -e "$file" ] || continue
    digest=$(sha256sum "$file" | cut -d ' ' -f 1)
    case "$digests" in
        *"$digest"*) rm "$file" ;;
    esac
done
