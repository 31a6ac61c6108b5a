#!/usr/bin/env bash
# Kernel settings for a stated number of connections: what they are, what they should be, and the
# way there and back. Values are those of `pushline doctor` (src/tools/doctor/settings.rs); a test
# compares the two. tuning/README.md has the reasons.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: scripts/tune.sh check|apply|revert|wanted [--connections N] [--state FILE] [--root DIR]

  check    current | wanted | verdict for each key; changes nothing; exit 1 if a key is too low
  apply    raises what is too low, keeps the old values for revert; never lowers anything
  revert   writes back exactly what apply found
  wanted   the values alone

  --connections N   how many connections the host is to hold (100000)
  --state FILE      where old values are kept (/var/lib/pushline/tune.state)
  --root DIR        look for proc and sys below DIR (for tests)

apply lasts until the next boot. To keep it: cp tuning/99-pushline.conf /etc/sysctl.d/
USAGE
}

main() {
    connections=100000
    state=/var/lib/pushline/tune.state
    root=
    local command=${1:-}
    [ $# -gt 0 ] && shift
    while [ $# -gt 0 ]; do
        [ $# -gt 1 ] || { usage >&2; exit 2; }
        case $1 in
            --connections) connections=$2 ;;
            --state) state=$2 ;;
            --root) root=$2 ;;
            *) usage >&2; exit 2 ;;
        esac
        shift 2
    done
    if ! [[ $connections =~ ^[1-9][0-9]{0,9}$ && $connections -le 1000000000 ]]; then
        echo "tune.sh: --connections takes a number from 1 to 1000000000" >&2
        exit 2
    fi
    case $command in
        check) check ;;
        apply) apply ;;
        revert) revert ;;
        wanted) wanted ;;
        -h | --help | help) usage ;;
        *) usage >&2; exit 2 ;;
    esac
}

# key and numbers, one key a line. The arithmetic of src/tools/doctor/settings.rs.
wanted() {
    local n=$connections per_sec queue
    per_sec=$(((n + 19) / 20))
    queue=$(power_of_two "$per_sec")
    [ "$queue" -ge 4096 ] || queue=4096
    cat <<WANTED
fs.nr_open 1048576
fs.file-max $((n + 65536))
net.core.somaxconn $queue
net.ipv4.tcp_syncookies 1
net.ipv4.tcp_mem $n $((n + n / 2)) $((n * 2))
net.core.netdev_max_backlog 8192
net.ipv4.tcp_max_orphans $((n / 4))
net.netfilter.nf_conntrack_max $((n * 2 + 65536))
net.ipv4.tcp_ehash_entries $(power_of_two "$n")
WANTED
}

check() {
    local key want low=0
    row key current wanted verdict
    while read -r key want; do
        judge "$key" "$want"
        row "$key" "$current" "$want" "$verdict"
        [ "$todo" = no ] || low=1
    done < <(wanted)
    hints
    return "$low"
}

apply() {
    local key want
    forget_earlier_boot
    row key before after verdict
    while read -r key want; do
        judge "$key" "$want"
        if [ "$todo" = write ]; then
            raise "$key" "$current" "$raised"
        else
            row "$key" "$current" - "$verdict"
        fi
    done < <(wanted)
    hints
}

# Keeps the old value first, so that whatever happens next can be undone. The first apply wins: a
# second one, of another size, must not take our own value for the host's.
raise() {
    local key=$1 old=$2 new=$3
    if ! grep -q "^$key " "$state" 2>/dev/null; then
        mkdir -p "$(dirname "$state")"
        [ -s "$state" ] || echo "boot $(boot_id)" >"$state"
        echo "$key $old" >>"$state"
    fi
    if ! put "$key" "$new"; then
        forget "$key"
        row "$key" "$old" - "read-only here: skipped"
    elif [ "$(value "$key")" != "$new" ]; then
        row "$key" "$old" "$(value "$key")" "kernel did not take $new"
    else
        row "$key" "$old" "$new" raised
    fi
}

revert() {
    local key old failed=0
    forget_earlier_boot
    if [ ! -s "$state" ]; then
        echo "nothing to revert: no $state"
        return 0
    fi
    row key before after verdict
    while read -r key old; do
        [ "$key" != boot ] || continue
        current=$(value "$key") || current=absent
        if put "$key" "$old" && [ "$(value "$key")" = "$old" ]; then
            row "$key" "$current" "$old" restored
            forget "$key"
        else
            row "$key" "$current" - "FAILED: should be $old"
            failed=1
        fi
    done < <(cat "$state")
    [ "$failed" = 1 ] || rm -f "$state"
    return "$failed"
}

