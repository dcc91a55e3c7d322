#!/usr/bin/env bash
# A container with a quota, in six steps. Each command is shown before it runs, and what it shows is checked: the
# script ends with an error when anything is not as said. Everything lies below a temporary prefix that is removed.
#
# DEMO_CACHE: where the Debian root directory is kept between runs (default /var/cache/simfs-demo).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

ve=101
cache=${DEMO_CACHE:-/var/cache/simfs-demo}
suite=bookworm

# DEMO_STAGE: the script runs itself again as root, and in a mount namespace where crun can work.
case "${DEMO_STAGE:-build}" in
    build)
        say "building the programs"
        cargo build --release --locked
        command -v sudo >/dev/null || [ "$(id -u)" -eq 0 ] || die "mounting needs root: run as root, or install sudo"
        export DEMO_STAGE=root
        as_root "$PWD/scripts/demo.sh" "$@"
        exit
        ;;
    root)
        export DEMO_STAGE=run
        if [ -d /sys/fs/cgroup/unified ]; then
            say "cgroup versions 1 and 2 are mounted side by side, which crun refuses: the demo gets version 2 alone,"
            say "in a mount namespace of its own"
            # shellcheck disable=SC2016  # expanded by the inner shell
            exec unshare --mount --propagation slave sh -c \
                'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' sh "$PWD/scripts/demo.sh" "$@"
        fi
        ;;
esac

PATH=$PWD/target/release:$PATH
prefix=$(mktemp -d /var/tmp/simfs-demo.XXXXXX)
chmod 755 "$prefix"
export SIMFS_PREFIX=$prefix LC_ALL=C
private=$prefix/vz/private/$ve
root=$prefix/vz/root/$ve
bundle=$prefix/bundle
container=simfs-demo-$$
crun=(crun --root "$prefix/crun" --cgroup-manager=disabled)

cleanup() {
    local status=$?
    set +e
    "${crun[@]}" delete --force "$container" >/dev/null 2>&1
    simfs umount "$ve" >/dev/null 2>&1
    sweep "$prefix"
    [ "$status" -eq 0 ] || say "demo: FAILED (exit $status)"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- how things are shown and checked

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
explain() { printf '   %s\n' "$@"; }

# Shows a command line (temporary paths shortened), then runs it.
run() {
    local line="$*"
    printf '\033[36m$ %s\033[0m\n' "${line//"$prefix"/\$PREFIX}"
    "$@"
}

# Runs a shell command in the container, as its root.
inside() {
    printf '\033[33m[VE %s]# %s\033[0m\n' "$ve" "$1"
    "${crun[@]}" exec "$container" /bin/sh -c "$1"
}

# check WHAT COMMAND...: the command must succeed.
check() {
    local what=$1
    shift
    "$@" || die "not as said: $what"
    printf '\033[32m   ok: %s\033[0m\n' "$what"
}

# refused COMMAND: the shell command must fail in the container with "Disk quota exceeded".
refused() {
    local output
    if output=$(inside "$1" 2>&1); then
        printf '%s\n' "$output"
        die "not refused: $1"
    fi
    printf '%s\n' "$output"
    check "refused with 'Disk quota exceeded'" grep -q 'Disk quota exceeded' <<<"$output"
}

figure() { vzquota stat "$ve" --json | jq -r "$1"; }

# Usage as charged equals what du and find count. Closed files reach the daemon a moment later.
equals_du() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        if [ "$(figure .used.space)" -eq "$(($(du -s --block-size=512 "$private" | cut -f1) * 512))" ] &&
            [ "$(figure .used.inodes)" -eq "$(du -s --inodes "$private" | cut -f1)" ]; then
            return 0
        fi
        [ "$try" -eq 10 ] || sleep 0.3
    done
    return 1
}

# --- the steps

step "1. The programs are built and in place"
run simfs --version
run vzquota --version

step "2. A minimal Debian becomes the private area of VE $ve"
if [ ! -d "$cache/$suite" ]; then
    explain "debootstrap runs once; later runs copy from $cache"
    mkdir -p "$cache"
    rm -rf "$cache/making"
    run debootstrap --variant=minbase "$suite" "$cache/making" >"$cache/log" 2>&1 ||
        { tail -n 5 "$cache/log" >&2; die "debootstrap failed, see $cache/log"; }
    chmod 755 "$cache/making"
    mv "$cache/making" "$cache/$suite"
fi
mkdir -p "$private" "$root"
run cp -a --reflink=auto "$cache/$suite/." "$private"
explain "a plain directory of the host: $(du -sh "$private" | cut -f1), $(du -s --inodes "$private" | cut -f1) inodes"

