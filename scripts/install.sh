#!/usr/bin/env bash
# Installs the release programs, their other names, the mount helper and the manual pages.
# usage: install.sh PREFIX   (DESTDIR is honoured, for packages)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

prefix=${1:?usage: install.sh PREFIX}
root=${DESTDIR:-}
sbin=$root$prefix/sbin
man=$root$prefix/share/man/man8
programs=(simfs vzquota vzctl vzlist vzpkg)

as_user_of() {
    if [ -w "$1" ] || { [ ! -e "$1" ] && mkdir -p "$1" 2>/dev/null; }; then
        shift
        "$@"
    else
        shift
        as_root "$@"
    fi
}

[ -x target/release/simfs ] || die "target/release/simfs is missing: make build"
as_user_of "$root$prefix" install -d "$sbin" "$man"
for program in "${programs[@]}"; do
    [ -x "target/release/$program" ] || continue
    # A copy beside it and a rename: a running daemon keeps the file it was started from.
    as_user_of "$sbin" install -m 755 "target/release/$program" "$sbin/.$program.new"
    as_user_of "$sbin" mv -f "$sbin/.$program.new" "$sbin/$program"
    say "$sbin/$program"
done
as_user_of "$sbin" ln -sf simfs "$sbin/mount.simfs"
as_user_of "$sbin" ln -sf simfs "$sbin/mount.fuse.simfs"
if [ -x "$sbin/vzpkg" ]; then
    for name in vzpkgls vzpkgcache vzyum; do
        as_user_of "$sbin" ln -sf vzpkg "$sbin/$name"
    done
fi
for page in tools/man/*.8; do
    [ -e "$page" ] || continue
    as_user_of "$man" install -m 644 "$page" "$man/"
done
# mount(8) looks for helpers in /sbin only.
if [ -z "$root" ] && [ "$prefix" != /usr ] && [ "$(id -u)" -eq 0 ] && [ ! -e /sbin/mount.simfs ]; then
    ln -s "$prefix/sbin/simfs" /sbin/mount.simfs
    say "/sbin/mount.simfs -> $prefix/sbin/simfs"
fi
