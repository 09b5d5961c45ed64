//! Wrong files and command lines, a map that is full, and an apply that is cut short.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{self, Lab, MPTM, Outcome};
use crate::snapshot::{Machine, Pinned};
use crate::traffic::reaches;

#[test]
fn files_that_cannot_be_read() {
    lab::run("faults: unreadable files", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        let (machine, pinned) = (Machine::look(lab), Pinned::look(&node.pin));
        let file = node.file.display().to_string();
        let refused = |parts: &[&str]| {
            for command in ["check", "check --print", "apply", "apply --dry-run", "apply --json"] {
                node.mptm(command).refused(&[&[file.as_str()], parts].concat());
            }
            let status = node.mptm("status").done().stdout;
            assert!(
                status.contains(&format!("drift: unknown: {file} has 1 error: see `mptm -c {file} check`")),
                "{status}"
            );
        };
        fs::remove_file(&node.file).unwrap();
        refused(&["cannot read", "No such file or directory", "name the file with -c FILE or MPTM_CONFIG"]);
        fs::create_dir(&node.file).unwrap();
        refused(&["cannot read", "Is a directory", "name a file"]);
        fs::remove_dir(&node.file).unwrap();
        fs::write(&node.file, b"\xff\xfe[interface.w]\n").unwrap();
        refused(&["UTF-8"]);
        node.write("[interface.w\nrole = 1\n");
        refused(&["a.toml:1:", "^"]);
        node.write(&(node.plain_file() + "colour = 1\n"));
        refused(&["a.toml:13:1", "colour", "^^^^^^"]);
        Pinned::look(&node.pin).must_be(&pinned);
        Machine::look(lab).must_be(&machine);
    });
}

#[test]
fn standard_input() {
    lab::run("faults: standard input", |lab| {
        let node = &lab.a;
        let plain = node.plain_file();
        let applied = node.mptm_reading("apply -c -", &plain).done();
        assert!(applied.stdout.contains("+ tunnel far"), "{applied:?}");
        node.mptm_reading("apply -c - --detailed-exitcode", &plain).nothing_to_do();
        node.mptm_reading("apply -c -", &plain.replace("42", "4x2")).refused(&["--> -:10:", "^"]);
        let removed = node.mptm_reading("apply -c -", "");
        assert_eq!(removed.code, Some(0), "{removed:?}");
        assert!(removed.stdout.contains("- tunnel far"), "{removed:?}");
        assert!(removed.stderr.contains("warning: - names no interface and no tunnel"), "{removed:?}");
        assert!(!node.pin.exists());
    });
}

/// What may be known without a kernel is found out without one, and errors never look like changes (2).
#[test]
fn command_lines() {
    let refused = |arguments: &[&str], parts: &[&str]| {
        Outcome::of(Command::new(MPTM).args(arguments).stdin(Stdio::null())).refused(parts);
    };
    refused(
        &["-n", "a/b", "status"],
        &["'a/b'", "--netns", "a name as in `ip netns`, an absolute path, or pid:N"],
    );
    refused(&["get", "10.0.0.1", "10.0.0.256"], &["'10.0.0.256'", "<DESTINATION>"]);
    refused(&["get", "10.0.0.1"], &["<DESTINATION>"]);
    refused(&["aply"], &["'aply'", "similar subcommand exists: 'apply'"]);
    refused(&["apply", "--dryrun"], &["'--dryrun'", "'--dry-run'"]);
    refused(&["down", "--json"], &["'--json'"]);
    let nothing = Outcome::of(&mut Command::new(MPTM));
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(1), ""));
    assert!(nothing.stderr.contains("Usage: mptm"));
}

#[test]
fn namespaces_that_are_not_there() {
    lab::run("faults: missing namespaces", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let apply = |netns: &str| {
            let mut command = Command::new(MPTM);
            Outcome::of(
                command.arg("-c").arg(&node.file).arg("--pin").arg(&node.pin).args(["-n", netns, "apply"]),
            )
        };
        apply("nowhere")
            .refused(&["cannot enter network namespace nowhere: No such file", "hint: `ip netns list`"]);
        apply("/etc/passwd").refused(&[
            "cannot enter network namespace /etc/passwd",
            "hint: /etc/passwd is not the file of a network namespace",
        ]);
        apply("pid:4194304")
            .refused(&["cannot enter network namespace pid:4194304", "hint: process 4194304 is gone"]);
        assert!(!node.pin.exists());
        let path = format!("/run/netns/{}", node.netns);
        let mut command = Command::new(MPTM);
        Outcome::of(
            command.arg("-c").arg(&node.file).arg("--pin").arg(&node.pin).args(["-n", &path, "apply"]),
        )
        .done();
        node.mptm("apply").nothing_to_do();
    });
}

