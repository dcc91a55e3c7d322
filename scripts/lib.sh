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

# Process ids whose command line names something below DIR.
processes_below() {
    local cmdline pid
    for cmdline in /proc/[0-9]*/cmdline; do
        pid=${cmdline#/proc/}
        pid=${pid%/cmdline}
        if [ "$pid" -eq "$$" ] || [ "$pid" -eq "$BASHPID" ]; then continue; fi
        if tr '\0' ' ' 2>/dev/null <"$cmdline" | grep -qF -- "$1/"; then
            echo "$pid"
        fi
    done 2>/dev/null
}

# Ends, unmounts and detaches everything below DIR, then removes it: the net below tests that were killed.
# Only what names DIR is touched. Mounts of another namespace go with its last process, a moment after the kill, so
# everything is tried a few times.
sweep() {
    local dir=$1 target file pid try
    for try in 1 2 3 4 5 6 7 8; do
        [ -n "$dir" ] && [ -d "$dir" ] || return 0
        [ "$try" -eq 1 ] || sleep 0.5
        while read -r target; do
            as_root umount -l -- "$target" 2>/dev/null || true
        done < <(awk -v d="$dir/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac)
        for pid in $(processes_below "$dir"); do
            as_root kill -9 "$pid" 2>/dev/null || true
        done
        while read -r target file; do
            case "$file" in
                "$dir"/*) as_root losetup -d "$target" 2>/dev/null || true ;;
            esac
        done < <(losetup -l -n -O NAME,BACK-FILE 2>/dev/null)
        as_root rm -rf --one-file-system -- "$dir" 2>/dev/null || true
    done
    [ ! -d "$dir" ] || say "cannot remove $dir"
}
