#!/bin/sh
# Makes the image comity-base of Debian's own packages: a base for deploy/Dockerfile where no image registry is reached.
# Takes some minutes; wants root, debootstrap and docker. Certificates that this machine trusts are trusted in it, too.
set -eu
name=${1:-comity-base}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
rm -rf "$root"/var/cache/apt/archives/*.deb
tar -C "$root" -c . | docker import - "$name:latest"
