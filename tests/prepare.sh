#!/usr/bin/env bash
# Installs what mptm is built with, on Debian and Ubuntu, as root or through sudo: tests/prepare.sh [build|test]
#   build  the compilers and headers, and what examples/two-nodes needs (the default)
#   test   that, the independent peers and decoders of the tests, a small Debian whose systemd is booted, a kernel to
#          emulate, and a newer xdp-tools
# What is there already is not installed again, so a second run needs no network.
set -euo pipefail

RUST_NEEDED=1.88

build=(build-essential ca-certificates clang curl iperf3 iproute2 iputils-ping libelf-dev pkg-config zlib1g-dev)
# python3-scapy is for /usr/bin/python3, whatever python3 comes first in PATH.
test=(bpftool busybox-static clang-format cpio debian-archive-keyring debootstrap ethtool kmod openvswitch-switch procps
    python3-scapy qemu-system-x86 tcpdump tshark util-linux xdp-tools xz-utils)

packages=("${build[@]}")
[ "${1:-build}" = test ] && packages+=("${test[@]}")

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

# Ubuntu has no package bpftool: there it is in linux-tools-common, with its program in linux-tools-generic.
available() {
    installed "$1" || apt-cache show --no-all-versions "$1" >/dev/null 2>&1
}

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "this is no Debian or Ubuntu: install these by hand: ${missing[*]}" >&2
        exit 1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    wanted=()
    for package in "${missing[@]}"; do
        if [ "$package" = bpftool ] && ! available bpftool; then
            wanted+=(linux-tools-common linux-tools-generic)
        else
            wanted+=("$package")
        fi
    done
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${wanted[@]}"
fi

# What tests/systemd boots: nothing runs in it here. It has systemd 253 or later, whatever this machine has.
debian=${MPTM_DEBIAN:-/var/cache/mptm-tests/debian}
if [ "${1:-build}" = test ] && [ ! -x "$debian/usr/lib/systemd/systemd" ]; then
    as_root mkdir -p "$(dirname "$debian")"
    as_root rm -rf "$debian.new"
    if as_root debootstrap --variant=minbase --include=iproute2,libelf1t64,systemd,systemd-sysv,zlib1g \
        trixie "$debian.new" http://deb.debian.org/debian; then
        as_root mv "$debian.new" "$debian"
    else
        echo "no Debian in $debian: tests/systemd will be skipped" >&2
    fi
fi

# Unpacks packages of a release of Debian into a directory, and installs nothing: fetch DIRECTORY RELEASE PACKAGE...
# A package that is named with a * at its end stands for what it depends on and begins so.
fetch() {
    local directory=$1 release=$2 work apt package packages=()
    shift 2
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $release main" \
        >"$work/sources.list"
    apt=(-q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update || return
    for package in "$@"; do
        case $package in
        *\*) mapfile -t -O "${#packages[@]}" packages < <(apt-cache "${apt[@]}" depends --recurse --important \
            "${package%-*}/$release" | grep -E '^linux-(image|binary|modules)-[0-9]' | sort -u) ;;
        *) packages+=("$package/$release") ;;
        esac
    done
    (cd "$work" && apt-get "${apt[@]}" download "${packages[@]}") || return
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/new" || return
    done
    # Without it no module is found; some packages bring it along.
    for package in "$work"/new/usr/lib/modules/*; do
        [ ! -d "$package" ] || [ -e "$package/modules.dep" ] || depmod -b "$work/new/usr" "$(basename "$package")"
    done
    mkdir -p "$(dirname "$directory")"
    rm -rf "$directory"
    mv "$work/new" "$directory"
    rm -rf "$work"
}

if [ "${1:-}" = test ]; then
    # What tests/vm.sh boots, where this machine's own kernel does not allow what is to be tested: the newest, and an
    # older one, that many run.
    kernel=${MPTM_KERNEL:-/var/cache/mptm-tests/kernel}
    older=${MPTM_OLDER_KERNEL:-/var/cache/mptm-tests/kernel-6.12}
    for pair in "$kernel trixie-backports" "$older trixie"; do
        read -r directory release <<<"$pair"
        [ -e "$directory" ] || as_root bash -c "$(declare -f fetch); fetch \"\$@\"" fetch "$directory" "$release" 'linux-image-amd64-*' ||
            echo "no kernel in $directory: tests/vm.sh will be skipped" >&2
    done
    # Whose dispatchers are of another version than those of this machine's xdp-tools.
    tools=${MPTM_XDP_TOOLS:-/var/cache/mptm-tests/xdp-tools}
    [ -e "$tools" ] || as_root bash -c "$(declare -f fetch); fetch \"\$@\"" fetch "$tools" sid xdp-tools libxdp1 libbpf1 libc6 \
        libelf1t64 zlib1g libzstd1 libpcap0.8t64 || echo "no xdp-tools in $tools: tests with them will be skipped" >&2
fi

PATH=$PATH:$HOME/.cargo/bin
rust_is_new_enough() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$version" ] && [ "$(printf '%s\n' "$RUST_NEEDED" "$version" | sort -V | head -n 1)" = "$RUST_NEEDED" ]
}
if ! rust_is_new_enough; then
    echo "installing Rust $RUST_NEEDED or later with rustup, for this user"
    if ! command -v rustup >/dev/null; then
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
    fi
    rustup default stable
fi
