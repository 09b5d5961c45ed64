#!/usr/bin/env bash
# Runs a command, as root, in an emulated machine with Debian's newest kernel, or that in MPTM_KERNEL: tests/vm.sh COMMAND...
# For tests of what the kernel of this machine does not allow: tests/vm.sh target/debug/deps/manners-... dispatcher::
# The machine sees all files of this one, and what it writes is gone when the command ends. It has no network. The exit
# code is the command's. tests/prepare.sh test gets the emulator and the kernel; MPTM_VM_SECONDS limits the time.
set -euo pipefail

kernel=${MPTM_KERNEL:-/var/cache/mptm-tests/kernel}
for needed in qemu-system-x86_64 busybox cpio modprobe; do
    if ! command -v "$needed" >/dev/null; then
        echo "SKIPPED (there is no $needed: tests/prepare.sh test): $*" >&2
        exit 77
    fi
done
image=$(find "$kernel" -name 'vmlinuz*' 2>/dev/null | head -n 1)
modules=$(find "$kernel" -type d -path '*/lib/modules/*' -prune 2>/dev/null | head -n 1)
if [ -z "$image" ] || [ -z "$modules" ]; then
    echo "SKIPPED (there is no kernel in $kernel: tests/prepare.sh test): $*" >&2
    exit 77
fi
version=$(basename "$modules")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/initramfs
mkdir -p "$root"/{bin,modules,proc,sys,dev,host,over,new}
cp "$(command -v busybox)" "$root/bin/busybox"

# The modules that the root file system needs, in the order of their dependencies.
number=100
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "${modules%/lib/modules/*}" -S "$version" --show-depends "$module" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    number=$((number + 1))
    target=$root/modules/$number-$(basename "${file%.xz}")
    case $file in
    *.xz) xz -dc "$file" >"$target" ;;
    *) cp "$file" "$target" ;;
    esac
done

cat >"$root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod "$module"; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host
$b mount -t tmpfs tmpfs /over
$b mkdir /over/upper /over/work
$b mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /new
$b mount --move /dev /new/dev
$b mount -t proc proc /new/proc
$b mount -t sysfs sysfs /new/sys
$b mount -t tmpfs tmpfs /new/run
$b cp /command /new/run/command
exec $b switch_root /new /bin/bash /run/command
INIT
chmod +x "$root/init"
cat >"$root/command" <<COMMAND
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mkdir -p /run/netns /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t bpf bpf /sys/fs/bpf
ln -sfn /proc/self/fd /dev/fd
mkdir -p /lib/modules/$version
mount --bind $(printf %q "$modules") /lib/modules/$version
ip link set lo up
stty -F /dev/ttyS0 -onlcr
cd $(printf %q "$PWD")
$(export -p | grep -E ' (MPTM_|RUST_BACKTRACE)' || true)
$(printf '%q ' "$@") </dev/null 2>&1
echo "vm.sh: exit \$?"
echo o >/proc/sysrq-trigger
sleep 10
COMMAND
(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$work/initramfs.gz"

# One thread runs both CPUs: with several, the emulator can miss code that the kernel patches while it runs.
timeout "${MPTM_VM_SECONDS:-1200}" qemu-system-x86_64 -accel tcg,thread=single -cpu max -smp 2 -m 3072 -nographic \
    -no-reboot -nic none -kernel "$image" -initrd "$work/initramfs.gz" \
    -append 'console=ttyS0 quiet loglevel=3 mitigations=off panic=-1' \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null |
    tee "$work/output" || true
code=$(sed -n 's/^vm.sh: exit \([0-9]*\).*/\1/p' "$work/output" | tail -n 1)
exit "${code:-124}"
