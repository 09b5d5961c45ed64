//! Who may not, where nothing may be written, and what is not there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::{self, Lab, MPTM, Node, Outcome};
use crate::snapshot::{Machine, Pinned, poke_meta};

/// The binary where everybody can reach it.
fn copy(lab: &Lab) -> PathBuf {
    let path = lab.path("mptm");
    fs::copy(MPTM, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// mptm as nobody, in the node's network namespace already.
fn as_nobody(lab: &Lab, node: &Node, arguments: &str) -> Outcome {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", node.netns));
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(lab.path("mptm")).arg("-c").arg(&node.file).arg("--pin").arg(&node.pin);
    Outcome::of(command.args(arguments.split_whitespace()))
}

#[test]
fn no_root() {
    lab::run("rights: no root", |lab| {
        let node = &lab.a;
        copy(lab);
        let before = Machine::look(lab);
        node.write(&node.plain_file());
        as_nobody(lab, node, "check").done();
        let rights = "hint: run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN";
        as_nobody(lab, node, "apply").refused(&["no rights to apply: CAP_NET_ADMIN is missing", rights]);
        as_nobody(lab, node, "down").refused(&["no rights to take anything down", rights]);
        let netns = node.netns.as_str();
        as_nobody(lab, node, &format!("-n {netns} apply")).refused(&[
            &format!("cannot enter network namespace {netns}: Operation not permitted"),
            "hint: this needs root, or CAP_SYS_ADMIN",
        ]);
        Machine::look(lab).must_be(&before);

        node.apply(&node.plain_file());
        let (machine, pinned) = (Machine::look(lab), Pinned::look(&node.pin));
        for command in ["status", "dump", "get 10.250.1.1 10.250.1.2", "apply --dry-run", "down --dry-run"] {
            let pins =
                format!("cannot look into the pin directory {}: Permission denied", node.pin.display());
            as_nobody(lab, node, command).refused(&[&pins, rights]);
        }
        as_nobody(lab, node, "apply").refused(&["no rights to apply", rights]);
        Pinned::look(&node.pin).must_be(&pinned);
        Machine::look(lab).must_be(&machine);
    });
}

#[test]
fn pins_of_another_version() {
    lab::run("rights: another version", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        poke_meta(&node.pin, 0, 99);
        let (machine, pinned) = (Machine::look(lab), Pinned::look(&node.pin));
        for command in ["apply", "apply --dry-run", "down", "status", "dump", "get 10.250.1.1 10.250.1.2"] {
            node.mptm(command).refused(&[
                &format!(
                    "the pins in {} were made by a newer mptm (layout 99, this one has ",
                    node.pin.display()
                ),
                "hint: use that one, or run its `mptm down` first, or choose another directory with --pin",
            ]);
        }
        Pinned::look(&node.pin).must_be(&pinned);
        Machine::look(lab).must_be(&machine);
    });
}

#[test]
fn pins_of_others() {
    lab::run("rights: pins of others", |lab| {
        let node = &lab.a;
        fs::create_dir_all(node.pin.join("theirs")).unwrap();
        node.write(&node.plain_file());
        let before = Machine::look(lab);
        for command in ["apply", "apply --dry-run", "down", "status"] {
            node.mptm(command).refused(&[
                &format!("{} holds something else than mptm's pins", node.pin.display()),
                "hint: choose another directory with --pin",
            ]);
        }
        assert!(node.pin.join("theirs").exists());
        Machine::look(lab).must_be(&before);
        // An empty one is as good as none.
        fs::remove_dir(node.pin.join("theirs")).unwrap();
        node.apply(&node.plain_file());
    });
}

#[test]
fn pins_of_another_namespace() {
    lab::run("rights: another namespace", |lab| {
        let (a, b) = (&lab.a, &lab.b);
        a.apply(&a.plain_file());
        b.write(&b.plain_file());
        let (machine, pinned) = (Machine::look(lab), Pinned::look(&a.pin));
        for command in ["apply", "apply --dry-run", "down", "status", "dump"] {
            let mut command_line = Command::new(MPTM);
            command_line.arg("-c").arg(&b.file).arg("--pin").arg(&a.pin).args(["-n", &b.netns]);
            Outcome::of(command_line.args(command.split(' '))).refused(&[
                &format!("the pins in {} are those of another network namespace", a.pin.display()),
                "hint: a namespace has its own pin directory",
            ]);
        }
        Pinned::look(&a.pin).must_be(&pinned);
        Machine::look(lab).must_be(&machine);
    });
}

#[test]
fn no_bpffs() {
    lab::run("rights: no bpffs", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let before = Machine::look(lab);
        let apply = |pin: &str| {
            let mut command = Command::new(MPTM);
            Outcome::of(command.arg("-c").arg(&node.file).args(["-n", &node.netns, "--pin", pin, "apply"]))
        };
        let elsewhere = lab.path("pins");
        apply(&elsewhere.display().to_string()).refused(&[
            &format!(
                "cannot make the pin directory {}: {} is on no bpffs",
                elsewhere.display(),
                elsewhere.parent().unwrap().display()
            ),
            "hint: choose one below /sys/fs/bpf",
            "nothing is changed",
        ]);
        assert!(!elsewhere.exists());
        apply("/proc/mptm").refused(&["cannot make the pin directory /proc/mptm: /proc is on no bpffs"]);
        apply("/sys/fs/bpf/not/there").refused(&[
            "cannot make the pin directory /sys/fs/bpf/not/there: there is no directory /sys/fs/bpf/not",
            "hint: make it: mkdir -p /sys/fs/bpf/not",
        ]);
        Machine::look(lab).must_be(&before);

        let script = format!(
            "mount -t bpf bpf /mnt; mount -o remount,ro /mnt; {MPTM} -c {} -n {} --pin /mnt/mptm apply",
            node.file.display(),
            node.netns
        );
        let mut command = Command::new("unshare");
        Outcome::of(command.args(["-m", "--propagation", "private", "sh", "-c", &script])).refused(&[
            "cannot make the pin directory /mnt/mptm%new/maps: Read-only file system",
            "hint: mount -o remount,rw",
            "nothing is changed",
        ]);
        Machine::look(lab).must_be(&before);
    });
}
