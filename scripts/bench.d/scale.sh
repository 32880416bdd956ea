#!/usr/bin/env bash
# The server with 1 thousand, 100 thousand and 1 million customers, each with a key and a counter: how long a start
# takes, how fast `track` and the envelope are once every customer was met, and what stays in memory. Run by
# `scripts/bench --scale`.
#
# TRACKTAGS_SCALE_FOLDER keeps the databases for the next run: a million customers take some minutes to make.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/bench.d/servers.sh
source scripts/bench.d/servers.sh

server=$1 seconds=$2
rounds=3 settling=6
populate=$target/release/populate
folder=${TRACKTAGS_SCALE_FOLDER:-$work}
sizes=${TRACKTAGS_SCALE_SIZES:-1000 100000 1000000}
# Identities and limits kept in memory where memory is measured: the same for all sizes and full with each of the two
# that are compared, so that only counters make a difference.
cache_entries=50000
slope_max_bytes=200
start_max_ms=3000
throughput_min=0.8

resident_kib() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
millis() { date +%s%3N; }
median() { tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | sed -n "$(((rounds + 1) / 2))p"; }

make() { # make CUSTOMERS: their database, unless it is there
  local at=$folder/$1
  [ ! -e "$at/made" ] || return 0
  rm -rf "$at"
  mkdir -p "$at"
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$at/master"
  "$populate" --database "sqlite:$at/tracktags.db" --master-key "$(cat "$at/master")" --customers "$1" \
    --keys "$at/keys" >"$at/business"
  touch "$at/made"
}

serve() { # serve NAME CUSTOMERS SETTING...: a server on a copy of that database; its first answer in $started ms
  local name=$1 at=$folder/$2 began
  shift 2
  rm -rf "${work:?}/$name"
  mkdir "$work/$name"
  cp "$at/tracktags.db" "$work/$name/"
  sync "$work/$name/tracktags.db"
  began=$(millis)
  start "$name" env -C "$work/$name" TRACKTAGS__SERVER__BIND=127.0.0.1:0 TRACKTAGS__SERVER__ADMIN_KEY="$admin_key" \
    TRACKTAGS__SECRETS__MASTER_KEY="$(cat "$at/master")" TRACKTAGS__STORE__URL=sqlite:tracktags.db \
    TRACKTAGS__PROXY__TARGET_POLICY=open TRACKTAGS__PROXY__TARGET_CALLS_MAX=1024 TRACKTAGS__LOG__LEVEL=warn "$@" "$server"
  pid=${pids[-1]}
  curl --silent --fail --output /dev/null -H "Authorization: Bearer $(cat "$at/business")" \
    -H 'Content-Type: application/json' --data '{"customer_id":"customer_0","metric_name":"api_calls"}' \
    "$(url "$name")/api/v1/track"
  started=$(($(millis) - began))
}

# load NAME KIND CUSTOMERS SECONDS: into $rate, $p50 and $p99 (ms), $errors
load() {
  local calls micros p50_micros p99_micros refused broken
  read -r calls micros p50_micros p99_micros refused broken < <(
    wrk --threads 2 --connections 64 --duration "$4s" --timeout 10s --script scripts/bench.d/wrk.lua "$(url "$1")" -- \
      "$2" "$folder/$3/keys" "$(url direct)/target" "$folder/$3/business" fresh | sed -n 's/^RESULT //p'
  )
  rate=$((calls * 1000000 / micros)) errors=$((refused + broken))
  p50=$(awk "BEGIN { printf \"%.3f\", $p50_micros / 1000 }") p99=$(awk "BEGIN { printf \"%.3f\", $p99_micros / 1000 }")
}

failed=0
judge() { # judge CONDITION TEXT
  if awk "BEGIN { exit !($1) }"; then echo "$2: reached"; else echo "$2: MISSED" && failed=1; fi
}

for customers in $sizes; do make "$customers"; done
start direct "$target/bench-peers/release/upstream"

# Beside each other, so that all meet the same machine; each figure is the median of its rounds.
declare -A faults process start_ms memory rates p50s p99s
for customers in $sizes; do
  serve "whole$customers" "$customers"
  process[$customers]=$pid start_ms[$customers]=$started faults[$customers]=0
  for kind in track envelope; do
    # Each customer is met once before anything is measured; the envelope reads each one's key.
    load "whole$customers" "$kind" "$customers" $((5 + customers / 8000))
    faults[$customers]=$((faults[$customers] + errors))
  done
done
for kind in track envelope; do
  for ((round = 0; round < rounds; round++)); do
    for customers in $sizes; do
      # Until folds go on as they do under load; once it is over they end before the next one's.
      load "whole$customers" "$kind" "$customers" "$settling"
      load "whole$customers" "$kind" "$customers" "$seconds"
      sleep "$settling"
      rates[$kind$customers]+="$rate " p50s[$kind$customers]+="$p50 " p99s[$kind$customers]+="$p99 "
      faults[$customers]=$((faults[$customers] + errors))
    done
  done
done

echo "| customers | start ms | track/s | p50 ms | p99 ms | envelope/s | p50 ms | p99 ms | errors | resident MiB | with full caches of $cache_entries MiB |"
echo "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
for customers in $sizes; do
  row="| $customers | ${start_ms[$customers]}"
  for kind in track envelope; do
    row+=" | $(median "${rates[$kind$customers]}") | $(median "${p50s[$kind$customers]}") | $(median "${p99s[$kind$customers]}")"
  done
  row+=" | ${faults[$customers]} | $(($(resident_kib "${process[$customers]}") / 1024))"
  kill "${process[$customers]}" && wait "${process[$customers]}" || true
  serve bounded "$customers" TRACKTAGS__STORE__CACHE_ENTRIES_MAX=$cache_entries
  load bounded track "$customers" $((5 + customers / 8000))
  memory[$customers]=$(resident_kib "$pid")
  kill "$pid" && wait "$pid" || true
  echo "$row | $((memory[$customers] / 1024)) |"
  cat "$work/whole$customers.err" "$work/bounded.err" >&2
done
last=${sizes##* }
echo
judge "${start_ms[$last]} <= $start_max_ms" "a start with $last customers, ${start_ms[$last]} ms (at most $start_max_ms)"
for kind in track envelope; do
  few=$(median "${rates[$kind${sizes%% *}]}") many=$(median "${rates[$kind$last]}")
  judge "$many >= $throughput_min * $few" \
    "$kind with $last customers, $(awk "BEGIN { printf \"%.2f\", $many / $few }") of that with ${sizes%% *} (at least $throughput_min)"
done
if [ -n "${memory[100000]:-}" ] && [ "$last" -gt 100000 ]; then
  slope=$(((memory[$last] - memory[100000]) * 1024 / (last - 100000)))
  judge "$slope <= $slope_max_bytes" "$slope bytes resident for each further counter (at most $slope_max_bytes)"
fi
exit "$failed"