step "3. A quota record, 1 GiB soft and 1.1 GiB hard, and the mount"
run vzquota init "$ve" -p "$private" -b 1G -B 1.1G -i 40000 -I 44000 -e 7d -n 7d
run simfs mount "$ve"
run grep "$root" /proc/mounts
explain "init counted the tree once; from now on every change is counted as it happens"
check "usage is what du counts" equals_du

step "4. A container on it, by an unchanged crun: df shows the VE's limits"
mkdir -p "$bundle"
jq -n --arg root "$root" '
    ["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_SETUID","CAP_SETGID"] as $caps |
    { ociVersion: "1.0.2",
      hostname: "ve101",
      root: { path: $root, readonly: false },
      process: { user: { uid: 0, gid: 0 }, cwd: "/", args: ["/bin/sleep", "infinity"],
                 env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"],
                 capabilities: { bounding: $caps, effective: $caps, permitted: $caps } },
      mounts: [ { destination: "/proc", type: "proc", source: "proc" },
                { destination: "/dev", type: "tmpfs", source: "tmpfs",
                  options: ["nosuid", "strictatime", "mode=755", "size=65536k"] } ],
      linux: { namespaces: [ {type:"pid"}, {type:"mount"}, {type:"ipc"}, {type:"uts"} ] } }' \
    >"$bundle/config.json"
run "${crun[@]}" run --detach --bundle "$bundle" "$container" </dev/null >"$prefix/console" 2>&1
inside 'df -h /; df -i /'
check "the size that df shows is the soft limit, 1 GiB" \
    [ "$(inside 'df --output=size -B1 /' | tail -n1 | tr -d ' ')" = 1073741824 ]
check "and 40000 inodes" [ "$(inside 'df --output=itotal /' | tail -n1 | tr -d ' ')" = 40000 ]

step "5. Limits are met, and moved while the container runs"
explain "something real first: a copy of the container's own /usr, by tar"
inside 'mkdir /srv/copy && tar -C / -cf - usr | tar -C /srv/copy -xf - && du -sh /srv/copy'
check "usage is still what du counts" equals_du

explain "then a file that grows until the limit"
refused 'dd if=/dev/zero of=/root/big bs=1M'
check "usage has not passed the hard limit" [ "$(figure .used.space)" -le "$(figure .limits.space.hard)" ]
explain "a second shell, on the host, raises the limit; nothing is remounted, nothing restarted"
refused 'dd if=/dev/zero of=/root/next bs=1M count=1'
run vzquota setlimit "$ve" -b 2G -B 2G
inside 'dd if=/dev/zero of=/root/next bs=1M count=1 2>&1 | tail -n1'
inside 'df -h /'
check "the very next write succeeded" [ "$(inside 'stat -c %s /root/next' | tail -n1)" = 1048576 ]

explain "the same with inodes"
inodes=$(figure .used.inodes)
run vzquota setlimit "$ve" -i "$((inodes + 10))" -I "$((inodes + 10))"
# shellcheck disable=SC2016  # expanded by the shell in the container
refused 'mkdir /root/many && for n in $(seq 20); do : > /root/many/$n || exit 1; done'
run vzquota setlimit "$ve" -i 50000 -I 50000
# shellcheck disable=SC2016
inside 'for n in $(seq 20); do : > /root/many/$n || exit 1; done; ls /root/many | wc -l'

explain "a limit below usage deletes nothing; nothing can be added until usage is below it"
run vzquota setlimit "$ve" -b 500M -B 500M
inside 'ls -l /root/big; df -h /'
refused '/bin/echo more > /root/more'
inside 'rm -rf /root/big /root/next /srv/copy; echo more > /root/more && cat /root/more'
explain "room again: deleting was enough"

step "6. The figures agree, and are kept"
run vzquota stat "$ve"
run simfs status "$ve"
run simfs check "$ve"
check "charged equals counted by du" equals_du
run "${crun[@]}" delete --force "$container"
equals_du || die "usage differs from du after the container ended"
before=$(figure '[.used, .limits, .peak, .refused, .deadlines, .grace_periods]')
run simfs umount "$ve"
check "nothing is mounted" [ "$(grep -cF "$root" /proc/mounts || true)" -eq 0 ]
run simfs check "$ve"
run simfs mount "$ve"
run vzquota stat "$ve"
check "usage, limits, peaks and refusals are what they were" \
    [ "$(figure '[.used, .limits, .peak, .refused, .deadlines, .grace_periods]')" = "$before" ]
run simfs umount "$ve"

step "Done: everything was as said; $prefix is removed"
