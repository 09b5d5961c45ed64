#!/usr/bin/env bash
# Two nodes with a container each, all as network namespaces, and mptm between them:
#
#   examples/two-nodes/run.sh [--keep] [--protocol geneve] [--ipv6]
#   examples/two-nodes/run.sh --clean
#
# Installs what it needs, builds mptm, makes the nodes, applies node1.toml and node2.toml, sends pings and TCP from
# container to container, and removes everything; --keep lets it stand, --clean removes it then. Root or sudo.
# --protocol is any that mptm has; with --ipv6, the nodes reach each other over IPv6. The containers have both.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

protocols="fou geneve gre gretap gtpu gue ipip qinq vlan vxlan"
keep=no protocol=geneve clean=no ipv6=no
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=yes ;;
    --clean) clean=yes ;;
    --protocol)
        protocol=${2:?--protocol needs one of $protocols}
        shift
        ;;
    --ipv6) ipv6=yes ;;
    -h | --help)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "unknown argument $1: see $0 --help" >&2
        exit 1
        ;;
    esac
    shift
done
case " $protocols " in
*" $protocol "*) ;;
*)
    echo "unknown protocol $protocol: one of $protocols" >&2
    exit 1
    ;;
esac

# Building is the user's; the rest is root's.
if [ -z "${MPTM:-}" ]; then
    "$top/tests/prepare.sh" build
    PATH=$PATH:$HOME/.cargo/bin
    (cd "$top" && cargo build --release --locked)
    MPTM=$(cd "$top" && cargo metadata --format-version 1 --no-deps |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/mptm
    export MPTM
fi
if [ "$(id -u)" != 0 ]; then
    arguments=(--protocol "$protocol")
    [ $ipv6 = yes ] && arguments+=(--ipv6)
    [ $keep = yes ] && arguments+=(--keep)
    [ $clean = yes ] && arguments+=(--clean)
    exec sudo env MPTM="$MPTM" "$here/run.sh" "${arguments[@]}"
fi

PATH=$(dirname "$MPTM"):$PATH
files=/run/mptm-two-nodes
nodes="mptm-node1 mptm-node2"
containers="vns1 vns2"

say() {
    printf '\n### %s\n' "$*"
}

# What a person would type, shown and done.
run() {
    printf '\n# %s\n' "$*"
    "$@"
}

mptm_on() {
    local node=$1
    shift
    run mptm -n "mptm-$node" --pin "/sys/fs/bpf/mptm-$node" -c "$files/$node.toml" "$@"
}

remove() {
    local status=$?
    [ -f "$files/iperf3.pid" ] && kill "$(tr -d '\0' <"$files/iperf3.pid")" 2>/dev/null
    for node in node1 node2; do
        if [ -e "/run/netns/mptm-$node" ] && [ -e "/sys/fs/bpf/mptm-$node" ]; then
            mptm -n "mptm-$node" --pin "/sys/fs/bpf/mptm-$node" down >/dev/null 2>&1 ||
                echo "could not take down mptm on $node" >&2
        fi
    done
    for netns in $nodes $containers; do
        [ -e "/run/netns/$netns" ] && ip netns del "$netns"
    done
    rm -rf "$files"
    return $status
}

if [ $clean = yes ]; then
    remove
    echo "removed"
    exit 0
fi
for netns in $nodes $containers; do
    if [ -e "/run/netns/$netns" ]; then
        echo "there is a network namespace $netns already: $0 --clean removes what an earlier run left" >&2
        exit 1
    fi
done
trap remove EXIT
trap 'exit 130' INT TERM

say "Two nodes, one cable, and a container on each"
for netns in $nodes $containers; do
    ip netns add "$netns"
    ip -n "$netns" link set lo up
done
ip -n mptm-node1 link add ens4f0 type veth peer name ens4f0 netns mptm-node2
for n in 1 2; do
    ip -n mptm-node$n addr add 10.30.30.$n/24 dev ens4f0
    ip -n mptm-node$n addr add 2001:db8:30::$n/64 dev ens4f0 nodad
    ip -n mptm-node$n link set ens4f0 up
    ip -n mptm-node$n link add veth-node$n type veth peer name veth-ns$n netns vns$n
    ip -n mptm-node$n link set veth-node$n up
    ip -n vns$n addr add 10.250.1.$((99 + n))/24 dev veth-ns$n
    ip -n vns$n addr add fd00:250::$((99 + n))/64 dev veth-ns$n nodad
    ip -n vns$n link set veth-ns$n up
done
echo "vns1 10.250.1.100 -- node1 10.30.30.1 ==== 10.30.30.2 node2 -- 10.250.1.101 vns2"

mkdir -p "$files"
for node in node1 node2; do
    sed "s/\"geneve\"/\"$protocol\"/" "$here/$node.toml" >"$files/$node.toml"
    # What some protocols have not, and others must have.
    case $protocol in
    vlan | qinq) sed -i '/^remote /d' "$files/$node.toml" ;;
    fou | gue | ipip) sed -i '/^id /d' "$files/$node.toml" ;;
    esac
    case $protocol in
    qinq) sed -i 's/^id .*/&\nservice_id = 100/' "$files/$node.toml" ;;
    fou) sed -i 's/^protocol .*/&\ndst_port = 5555/' "$files/$node.toml" ;;
    esac
    if [ $ipv6 = yes ]; then sed -i 's/"10\.30\.30\.\([12]\)"/"2001:db8:30::\1"/' "$files/$node.toml"; fi
done
say "The file of node1"
cat "$files/node1.toml"

say "What apply would do on node1"
mptm_on node1 apply --dry-run

say "Apply on both nodes; then again on node1, for nothing"
mptm_on node1 apply >/dev/null
mptm_on node2 apply >/dev/null
mptm_on node1 apply

say "Container to container"
run ip netns exec vns1 ping -c 3 -i 0.2 10.250.1.101
run ip netns exec vns1 ping -c 3 -i 0.2 -s 1400 10.250.1.101
run ip netns exec vns1 ping -c 3 -i 0.2 fd00:250::101
ip netns exec vns2 iperf3 -s -1 -D -I "$files/iperf3.pid" >/dev/null
for _ in $(seq 50); do
    [ -n "$(ip netns exec vns2 ss -Hltn 'sport = :5201')" ] && break
    sleep 0.1
done
run ip netns exec vns1 iperf3 -c 10.250.1.101 -t 2

say "What node1 says of itself"
mptm_on node1 status
mptm_on node1 get 10.250.1.100 10.250.1.101

if [ $keep = yes ]; then
    trap - EXIT
    say "Everything stands. Look around:"
    cat <<MORE
  ip netns exec vns1 ping 10.250.1.101
  ip netns exec vns2 tcpdump -n -i veth-ns2     (XDP takes frames before tcpdump sees them on the nodes)
  $MPTM -n mptm-node1 --pin /sys/fs/bpf/mptm-node1 -c $files/node1.toml status
  edit $files/node1.toml, then the same with apply
and then:
  $0 --clean
MORE
else
    say "Removing everything"
fi
