#!/usr/bin/env bash
# Runs fuzz targets one after the other, each for a while, on one CPU; ends with an error at the first input that fails.
# usage: fuzz.sh SECONDS [TARGET...]   without targets all of fuzz/fuzz_targets
#
# What is found is kept: fuzz/corpus/TARGET (inputs that reach something new), fuzz/artifacts/TARGET (inputs that fail).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)
command -v c++ >/dev/null || die "needs a C++ compiler for libFuzzer (apt-get install g++)"

# The coverage instrumentation that libFuzzer steers by: rustc has it under its stable options.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target named, build scripts and macros go without it.
RUSTFLAGS=$flags cargo build --release --manifest-path fuzz/Cargo.toml --target "$host"

for target in "${targets[@]}"; do
    program=$PWD/fuzz/target/$host/release/$target
    [ -x "$program" ] || die "no fuzz target '$target'"
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    say "$target: $seconds s"
    SIMFS_FUZZ_SEEDS=$PWD/fuzz/corpus/$target as_root nice -n 19 "$program" "fuzz/corpus/$target" \
        -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