/// As many tunnels as no sensible node has.
#[test]
fn very_many_tunnels() {
    lab::run("faults: very many tunnels", |lab: &Lab| {
        let node = &lab.a;
        let tunnels = |count: u32| {
            let mut file = node.plain_file();
            for id in 1..count {
                let (high, low) = (id >> 8, id & 255);
                write!(
                    file,
                    "[tunnel.t{id}]\nprotocol = \"vxlan\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = [\"10.{}.{}.{low}\"]\n",
                    100 + (high >> 8),
                    high & 255
                )
                .unwrap();
            }
            file
        };
        let before = Machine::look(lab);
        node.write(&tunnels(20_000));
        assert_eq!(node.mptm("apply").code, Some(0));
        node.mptm("apply").nothing_to_do();
        let shown = node.mptm("down").done().stdout.lines().count();
        assert!(shown < 300, "{shown} lines are no reading");
        Machine::look(lab).must_be(&before);
    });
}

/// Killed at some moment of an apply or a down, the next apply makes it whole, and the next down leaves nothing.
#[test]
fn cut_short() {
    lab::run("faults: cut short", |lab| {
        let node = &lab.a;
        lab.b.apply(&lab.b.plain_file());
        node.write(&node.plain_file());
        let before = Machine::look(lab);
        // How long each takes here, so that the moments lie within.
        let timed = |command| {
            let start = Instant::now();
            assert_eq!(node.mptm(command).code, Some(0), "{command}");
            start.elapsed()
        };
        let times = [("apply", timed("apply")), ("down", timed("down"))];
        let mut killed = 0;
        for round in 0..24 {
            let (command, whole) = times[round % 2];
            let signal = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL][round % 3];
            let mut child =
                node.command(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(whole * (round / 2) as u32 / 14);
            let _ = kill(Pid::from_raw(child.id() as i32), signal);
            killed += usize::from(child.wait().unwrap().code().is_none());
            // What the next one starts from: all of it, or nothing.
            assert_eq!(node.mptm(command).code, Some(0), "{command} after round {round}");
            if command == "down" {
                Machine::look(lab).must_be(&before);
            }
        }
        assert!(killed >= 6, "only {killed} of 24 were caught");
        node.mptm("apply").done();
        node.mptm("apply").nothing_to_do();
        assert!(reaches(lab));
    });
}

/// Several at once: each waits for its turn, and none sees what another has half done.
#[test]
fn at_once() {
    lab::run("faults: at once", |lab| {
        let node = &lab.a;
        let plain = node.plain_file();
        let files: Vec<_> = (0..4)
            .map(|number| {
                let file = lab.path(&format!("{number}.toml"));
                let more = format!(
                    "[tunnel.own-{number}]\nprotocol = \"vxlan\"\nid = {number}\nremote = \"10.30.30.2\"\n"
                );
                fs::write(&file, format!("{plain}\n{more}inner = [\"10.251.{number}.0/24\"]\n")).unwrap();
                file
            })
            .collect();
        for round in 0..3 {
            let all: Vec<_> = files
                .iter()
                .map(|file| {
                    let mut command = node.command("apply");
                    command.arg("-c").arg(file).stdout(Stdio::piped()).stderr(Stdio::piped());
                    command.spawn().unwrap()
                })
                .collect();
            for child in all {
                Outcome::from(child.wait_with_output().unwrap()).done();
            }
            let dump = node.mptm("dump").done().stdout;
            assert_eq!(dump.matches("[tunnel.own-").count(), 1, "round {round}: {dump}");
            node.mptm_reading("apply -c - --dry-run", &dump).nothing_to_do();
            node.mptm("down").done();
        }
    });
}

/// Two at once: each waits for the other, and both do all of their work.
#[test]
fn many_at_once() {
    lab::run("faults: many at once", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        thread::scope(|scope| {
            let runs: Vec<_> = (0..6)
                .map(|run| scope.spawn(move || node.mptm(if run % 3 == 2 { "down" } else { "apply" })))
                .collect();
            for run in runs {
                run.join().unwrap().done();
            }
        });
        node.mptm("apply").done();
        node.mptm("apply --detailed-exitcode").nothing_to_do();
    });
}

/// The file of another node, by mistake.
#[test]
fn its_own_address_as_the_far_end() {
    lab::run("faults: remote is the node itself", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file().replace("10.30.30.2", "10.30.30.1"));
        node.mptm("apply --dry-run")
            .refused(&["remote 10.30.30.1 is this node's own", "the file of another node"]);
    });
}
