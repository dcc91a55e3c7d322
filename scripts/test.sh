#!/usr/bin/env bash
# Runs the stages of a mode, all of them even when one fails, and closes with a count of tests.
# usage: test.sh quick|full|lint
#
# A skipped test is reported by its harness in $SIMFS_SKIP_LOG; with SIMFS_STRICT=1 it fails instead.
# One or two tests of a stage that failed are run once more, alone: what then passes is named as unstable in the closing
# lines, with what it printed above; with SIMFS_STRICT=1 it has failed. More than two are never tried again.
# End-to-end tests run in mount and process namespaces of their own: whatever they leave ends with them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

mode=${1:?usage: test.sh quick|full|lint}
work=$(mktemp -d /var/tmp/simfs-test.XXXXXX)
trap 'sweep "$work"' EXIT
trap 'exit 130' INT TERM
export SIMFS_SKIP_LOG=$work/skips SIMFS_TEST_DIR=$work/ve
mkdir "$SIMFS_TEST_DIR"
chmod 755 "$work"
: >"$SIMFS_SKIP_LOG"
log=$work/log
: >"$log"
failed_stages=()
unstable=()
repeated=0
counted_failures=0

# Runs one stage within its time; its output is shown and kept for the count.
stage() {
    local name=$1 limit=$2 failed before after
    shift 2
    printf '\n== %s\n' "$name"
    before=$(count failed)
    failed=0
    timeout --kill-after=20 "$limit" "$@" 2>&1 | tee -a "$log" || failed=$?
    [ "$failed" -ne 0 ] || return 0
    [ "$failed" -ne 124 ] || say "$name: stopped after $limit"
    failed_stages+=("$name")
    after=$(count failed)
    # A stage that fails without a failed test (a lint, a build, a time-out) counts as one failure.
    [ "$after" -gt "$before" ] || counted_failures=$((counted_failures + 1))
}

# Sums one column of cargo test's closing lines.
count() {
    awk -v what="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" what) n += $(i - 1) } END { print n + 0 }' "$log"
}

# The names of the tests that cargo's harness listed as failed from this line of the log on.
failed_tests() {
    tail -n "+$1" "$log" | awk '
        /^failures:$/ { listed = 1; next }
        listed && /^    [a-z_:0-9]+$/ { print $1; next }
        { listed = 0 }'
}

# As `stage`, for a command that runs cargo's harness and takes its options at the end.
stage_twice() {
    local name=$1 stages=${#failed_stages[@]} begin before again
    begin=$(($(wc -l <"$log") + 1))
    before=$(count failed)
    stage "$@"
    [ "${#failed_stages[@]}" -gt "$stages" ] && [ "${SIMFS_STRICT:-0}" != 1 ] || return 0
    mapfile -t again < <(failed_tests "$begin")
    # Other numbers: what was stopped, did not build, or has no name to call it by.
    [ "${#again[@]}" -ge 1 ] && [ "${#again[@]}" -le 2 ] || return 0
    [ "${#again[@]}" -eq $(($(count failed) - before)) ] || return 0
    # What the second run says counts in place of the first.
    unset "failed_stages[$stages]"
    repeated=$((repeated + ${#again[@]}))
    shift 2
    stage "$name: ${again[*]} once more" 10m "$@" --exact "${again[@]}"
    [ "${#failed_stages[@]}" -gt "$stages" ] || unstable+=("${again[@]}")
}

# The end-to-end binary as built by cargo, on its way to the log.
build_e2e() {
    cargo test -q -p simfs-tests --test e2e --no-run --message-format=json |
        jq -r 'select(.executable != null and .target.name == "e2e") | .executable' >"$work/e2e"
    [ -s "$work/e2e" ]
}

# The shell in front is the first process there: it takes in orphans.
e2e() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    as_root unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
        sh -c '"$@"; exit $?' sh "$(cat "$work/e2e")" "$@"
}
# `timeout` starts programs, not functions.
export work
export -f e2e as_root say die

lints() {
    stage 'format' 5m cargo fmt --all --check
    stage 'format of the fuzz targets' 5m cargo fmt --manifest-path fuzz/Cargo.toml --check
    stage 'clippy' 15m cargo clippy --workspace --all-targets --locked -- -D warnings
    # What is there in debug builds only must not be needed.
    stage 'programs as they are released' 10m cargo check --release --locked --bins -p simfs-tools -p simfs-bench
    stage 'documentation' 10m env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
    if command -v shellcheck >/dev/null; then
        stage 'scripts' 1m shellcheck -x -P SCRIPTDIR .ci/run scripts/*.sh packaging/vz-boot
    fi
    if cargo deny --version >/dev/null 2>&1; then
        stage 'licences' 5m cargo deny check licenses bans sources
    fi
}

# Unit and integration tests of every package but the end-to-end one; root is needed by some.
packages() {
    local host runner
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    runner=()
    if [ "$(id -u)" -ne 0 ]; then
        runner=("CARGO_TARGET_${host}_RUNNER=sudo -E")
    fi
    stage_twice 'unit and integration tests' 15m \
        env "${runner[@]}" cargo test --workspace --exclude simfs-tests --locked --no-fail-fast --
}

quick_skips=(--skip storm:: --skip container:: --skip recipes:: --skip install:: --skip grace:: --skip second_level::grace
    --skip differential --skip hundred_thousand)

# What does not depend on how data travels.
without_passthrough_skips=(
    "${quick_skips[@]}" --skip quotactl:: --skip runtime:: --skip crash::
    --skip layering:: --skip semantics_doc::
)

case "$mode" in
    lint) lints ;;
    quick)
        packages
        stage 'build of the end-to-end tests' 10m bash -c "$(declare -f build_e2e); build_e2e"
        stage_twice 'end to end, fast' 8m bash -c 'e2e "$@"' e2e "${quick_skips[@]}"
        ;;
    full)
        lints
        packages
        stage 'build of the end-to-end tests' 10m bash -c "$(declare -f build_e2e); build_e2e"
        stage_twice 'end to end' 15m bash -c 'e2e "$@"' e2e
        # Kernels before 6.9 have no passthrough.
        stage_twice 'end to end, without passthrough' 8m env SIMFS_TEST_OPTIONS=passthrough=off \
            bash -c 'e2e "$@"' e2e "${without_passthrough_skips[@]}"
        ;;
    *) die "unknown mode '$mode': quick, full or lint" ;;
esac

skipped=$(wc -l <"$SIMFS_SKIP_LOG")
printf '\n'
sed 's/^/skipped: /' "$SIMFS_SKIP_LOG"
[ "${#failed_stages[@]}" -eq 0 ] || printf 'failed stage: %s\n' "${failed_stages[@]}"
[ "${#unstable[@]}" -eq 0 ] || printf 'unstable, failed once and passed once: %s\n' "${unstable[@]}"
failed=$(($(count failed) - repeated + counted_failures))
printf '%d passed, %d failed, %d skipped\n' \
    "$(($(count passed) - skipped))" "$failed" "$(($(count ignored) + skipped))"
[ "$failed" -eq 0 ] && [ "${#failed_stages[@]}" -eq 0 ]
