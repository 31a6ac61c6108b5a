# shellcheck shell=bash
# Shared by the bench scripts: build, start and stop servers, measure, and put figures in tables.
# Source it first; it changes to the top of the repository and sets `out` and `pushline`.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=target/bench
# PUSHLINE: another binary than the one these scripts build.
pushline=${PUSHLINE:-target/release/pushline}
started=()
# Words before the program that is started or measured.
with=()

# Ends what this script started, and nothing else.
stop_started() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    started=()
}
trap stop_started EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$*" >&2; }
skip() { printf '\nSKIPPED: %s\n' "$*" | tee -a "$out/skipped.txt" >&2; }

# A million sockets need every descriptor the hard limit allows.
ulimit -n "$(ulimit -Hn)"
mkdir -p "$out"

build() { if [ -z "${PUSHLINE:-}" ]; then cargo build --release --quiet; fi; }

# build_loops: `loops_server` is the program of the other event loops; LOOPS names one built before.
build_loops() {
    loops_server=${LOOPS:-}
    if [ -n "$loops_server" ]; then return; fi
    say "building benches/rivals"
    loops_server=$(cargo bench --target-dir target/benches --no-run --bench rivals 2>&1 |
        sed -n 's/.*Executable .*(\(.*\))$/\1/p')
    [ -x "$loops_server" ] || { echo "benches/rivals does not build" >&2; exit 1; }
}

# Waits until something listens on 127.0.0.1:$1.
await_port() {
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "nothing listens on port $1; see the logs in $out" >&2
    exit 1
}

# start NAME PORT COMMAND...: runs a server in the background; its pid is in `server_pid`.
start() {
    local name=$1 port=$2
    shift 2
    "${with[@]}" "$@" >"$out/$name.log" 2>&1 &
    server_pid=$!
    started+=("$server_pid")
    await_port "$port"
}

# start_pushline WORKERS [OPTION...]: our server on port 18080, its admin listener on 18081.
start_pushline() {
    local workers=$1
    shift
    start pushline 18081 "$pushline" --listen 127.0.0.1:18080 --admin 127.0.0.1:18081 \
        --workers "$workers" "$@"
    await_port 18080
}

# own_certificate: what is in `with_tls` makes the server speak TLS on port 18443, with a certificate
# that it signed itself.
own_certificate() {
    local files=$out/certificate
    rm -rf "$files"
    "$pushline" tls self-signed "$files" >/dev/null
    with_tls=(--listen-tls 127.0.0.1:18443 --tls-cert "$files/cert.pem" --tls-key "$files/key.pem")
}

# Workers for $1 connections: a worker's ring holds as many sockets as there are descriptors,
# and the kernel spreads connections over the listeners with a little unevenness.
workers_for() {
    local room=$(($(ulimit -n) * 926 / 1000)) cores
    cores=$(nproc)
    local workers=$((($1 + room - 1) / room))
    echo $((workers > cores ? workers : cores))
}

# measure NAME OPTION...: one run of the load generator; figures go to $out/NAME.{json,svg,txt}.
measure() {
    local name=$1
    shift
    say "$name"
    "${with[@]}" "$pushline" bench --json "$out/$name.json" --plot "$out/$name.svg" "$@" |
        tee "$out/$name.txt"
}

# on_core CORE FUNCTION...: what the function starts or measures has only this core.
on_core() {
    local with=(taskset -c "$1")
    shift
    "$@"
}

# round_trips NAME OPTION...: one run of scripts/lib/round-trips; figures go to $out/NAME.json.
round_trips() {
    local name=$1
    shift
    say "$name"
    scripts/lib/round-trips --json "$out/$name.json" --server-pid "$server_pid" "$@"
}

# figure NAME KEY [DECIMALS]: one number of a run, `-` if it was not measured.
figure() {
    local value
    value=$(sed -n "s/^ *\"$2\": \([^,]*\),\{0,1\}$/\1/p" "$out/$1.json" | head -n 1)
    case ${value:-null} in
        null) echo - ;;
        *) printf '%.*f' "${3:-0}" "$value" ;;
    esac
}

# median: of the numbers on standard input.
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# middle FILE: the median of its numbers, `-` if there are none.
middle() { if [ -s "$1" ]; then median <"$1"; else echo -; fi; }

# Microseconds of CPU that the server's threads have used.
cpu_us() { cat /proc/"$server_pid"/task/*/schedstat | awk '{ sum += $1 } END { print sum / 1000 }'; }

# The machine, for the head of a report.
machine() {
    echo "$(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)," \
        "Linux $(uname -r), $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo);" \
        "server and clients on this machine, over loopback"
}

# Head and row of the table of held connections and fan-outs.
run_head() {
    echo "| run | held | CPU/connect us | RSS/conn B | system/conn B | idle CPU % |" \
        "deliveries | lost | dup | order | CPU/delivery us | deliveries/s | p50 us | p99 us |"
    echo "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
}

# run_row NAME [warm]: memory per connection says nothing for a server that has held some before.
run_row() {
    local n=$1 rss system
    rss=$(figure "$n" server_rss_bytes_per_connection)
    system=$(figure "$n" system_bytes_per_connection)
    if [ "${2:-}" = warm ]; then rss='-' system='-'; fi
    echo "| $n | $(figure "$n" held) | $(figure "$n" server_cpu_us_per_connect 2)" \
        "| $rss | $system | $(figure "$n" server_idle_cpu_percent 2)" \
        "| $(figure "$n" deliveries) | $(figure "$n" lost) | $(figure "$n" duplicated)" \
        "| $(figure "$n" out_of_order) | $(figure "$n" server_cpu_us_per_delivery 3)" \
        "| $(figure "$n" deliveries_per_s) | $(figure "$n" p50_us) | $(figure "$n" p99_us) |"
}
