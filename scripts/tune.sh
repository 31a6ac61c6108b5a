#!/usr/bin/env bash
# Kernel settings for a stated number of connections: calls `pushline tune`, which has the
# arithmetic. tuning/README.md has the reasons.
#
#   scripts/tune.sh check|apply|revert [--connections N] [--state FILE]
set -euo pipefail

target=$(dirname "$0")/../target
for pushline in "${PUSHLINE:-}" "$(command -v pushline || true)" "$target/release/pushline" \
    "$target/debug/pushline"; do
    if [ -x "$pushline" ]; then
        exec "$pushline" tune "$@"
    fi
done
echo "tune.sh: no pushline to call: cargo build --release, or name one in PUSHLINE" >&2
exit 1
