#!/bin/bash
# What is better at a container's end of its veth: GRO, or the program mptm_pass? Either lets it take what XDP redirects.
#
#   tests/bench-peer.sh [ROUNDS [SECONDS]]      (5 rounds of 2 seconds per measurement, if left out)
#
# Two nodes and two containers are made as namespaces, joined by a GENEVE tunnel of mptm's. In each round both ways are
# measured one after the other, since this machine's load changes with time: TCP at MTU 1500 of the underlay, and
# received UDP packets that are 64 bytes long on an Ethernet. Prints a table; everything is removed at the end.
# Needs root, iproute2, ethtool, iperf3 and python3. MPTM names the binary; target/debug/mptm, if not set.
set -euo pipefail

rounds=${1:-5}
seconds=${2:-2}
mptm=${MPTM:-$(dirname "$0")/../target/debug/mptm}
name=mptmb-$$
pin=/sys/fs/bpf/$name
directory=$(mktemp -d)
server=

clean() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
    for namespace in node1 node2 c1 c2; do
        rm -rf "$pin-$namespace"
        ip netns del "$name-$namespace" 2>/dev/null || true
    done
    rm -rf "$directory"
}
trap clean EXIT

apply() { # NAMESPACE FILE
    "$mptm" -n "$name-$1" --pin "$pin-$1" -c "$2" apply >/dev/null 2>"$directory/said" || {
        cat "$directory/said" >&2
        return 1
    }
}

container() { # N: on node N
    ip -n "$name-node$1" link add c0 type veth peer name eth0 netns "$name-c$1"
    ip -n "$name-node$1" link set c0 up
    ip -n "$name-c$1" addr add "10.250.1.$1/24" dev eth0
    ip -n "$name-c$1" link set eth0 up
}

for namespace in node1 node2 c1 c2; do
    ip netns add "$name-$namespace"
    ip -n "$name-$namespace" link set lo up
done
ip -n "$name-node1" link add u0 type veth peer name u0 netns "$name-node2"
for node in 1 2; do
    ip -n "$name-node$node" addr add "10.30.30.$node/24" dev u0
    ip -n "$name-node$node" link set u0 up
    container $node
    other=$((3 - node))
    cat >"$directory/node$node.toml" <<EOF
[interface.u0]
role = "underlay"
[interface.c0]
role = "workload"
addresses = ["10.250.1.$node"]
peer = { netns = "$name-c$node", name = "eth0" }
[tunnel.other]
protocol = "geneve"
id = 42
remote = "10.30.30.$other"
inner = ["10.250.1.$other"]
EOF
    printf '[interface.eth0]\nrole = "pass"\npeer = false\n' >"$directory/pass.toml"
done
for node in 1 2; do
    apply node$node "$directory/node$node.toml"
done

gro() {
    for container in c1 c2; do
        rm -rf "$pin-$container"
        ip netns exec "$name-$container" ethtool -K eth0 gro on >/dev/null
    done
}

pass() {
    for container in c1 c2; do
        apply $container "$directory/pass.toml"
        ip netns exec "$name-$container" ethtool -K eth0 gro off >/dev/null
    done
}

# Prints bits per second of TCP, or received packets per second of UDP.
measure() { # tcp | udp
    local options=()
    if [ "$1" = udp ]; then options=(-u -b 0 -l 18); fi
    ip netns exec "$name-c2" timeout $((seconds + 15)) iperf3 -s -1 >/dev/null 2>&1 &
    server=$!
    for _ in $(seq 100); do
        [ -z "$(ip netns exec "$name-c2" ss -Hltn sport = 5201)" ] || break
        sleep 0.05
    done
    ip netns exec "$name-c1" timeout $((seconds + 15)) \
        iperf3 -J -c 10.250.1.2 -t "$seconds" "${options[@]}" >"$directory/result" || {
        cat "$directory/result" >&2
        return 1
    }
    wait "$server" || true
    server=
    python3 - "$1" "$directory/result" <<'EOF'
import json, sys
end = json.load(open(sys.argv[2]))["end"]
if sys.argv[1] == "tcp":
    print(round(end["sum_received"]["bits_per_second"]))
else:
    total = end["sum"]
    print(round((total["packets"] - total["lost_packets"]) / total["seconds"]))
EOF
}

for round in $(seq "$rounds"); do
    for way in gro pass; do
        $way
        for kind in tcp udp; do
            echo "$round $way $kind $(measure $kind)" | tee -a "$directory/table" >&2
        done
    done
done

python3 - "$directory/table" <<'EOF'
import statistics, sys

values = {}
for line in open(sys.argv[1]):
    round, way, kind, value = line.split()
    values.setdefault((kind, int(round)), {})[way] = float(value)
for kind, unit, scale in (("tcp", "Gbit/s", 1e9), ("udp", "kpps", 1e3)):
    print(f"\n{kind:5} {'GRO':>12} {'mptm_pass':>12}  pass/GRO   ({unit})")
    rounds = [(pair["gro"] / scale, pair["pass"] / scale) for (k, _), pair in sorted(values.items()) if k == kind]
    for number, (gro, other) in enumerate(rounds, 1):
        print(f"{number:<5} {gro:12.2f} {other:12.2f} {other / gro:9.2f}")
    gro, other = (statistics.median(column) for column in zip(*rounds))
    ratio = statistics.median(other / gro for gro, other in rounds)
    print(f"{'median':6} {gro:11.2f} {other:12.2f} {ratio:9.2f}")
EOF
