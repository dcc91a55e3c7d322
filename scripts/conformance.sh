#!/usr/bin/env bash
# Runs pjdfstest on a plain directory and on a mount of the same file system, and compares.
# Fails for every test that does not pass on the mount but passes on the plain directory, unless
# tests/suites/pjdfstest.known names it with a reason.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

version=0.2.2
top=$PWD
tool=$top/target/tools/bin/pjdfstest
known=$top/tests/suites/pjdfstest.known
configuration=$top/tests/suites/pjdfstest.toml

[ -x "$tool" ] || { say "building pjdfstest $version"; cargo install -q pjdfstest --version "$version" --locked --root target/tools; }
cargo build --release --locked
if [ "$(id -u)" -ne 0 ]; then
    exec sudo -E "$0" "$@"
fi

prefix=$(mktemp -d /var/tmp/simfs-conformance.XXXXXX)
chmod 755 "$prefix"
export SIMFS_PREFIX=$prefix LC_ALL=C
cleanup() {
    target/release/simfs umount 101 >/dev/null 2>&1 || true
    sweep "$prefix"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir -p "$prefix/plain" "$prefix/private" "$prefix/vz/root/101"
target/release/vzquota init 101 -p "$prefix/private" -b 4G -B 4G -i 1000000 -I 1000000 -e 7d -n 7d
target/release/simfs mount 101

# Names of the tests that do not pass below a directory: a test that is skipped only on the mount shows nothing either.
not_passed() {
    local dir=$1 log=$2
    (cd "$dir" && "$tool" --configuration-file "$configuration" --path "$dir") >"$log" 2>&1 || true
    grep -q '^Summary:' "$log" || { tail -n 20 "$log" >&2; die "pjdfstest did not finish"; }
    grep '^Summary:' "$log" >&2
    awk '$2 == "FAILED" || $2 == "skipped" { print $1 }' "$log" | sort -u
}

say "on the plain directory"
not_passed "$prefix/plain" "$prefix/plain.log" >"$prefix/plain.failed"
say "on the mount"
not_passed "$prefix/vz/root/101" "$prefix/mount.log" >"$prefix/mount.failed"

sed 's/[[:space:]]*#.*//; /^$/d' "$known" | sort -u >"$prefix/known"
comm -13 "$prefix/plain.failed" "$prefix/mount.failed" >"$prefix/worse"
comm -23 "$prefix/worse" "$prefix/known" >"$prefix/new"
comm -13 "$prefix/worse" "$prefix/known" | sed 's/^/known, but passes now: /' >&2

printf 'do not pass on the plain directory: %d; on the mount: %d; only on the mount: %d; of these unknown: %d\n' \
    "$(wc -l <"$prefix/plain.failed")" "$(wc -l <"$prefix/mount.failed")" "$(wc -l <"$prefix/worse")" \
    "$(wc -l <"$prefix/new")"
if [ -s "$prefix/new" ]; then
    sed 's/^/only on the mount: /' "$prefix/new"
    exit 1
fi
target/release/simfs check 101
