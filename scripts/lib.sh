# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() { say "$0: $*"; exit 1; }

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -E "$@"
    else
        die "needs root for: $* (run as root, or install sudo)"
    fi
}

# Unmounts, detaches and ends everything below DIR, then removes it: the net below tests that were killed.
# Only what names DIR is touched.
sweep() {
    local dir=$1 target cmdline pid
    [ -n "$dir" ] && [ -d "$dir" ] || return 0
    while read -r target; do
        as_root umount -l -- "$target" 2>/dev/null || true
    done < <(awk -v d="$dir/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac)
    for cmdline in /proc/[0-9]*/cmdline; do
        pid=${cmdline#/proc/}
        pid=${pid%/cmdline}
        [ "$pid" -ne "$$" ] || continue
        if tr '\0' ' ' 2>/dev/null <"$cmdline" | grep -qF -- "$dir/"; then
            as_root kill -9 "$pid" 2>/dev/null || true
        fi
    done
    losetup -l -n -O NAME,BACK-FILE 2>/dev/null | while read -r target cmdline; do
        case "$cmdline" in
            "$dir"/*) as_root losetup -d "$target" || true ;;
        esac
    done
    as_root rm -rf --one-file-system -- "$dir"
}
