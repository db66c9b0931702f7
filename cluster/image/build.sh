#!/usr/bin/env bash
# Builds the two images of the Dockerfile: with docker, or where none runs with buildah (as root, Debian's package).
#
#   cluster/image/build.sh [OPTION ...]     options of `docker build` or `buildah build`, for both images
#
# IMAGE_BUILDER=buildah takes that one in any case.
#
# Where no registry answers, buildah's base is made of Debian's packages instead: the same Debian and Python 3.11 as
# Docker's python:3.11-slim-bookworm, of an older patch release, and named so that nobody takes it for that.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' mana_dist/__init__.py)

if [ "${IMAGE_BUILDER:-docker}" = docker ] && docker info >/dev/null 2>&1; then
  docker build "$@" --target mlflow -t "mana-mlflow:$version" .
  exec docker build "$@" --target ray -t "mana-dist:$version" .
fi

wanted=docker.io/library/$(sed -n 's/^ARG PYTHON=//p' Dockerfile)
base=localhost/python-of-debian:3.11-bookworm
if buildah pull --quiet --policy missing "$wanted" >/dev/null 2>&1; then
  base=$wanted
elif ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  echo "no $wanted to be had: making $base with debootstrap" >&2
  root=$(mktemp -d)
  trap 'rm -rf --one-file-system "$root"' EXIT
  # python3-dev for what python:slim has too, Python's headers.
  debootstrap --variant=minbase --include=ca-certificates,python-is-python3,python3-dev,python3-pip bookworm "$root" >&2
  # The image is a container for one application, whose pip is to install beside Debian's packages, into /usr/local.
  rm "$root"/usr/lib/python3.11/EXTERNALLY-MANAGED
  rm -rf "$root"/dev/* "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  container=$(buildah from scratch)
  buildah copy --quiet "$container" "$root" / >&2
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 "$container"
  buildah commit --quiet --rm "$container" "$base" >&2
fi

# pip's settings of this machine, where it has some, are there while the image is built and are no part of it.
options=(--layers --isolation chroot --build-arg "PYTHON=$base")
for path in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  if [ -e "$path" ]; then options+=(--volume "$path:$path:ro"); fi
done
buildah build "${options[@]}" "$@" --target mlflow -t "mana-mlflow:$version" .
buildah build "${options[@]}" "$@" --target ray -t "mana-dist:$version" .
