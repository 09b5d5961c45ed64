#!/usr/bin/env bash
# Starts a real systemd in namespaces of its own: tests/systemd/boot.sh ROOT ADDED, started by
#   unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child
# ROOT is a Debian as tests/prepare.sh makes it, which stays as it is; ADDED is a directory that is copied over it. All that
# is mounted here, and all that systemd and its services make, goes with the namespaces.
set -euo pipefail
root=$1
added=$2
mount --make-rprivate /

# The changes are in memory.
over=/mnt
mount -t tmpfs -o mode=0755 over "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay -o "lowerdir=$root,upperdir=$over/upper,workdir=$over/work" over "$over/root"
new=$over/root
# overlayfs does not tell inotify of a file that is renamed over.
mkdir "$over/etc"
mount -t tmpfs -o mode=0755 etc "$over/etc"
cp -a "$root/etc/." "$over/etc/"
mount --move "$over/etc" "$new/etc"
cp -a "$added/." "$new/"

mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
# Whatever the host has, v1 or v2: a v2 tree of this cgroup namespace, with no controllers if v1 has them.
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
mount -t bpf -o mode=0700 bpf "$new/sys/fs/bpf"
mount -t tmpfs -o mode=0755 run "$new/run"
mount -t tmpfs tmp "$new/tmp"
mount -t tmpfs -o mode=0755 dev "$new/dev"
for device in null zero full random urandom tty; do
    touch "$new/dev/$device"
    mount --bind "/dev/$device" "$new/dev/$device"
done
ln -s /proc/self/fd "$new/dev/fd"
mkdir -p "$new/dev/shm" "$new/dev/pts" "$new/old"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$new/dev/pts"
ln -s pts/ptmx "$new/dev/ptmx"
# systemd makes what it is the root of shared.
cd "$new"
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=mptm-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /sbin/init --log-target=journal --show-status=false </dev/null >/dev/null 2>&1