# Sets current, verdict, raised (what to write) and todo (no, write or boot).
judge() {
    local key=$1 want=$2 i
    local -a have need
    todo=no
    raised=
    if ! current=$(value "$key"); then
        current=absent
        verdict="not in this kernel or namespace: skipped"
        return
    fi
    read -ra have <<<"$current"
    read -ra need <<<"$want"
    for i in "${!need[@]}"; do
        # Tables shared with the host are shown as negative numbers in a network namespace.
        [ "${have[i]#-}" -ge "${need[i]}" ] || todo='write'
        raised+="${raised:+ }$((${have[i]#-} > need[i] ? ${have[i]#-} : need[i]))"
    done
    verdict=ok
    if [ "$todo" = write ]; then
        verdict="too low"
        if [ "$key" = net.ipv4.tcp_ehash_entries ]; then
            todo=boot
            verdict="too low, set at boot: thash_entries=$want"
        fi
    fi
}

# State of an earlier boot describes values that are gone.
forget_earlier_boot() {
    [ -s "$state" ] || return 0
    if [ "$(head -n 1 "$state")" != "boot $(boot_id)" ]; then
        echo "$state is of an earlier boot, whose values are gone: dropped"
        rm -f "$state"
    fi
}

forget() {
    sed -i "/^$1 /d" "$state"
}

boot_id() {
    value kernel.random.boot_id || echo unknown
}

file() {
    echo "$root/proc/sys/${1//.//}"
}

# The value with single spaces, or failure where there is none.
value() {
    local text
    text=$(cat "$(file "$1")" 2>/dev/null) || return 1
    echo "${text//$'\t'/ }"
}

put() {
    (echo "$2" >"$(file "$1")") 2>/dev/null
}

power_of_two() {
    local power=1
    while [ "$power" -lt "$1" ]; do power=$((power * 2)); done
    echo "$power"
}

row() {
    printf '%-32s %-28s %-24s %s\n' "$@"
}

# What a script must not change blindly: where interrupts go and who spreads the packets.
hints() {
    local nic found=no hard
    hard=$(ulimit -Hn)
    printf '\nRLIMIT_NOFILE of this shell (hard): %s; each worker holds that many connections\n' \
        "$hard"
    for nic in "$root"/sys/class/net/*; do
        # Only what has hardware behind it: not lo, bridges, tunnels.
        [ -e "$nic/device" ] || continue
        found=yes
        nic_hints "$nic"
    done
    [ "$found" = yes ] || echo "No NIC here, loopback only: no interrupts to place, no RPS or RFS."
}

nic_hints() {
    local nic=$1 name queues cores flows irqs
    name=$(basename "$nic")
    queues=$(find "$nic/queues/" -maxdepth 1 -name 'rx-*' | wc -l)
    cores=$(nproc)
    irqs=$(nic_irqs "$nic" "$name")
    echo
    echo "NIC $name: $queues receive queue(s), $cores cores, interrupts: ${irqs:-none found}"
    if [ "$queues" -ge "$cores" ]; then
        echo "  A queue a core: stop irqbalance and give queue i to core i, where worker i runs:"
        echo "    echo <core> >/proc/irq/<irq>/smp_affinity_list"
        return
    fi
    flows=$(power_of_two "$connections")
    [ "$flows" -le 1048576 ] || flows=1048576
    echo "  Fewer queues than cores: first try  ethtool -L $name combined $cores"
    echo "  If the hardware has no more, spread in software (RPS), to the flow's worker (RFS):"
    echo "    echo $flows >/proc/sys/net/core/rps_sock_flow_entries"
    echo "    for q in /sys/class/net/$name/queues/rx-*; do"
    # shellcheck disable=SC2016  # $q is for whoever copies the line
    printf '      echo %s >$q/rps_cpus; echo %s >$q/rps_flow_cnt; done\n' \
        "$(core_mask "$cores")" "$((flows / queues))"
}

# Interrupts of the NIC's own or, for virtio, its parent's message-signalled vectors.
nic_irqs() {
    local nic=$1 name=$2 device vectors
    device=$(readlink -f "$nic/device")
    for vectors in "$device/msi_irqs" "$device/../msi_irqs"; do
        if [ -d "$vectors" ]; then
            find "$vectors" -type f -printf '%f\n' | sort -n | paste -sd ' '
            return
        fi
    done
    awk -v name="$name" '$NF ~ name { sub(":", "", $1); printf "%s ", $1 }' \
        "$root/proc/interrupts" 2>/dev/null || true
}

# Hexadecimal mask of the first cores, in the comma-separated words the kernel reads.
core_mask() {
    local cores=$1 words=
    while [ "$cores" -ge 32 ]; do
        words=",ffffffff$words"
        cores=$((cores - 32))
    done
    printf '%x%s\n' "$(((1 << cores) - 1))" "$words"
}

main "$@"
