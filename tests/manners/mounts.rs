//! The bpffs that mptm mounts when there is none, in a mount namespace of the test's own.

use std::process::{Command, Output};

use crate::lab::{self, MPTM, Node};

/// What is mounted on /sys/fs/bpf: the source.
const SOURCE: &str = "awk '$2 == \"/sys/fs/bpf\" { print $1 }' /proc/self/mounts";

/// mptm for a node, to be written into a script.
fn mptm(node: &Node, pin: &str) -> String {
    format!("env MPTM_PIN=/sys/fs/bpf/{pin} {MPTM} -c {} -n {}", node.file.display(), node.netns)
}

/// A shell script without any bpffs, where `$m` is mptm for the node.
fn shell(node: &Node, script: &str) -> Output {
    let m = mptm(node, "mptm");
    let script = format!("while umount -l /sys/fs/bpf 2>/dev/null; do :; done\nm='{m}'\n{script}");
    Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-ec", &script]).output().unwrap()
}

/// What it prints; it must work.
fn output_of(node: &Node, script: &str) -> String {
    let output = shell(node, script);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_is_mounted_and_unmounted() {
    lab::run("mounts: mounted and unmounted", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let script = format!(
            "grep -v netns /proc/self/mounts > {before}\n\
             $m apply --dry-run > /dev/null; grep -v netns /proc/self/mounts | diff - {before}\n\
             $m apply > /dev/null\n{SOURCE}; stat -c %a /sys/fs/bpf; $m apply; {SOURCE}\n\
             $m down > /dev/null\ngrep -v netns /proc/self/mounts | diff - {before}\necho done",
            before = lab.path("mounts").display()
        );
        assert_eq!(output_of(node, &script), "mptm\n1700\nmptm\ndone\n");
    });
}

#[test]
fn it_stays_while_others_use_it() {
    lab::run("mounts: others use it", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let pinned = "$m apply > /dev/null; mkdir /sys/fs/bpf/theirs; $m down > /dev/null; ls /sys/fs/bpf";
        assert!(output_of(node, &format!("{pinned}\n{SOURCE}")).ends_with("theirs\nmptm\n"));
        let inside = "$m apply > /dev/null; cd /sys/fs/bpf; $m down > /dev/null";
        assert_eq!(output_of(node, &format!("{inside}\n{SOURCE}")), "mptm\n");
        let another = "$m --pin /sys/fs/bpf/other apply > /dev/null; $m down 2>&1; $m --pin /sys/fs/bpf/other status > /dev/null";
        assert_eq!(output_of(node, &format!("{another}\n{SOURCE}")), "Nothing to do.\nmptm\n");
    });
}

#[test]
fn a_mount_of_others_stays() {
    lab::run("mounts: of others", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let script =
            format!("mount -t bpf theirs /sys/fs/bpf; $m apply > /dev/null; $m down > /dev/null\n{SOURCE}");
        assert_eq!(output_of(node, &script), "theirs\n");
        // Even above one of mptm's.
        let script = format!(
            "mount -t bpf mptm /sys/fs/bpf; mount -t bpf theirs /sys/fs/bpf; $m apply > /dev/null; $m down > /dev/null\n{SOURCE}"
        );
        assert_eq!(output_of(node, &script), "mptm\ntheirs\n");
    });
}

/// The kernel will not make the maps, here for want of file descriptors: the mount goes again.
#[test]
fn a_failure_unmounts() {
    lab::run("mounts: after a failure", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let failed = shell(node, &format!("prlimit --nofile=16 $m apply || echo $?\n{SOURCE}"));
        let stderr = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(String::from_utf8_lossy(&failed.stdout), "1\n", "{stderr}");
        for part in ["cannot load the BPF programs: Too many open files", "nothing is changed", "ulimit -n"] {
            assert!(stderr.contains(part), "{stderr}");
        }

        // A step after it fails: there is no such mode for a veth.
        node.write(&node.plain_file().replace("\"workload\"", "\"workload\"\nmode = \"offload\""));
        let failed = shell(node, &format!("$m apply || echo $?\n{SOURCE}"));
        let stderr = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(String::from_utf8_lossy(&failed.stdout), "1\n", "{stderr}");
        assert!(stderr.contains("cannot attach mptm_encap to w in offload mode"), "{stderr}");
    });
}

/// Two nodes share the mount, whichever comes or goes first: neither makes pins below a mount that the other is just
/// taking away, nor under one that the other is just making.
#[test]
fn two_nodes_at_once() {
    lab::run("mounts: two nodes at once", |lab| {
        let (a, b) = (&lab.a, &lab.b);
        a.write(&a.plain_file());
        b.write(&b.plain_file());
        // The pauses differ, so that all moments of the one meet all of the other. A `down` leaves the mount when it
        // finds the other node looking into it: so the last one is alone.
        let script = format!(
            "rounds() {{ pause=$1; shift\nfor round in $(seq 20); do\n\
             $* apply > /dev/null; $* down > /dev/null; sleep $pause\ndone; }}\n\
             rounds 0 $m & a=$!\n\
             rounds 0.02 {} & b=$!\n\
             wait $a\nwait $b\n$m down\n{SOURCE}",
            mptm(b, "other")
        );
        assert_eq!(output_of(a, &script), "");
    });
}

/// Who can't have the lock mounts nothing, and unmounts nothing.
#[test]
fn nobody_waits_for_ever() {
    lab::run("mounts: locked", |lab| {
        let (a, b) = (&lab.a, &lab.b);
        a.write(&a.plain_file());
        b.write(&b.plain_file());
        // Another sysfs, so that no other test waits: a network namespace has its own.
        let script = format!(
            "nsenter --net=/run/netns/{} mount -t sysfs sysfs /sys\n$m apply > /dev/null\n\
             flock /sys/fs sh -c '$0 down > /dev/null & {} apply && exit 9; wait $!' \"$m\"\n{SOURCE}\n\
             $m down; {SOURCE}",
            a.netns,
            mptm(b, "other"),
        );
        let output = shell(a, &script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"mptm\n"[..]), "{stderr}");
        for part in
            ["another process has locked /sys/fs", "nothing is changed", "hint: try again when it is done"]
        {
            assert!(stderr.contains(part), "{stderr}");
        }
    });
}

/// Maps, the programs that threads load, pins: whichever of them there is no descriptor for, nothing stays.
#[test]
fn whatever_has_no_descriptor() {
    lab::run("mounts: few descriptors", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let mut failed = 0;
        for limit in (16..400).step_by(5) {
            let script = format!(
                "if prlimit --nofile={limit} $m apply > /dev/null; then $m down > /dev/null; echo done; fi\n{SOURCE}"
            );
            let output = shell(node, &script);
            let stderr = String::from_utf8_lossy(&output.stderr);
            match &*String::from_utf8_lossy(&output.stdout) {
                "done\n" => break,
                "" => {
                    assert!(stderr.contains("error: ") && !stderr.contains("panicked"), "{limit}: {stderr}")
                }
                other => panic!("{limit}: {other}{stderr}"),
            }
            failed += 1;
        }
        assert!((10..70).contains(&failed), "{failed} failed");
    });
}
