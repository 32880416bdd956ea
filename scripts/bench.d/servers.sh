# Sourced by scripts/bench and scripts/dist: servers in the background, on loopback, in a folder of their own.
# Sets $work; the servers end, and $work is removed, when the script does.

target=${CARGO_TARGET_DIR:-$PWD/target}
helper=scripts/bench.d/bench.py
work=$(mktemp -d)
pids=()
cleanup() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}
trap 'cleanup; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() { # start NAME COMMAND...: in the background; its address, as it prints it, in $work/NAME.url
  local name=$1 waited
  shift
  : >"$work/$name.out"
  "$@" >>"$work/$name.out" 2>"$work/$name.err" &
  pids+=("$!")
  for ((waited = 0; waited < 300; waited++)); do
    if sed -n 's|^listening on \(http://[0-9.:]*\).*|\1|p' "$work/$name.out" | head -n 1 | grep . >"$work/$name.url"; then
      return
    fi
    kill -0 "$!" 2>/dev/null || break
    sleep 0.1
  done
  echo "$0: $name did not start:" >&2
  cat "$work/$name.out" "$work/$name.err" >&2
  exit 1
}

url() { cat "$work/$1.url"; }

admin_key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

start_ours() { # start_ours BINARY DURABILITY CUSTOMERS: our server, with a key for each customer in $work/DURABILITY.keys
  local binary=$1 durability=$2 customers=$3
  mkdir "$work/$durability"
  # One target takes all the load here, so it gets more places than a target has by default.
  start "$durability" env -C "$work/$durability" \
    TRACKTAGS__SERVER__BIND=127.0.0.1:0 TRACKTAGS__SERVER__ADMIN_KEY="$admin_key" \
    TRACKTAGS__STORE__URL=sqlite:tracktags.db TRACKTAGS__STORE__DURABILITY="$durability" \
    TRACKTAGS__PROXY__TARGET_POLICY=open TRACKTAGS__PROXY__TARGET_CALLS_MAX=1024 TRACKTAGS__LOG__LEVEL=warn \
    "$binary"
  python3 "$helper" prepare "$(url "$durability")" "$admin_key" "$customers" "$work/$durability.keys" "$work/$durability.business"
}
