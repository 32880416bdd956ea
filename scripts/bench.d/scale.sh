#!/usr/bin/env bash
# The server with 1 thousand, 100 thousand and 1 million customers, each with a key and a counter: how long a start
# takes, how fast `track` is once every counter was used, and what stays in memory. Run by `scripts/bench --scale`.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/bench.d/servers.sh
source scripts/bench.d/servers.sh

server=$1 seconds=$2
populate=$target/release/populate
master_key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
# Identities and limits kept in memory: the same for all, so that only counters make a difference.
cache_entries=${TRACKTAGS_SCALE_CACHE:-50000}

resident_kib() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
millis() { date +%s%3N; }

track_load() { # track_load NAME SECONDS: calls, microseconds, p50 and p99 in microseconds, refusals, socket errors
  wrk --threads 2 --connections 64 --duration "$2s" --timeout 10s --script scripts/bench.d/wrk.lua "$(url "$1")" -- \
    track "$work/$1.keys" unused "$work/$1.business" | sed -n 's/^RESULT //p'
}

echo "| customers | start ms | track/s | p50 ms | p99 ms | errors | resident MiB |"
echo "|---:|---:|---:|---:|---:|---:|---:|"
for customers in 1000 100000 1000000; do
  name=scale-$customers
  mkdir "$work/$name"
  "$populate" --database "sqlite:$work/$name/tracktags.db" --master-key "$master_key" --customers "$customers" \
    --keys "$work/$name.keys" >"$work/$name.business"
  began=$(millis)
  start "$name" env -C "$work/$name" TRACKTAGS__SERVER__BIND=127.0.0.1:0 TRACKTAGS__SERVER__ADMIN_KEY="$admin_key" \
    TRACKTAGS__SECRETS__MASTER_KEY="$master_key" TRACKTAGS__STORE__URL=sqlite:tracktags.db \
    TRACKTAGS__STORE__CACHE_ENTRIES_MAX="$cache_entries" TRACKTAGS__LOG__LEVEL=warn "$server"
  pid=${pids[-1]}
  curl --silent --fail --output /dev/null -H "Authorization: Bearer $(cat "$work/$name.business")" \
    -H 'Content-Type: application/json' --data '{"customer_id":"customer_0","metric_name":"api_calls"}' \
    "$(url "$name")/api/v1/track"
  started=$(($(millis) - began))
  # Every counter is read from its row once, before anything is measured.
  track_load "$name" $((seconds + customers / 20000)) >/dev/null
  read -r calls micros p50 p99 refused broken < <(track_load "$name" "$seconds")
  awk -v customers="$customers" -v started="$started" -v calls="$calls" -v micros="$micros" -v p50="$p50" \
    -v p99="$p99" -v errors=$((refused + broken)) -v kib="$(resident_kib "$pid")" 'BEGIN {
      printf "| %d | %d | %.0f | %.3f | %.3f | %d | %.1f |\n",
        customers, started, calls * 1e6 / micros, p50 / 1000, p99 / 1000, errors, kib / 1024 }'
  cat "$work/$name.err" >&2
  cleanup
  rm -rf "${work:?}/$name" "$work/$name.keys"
done
