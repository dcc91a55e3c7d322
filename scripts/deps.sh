#!/usr/bin/env bash
# Installs the Debian packages that the named groups need and that are missing, and says which.
# usage: deps.sh GROUP...   groups: build run test recipes demo bench lint fuzz
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/lib.sh
. ./lib.sh

packages_of() {
    case "$1" in
        build) echo gcc libc6-dev ;;
        run) echo fuse3 acl attr e2fsprogs util-linux jq xfsprogs btrfs-progs ;;
        test) packages_of run; echo crun runc debootstrap quota zstd xz-utils fio shellcheck perl-base busybox-static
            echo zsh fish ;;
        # Other runtimes (RECIPES.md), a minute more; without them their tests are skipped.
        recipes) echo podman systemd-container lxc jq ;;
        demo) echo crun debootstrap jq ;;
        bench) packages_of run; echo fio bindfs fuse-overlayfs mergerfs ;;
        lint) echo shellcheck ;;
        fuzz) echo g++ ;;
        *) die "unknown group '$1': one of build run test recipes demo bench lint fuzz" ;;
    esac
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

require_cargo() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' ../Cargo.toml)
    command -v cargo >/dev/null || die "no cargo: install Rust $needed or later with rustup \
(https://rustup.rs); Debian 12's own (1.63) is too old"
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n1)" = "$needed" ] ||
        die "rustc $found is too old: $needed or later is needed (rustup update)"
}

missing=()
for group in "$@"; do
    [ "$group" != build ] || require_cargo
    for package in $(packages_of "$group"); do
        is_installed "$package" || missing+=("$package")
    done
done
[ "${#missing[@]}" -gt 0 ] || exit 0

command -v apt-get >/dev/null || die "no apt-get here; install by hand: ${missing[*]}"
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
say "installing: ${missing[*]}"
install_all() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
}
install_all 2>/dev/null || { as_root apt-get update -q >/dev/null; install_all; }
