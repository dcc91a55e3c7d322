#!/usr/bin/env bash
# Installs programs, links, manual pages, completion, units and samples, or removes exactly these.
# usage: install.sh install|uninstall PREFIX
#
# DESTDIR: where a package is being made; stands before every path. BIN_DIR: where the programs were built
# (default target/release). SYSCONFDIR: default /etc, where the programs look.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

usage='usage: install.sh install|uninstall PREFIX'
action=${1:?$usage}
prefix=${2:?$usage}
prefix=${prefix%/}
case "$prefix" in
    /*) ;;
    *) die "PREFIX '$prefix': give an absolute path" ;;
esac
destdir=${DESTDIR:-}
bin=${BIN_DIR:-target/release}
sysconf=${SYSCONFDIR:-/etc}
sbin=$prefix/sbin
programs=(simfs vzquota vzctl vzlist vzpkg)

# Everything that is installed, one a line: how it is made, from what, where.
files() {
    local program name
    for program in "${programs[@]}"; do
        echo "program $bin/$program $sbin/$program"
        echo "page $program.8:$program $prefix/share/man/man8/$program.8"
        echo "bash $program $prefix/share/bash-completion/completions/$program"
        echo "zsh $program $prefix/share/zsh/site-functions/_$program"
        echo "fish $program $prefix/share/fish/vendor_completions.d/$program.fish"
    done
    echo "program packaging/vz-boot $sbin/vz-boot"
    for name in mount.simfs mount.fuse.simfs; do
        echo "link simfs $sbin/$name"
    done
    for name in vzpkgls vzpkgcache vzyum; do
        echo "link vzpkg $sbin/$name"
        echo "alias man8/vzpkg.8 $prefix/share/man/man8/$name.8"
    done
    echo "page mount.simfs.8:simfs $prefix/share/man/man8/mount.simfs.8"
    echo "page vz.conf.5:vzctl $prefix/share/man/man5/vz.conf.5"
    echo "alias man5/vz.conf.5 $prefix/share/man/man5/ctid.conf.5"
    for name in vz.service simfs@.service; do
        echo "unit packaging/systemd/$name $prefix/lib/systemd/system/$name"
    done
    echo "data packaging/examples/vz.conf-sample $sysconf/vz/vz.conf-sample"
    echo "data packaging/examples/ve-basic.conf-sample $sysconf/vz/conf/ve-basic.conf-sample"
    # mount(8) looks for helpers in /sbin only.
    if [ "$prefix" != /usr ] && [ -n "$prefix" ]; then
        echo "link $sbin/simfs /sbin/mount.simfs"
    fi
}

# Runs a command, as root only where the directory needs it.
in_dir() {
    local dir=$1
    shift
    while [ ! -e "$dir" ]; do dir=$(dirname "$dir"); done
    if [ -w "$dir" ]; then "$@"; else as_root "$@"; fi
}

# What a file of a kind holds.
content() {
    local kind=$1 source=$2
    case "$kind" in
        program | data) cat "$source" ;;
        page) "$bin/${source#*:}" --generate "${source%:*}" ;;
        alias) echo ".so $source" ;;
        unit) sed "s|/usr/local/sbin|$sbin|g" "$source" ;;
        bash) echo "source <(SIMFS_COMPLETE=bash $source)" ;;
        fish) echo "SIMFS_COMPLETE=fish $source | source" ;;
        zsh)
            printf '#compdef %s\nsource <(SIMFS_COMPLETE=zsh %s)\n' "$source" "$source"
            # shellcheck disable=SC2016  # expanded by zsh
            printf '[ "$funcstack[1]" != _%s ] || _clap_dynamic_completer_%s "$@"\n' "$source" "$source"
            ;;
    esac
}

put() {
    local kind=$1 source=$2 target=$destdir$3 dir mode=644
    dir=$(dirname "$target")
    in_dir "$dir" mkdir -p "$dir"
    if [ "$kind" = link ]; then
        # What somebody else has put there stays.
        if [ -e "$target" ] && [ ! -L "$target" ]; then die "$target exists and is no link: move it away first"; fi
        in_dir "$dir" ln -sfn "$source" "$target"
        return
    fi
    [ "$kind" != program ] || mode=755
    content "$kind" "$source" >"$work/file"
    # A copy beside it and a rename: a running daemon keeps the file it was started from.
    in_dir "$dir" install -m "$mode" "$work/file" "$target.new"
    in_dir "$dir" mv -f "$target.new" "$target"
}

# Removes a file; a link of another's making stays.
take_away() {
    local kind=$1 source=$2 target=$destdir$3
    if [ "$kind" = link ] && [ "$(readlink "$target" 2>/dev/null)" != "$source" ]; then return; fi
    [ -e "$target" ] || [ -L "$target" ] || return 0
    in_dir "$(dirname "$target")" rm -f "$target"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files >"$work/list"
case "$action" in
    install)
        for program in "${programs[@]}"; do
            [ -x "$bin/$program" ] || die "$bin/$program is missing: make build"
        done
        while read -r kind source target; do put "$kind" "$source" "$target"; done <"$work/list"
        say "installed $(wc -l <"$work/list") files below $destdir$prefix and in $destdir$sysconf/vz"
        ;;
    uninstall)
        while read -r kind source target; do take_away "$kind" "$source" "$target"; done <"$work/list"
        for dir in "$destdir$sysconf/vz/conf" "$destdir$sysconf/vz"; do
            [ ! -d "$dir" ] || in_dir "$dir" rmdir --ignore-fail-on-non-empty "$dir"
        done
        say "removed; VEs, their configuration and their quota records are untouched"
        ;;
    *) die "unknown action '$action'. $usage" ;;
esac
