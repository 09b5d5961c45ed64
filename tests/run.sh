#!/usr/bin/env bash
# Runs every check and every test of mptm, on Debian and Ubuntu, as root or through sudo; installs what they need.
# tests/run.sh [quick]: quick leaves out the formatters, the linter, the benches and the examples.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/prepare.sh test
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
export RUST_BACKTRACE=1

if [ "${1:-}" != quick ]; then
    cargo fmt --check
    # Other versions lay out some lines in another way.
    if clang-format --version | grep -q 'version 14\.'; then
        clang-format --dry-run --Werror bpf/*.[ch]
    else
        echo "SKIPPED (needs clang-format 14, this is $(clang-format --version)): the layout of bpf/" >&2
    fi
    cargo clippy --locked --all-targets -- -D warnings
fi

# The kernel's side of the tests needs root; building does not.
if [ "$(id -u)" = 0 ]; then
    cargo test --locked
else
    cargo test --locked --config 'target."cfg(all())".runner = "sudo -E"'
fi

# Runs tests in an emulated machine, whose kernel is in a directory: emulated WHAT DIRECTORY SUITE TEST...
emulated() {
    local what=$1 kernel=$2 suite=$3 binary name code=0
    shift 3
    binary=$(cargo test --locked --test "$suite" --no-run --message-format json |
        sed -n "s/.*\"executable\":\"\([^\"]*\/deps\/$suite-[^\"]*\)\".*/\1/p")
    for name in "$@"; do
        if ! "$binary" --list "$name" | grep ': test$' >/dev/null; then
            echo "tests/run.sh: no test of tests/$suite is called $name" >&2
            exit 1
        fi
    done
    MPTM_KERNEL=$kernel MPTM_TRAFFIC=short tests/vm.sh "$binary" --test-threads 1 "$@" || code=$?
    # 77: it has said that it can't be. An emulated machine that hangs says nothing about mptm.
    case $code in
    0 | 77) ;;
    124) echo "SKIPPED (the emulated machine did not come to an end): $what" >&2 ;;
    *) exit "$code" ;;
    esac
}

# Whether this machine's kernel has no such device: lacks ARGUMENTS (of ip link add).
lacks() {
    local said
    said=$(unshare -n ip link add "$@" 2>&1 || true)
    [[ $said == *"Unknown device type"* ]]
}

if [ "${1:-}" != quick ] && [ "$(id -u)" = 0 ]; then
    # Dispatchers need a kernel that takes programs of type BPF_PROG_TYPE_EXT.
    if bpftool feature probe kernel | grep -q 'program_type ext is NOT'; then
        emulated "the dispatcher's tests" "${MPTM_KERNEL:-/var/cache/mptm-tests/kernel}" manners dispatcher::
    fi
    # Far ends that need tunnel devices of the kernel's which are not in this one.
    far=()
    ends=(local 192.0.2.1 remote 192.0.2.2)
    lacks link lo name x type vlan id 1 && far+=(matrix::vlan::Kernel matrix::qinq::Kernel workloads::tags)
    lacks name x type geneve id 1 remote 192.0.2.2 && far+=(matrix::geneve::Kernel matrix::geneve_ip::Kernel)
    lacks name x type gre "${ends[@]}" && far+=(matrix::gre::Kernel matrix::gre_all::Kernel)
    lacks name x type gretap "${ends[@]}" && far+=(matrix::gretap::Kernel matrix::gretap_all::Kernel)
    lacks name x type ipip "${ends[@]}" && far+=(matrix::ipip::Kernel)
    # One in any case: that the older kernel takes the programs.
    emulated "far ends of Linux 6.12" "${MPTM_OLDER_KERNEL:-/var/cache/mptm-tests/kernel-6.12}" real \
        "${far[@]:-matrix::geneve::Kernel}"
fi

# Benches in their short form: that they run, and count right. How long anything takes is never a failure.
if [ "${1:-}" != quick ]; then
    for bench in reconcile edit packets peers; do
        if [ "$(id -u)" = 0 ]; then
            MPTM_BENCH=short cargo bench --locked --bench "$bench"
        else
            cargo bench --locked --bench "$bench" --config 'target."cfg(all())".runner = "sudo MPTM_BENCH=short"'
        fi
    done
fi

if [ "${1:-}" != quick ]; then
    cargo build --locked
    MPTM=$(pwd)/target/debug/mptm
    export MPTM
    for arguments in "fou" "geneve" "gre --ipv6" "gretap" "gtpu --ipv6" "gue" "ipip --ipv6" "qinq" "vlan" "vxlan --ipv6"; do
        # shellcheck disable=SC2086
        if ! output=$(examples/two-nodes/run.sh --protocol $arguments 2>&1); then
            printf '%s\n' "$output"
            echo "examples/two-nodes/run.sh --protocol $arguments failed" >&2
            exit 1
        fi
        echo "examples/two-nodes/run.sh --protocol $arguments: ok"
    done
fi
