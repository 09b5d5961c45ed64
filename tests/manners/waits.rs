//! One at a time: who waits says for whom, and not for ever; and a file that changes while it is applied.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::lab::{self, Node, Outcome};

/// What another mptm does while it is at work in the node's namespace.
fn hold(node: &Node) -> Flock<File> {
    let file = File::open(format!("/run/netns/{}", node.netns)).unwrap();
    Flock::lock(file, FlockArg::LockExclusive).unwrap()
}

#[test]
fn a_second_apply_waits_and_says_for_whom() {
    lab::run("waits: for whom", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let lock = hold(node);
        // The holder is this test.
        let who = format!("process {}", std::process::id());
        for command in ["apply", "down"] {
            let start = Instant::now();
            let outcome = node.mptm(&format!("{command} --wait 1"));
            let took = start.elapsed();
            assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
            outcome.refused(&[
                "another mptm is changing this network namespace: `",
                &format!("`, {who}"),
                "hint: try again when it is done; --wait SECONDS waits longer",
            ]);
            assert!(outcome.stderr.starts_with("Waiting for `"), "{outcome:?}");
            assert!(outcome.stderr.contains(&format!("`, {who}, 1 s at most.\n")), "{outcome:?}");
        }
        node.mptm("apply --wait 0").refused(&["another mptm", &who]);
        // What only looks never waits.
        for command in ["apply --dry-run", "down --dry-run", "check"] {
            node.mptm(command).done();
        }

        // It is said at once, not when it is over.
        let mut child = node.command("apply").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut talk = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        talk.read_line(&mut line).unwrap();
        assert!(line.contains(&who) && line.contains("60 s at most"), "{line}");
        assert!(child.try_wait().unwrap().is_none(), "it has not waited");
        drop(lock);
        assert!(child.wait().unwrap().success());
        node.mptm("apply").nothing_to_do();
    });
}

/// A tunnel whose next hop answers nobody: apply asks for it in vain for more than a second, and by then has read the file.
fn slow_file(node: &Node, id: u32) -> String {
    format!(
        "{}\n[tunnel.slow]\nprotocol = \"vxlan\"\nid = {id}\nremote = \"10.30.30.77\"\ninner = [\"10.77.0.0/16\"]\n",
        node.plain_file()
    )
}

/// Applies the file of `node`, and does `work` when it has been read.
fn while_applying(node: &Node, work: impl FnOnce()) -> Outcome {
    let child = node.command("apply").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(700));
    work();
    Outcome::from(child.wait_with_output().unwrap())
}

#[test]
fn a_file_that_changes_meanwhile() {
    lab::run("waits: a file that changes meanwhile", |lab| {
        let node = &lab.a;
        let replace = |text: &str| {
            let new = lab.path("new.toml");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &node.file).unwrap();
        };
        let meanwhile = "a.toml has changed meanwhile: applying it again.\n";
        node.write(&slow_file(node, 1));
        let outcome = while_applying(node, || replace(&node.plain_file()));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(outcome.stderr.matches(meanwhile).count(), 1, "{outcome:?}");
        for step in ["+ tunnel slow: ", "- tunnel slow: "] {
            assert!(outcome.stdout.contains(step), "{outcome:?}");
        }
        node.mptm("apply").nothing_to_do();

        // A drop-in that appears.
        node.write(&slow_file(node, 1));
        let outcome = while_applying(node, || {
            fs::create_dir(lab.path("a.d")).unwrap();
            fs::write(lab.path("a.d/more.toml"), "[defaults]\nmtu = 1400\n").unwrap();
        });
        assert!(outcome.code == Some(0) && outcome.stdout.contains("mtu 1450 -> 1400"), "{outcome:?}");
        fs::remove_dir_all(lab.path("a.d")).unwrap();

        // What it has become is wrong: what was right is applied, and said, and so is what is wrong.
        node.write(&slow_file(node, 1));
        let outcome = while_applying(node, || replace("[interface.u\n"));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stdout.contains("~ tunnel slow: "), "{outcome:?}");
        for part in [meanwhile, "a.toml:1:", "^"] {
            assert!(outcome.stderr.contains(part), "{outcome:?}");
        }
        assert!(node.mptm("dump").done().stdout.contains("[tunnel.slow]"));
    });
}

#[test]
fn a_file_that_never_stays_the_same() {
    lab::run("waits: a file that never stays the same", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let new = lab.path("new.toml");
                    fs::write(&new, format!("# {number}\n{}", node.plain_file())).unwrap();
                    fs::rename(&new, &node.file).unwrap();
                }
            });
            // On a busy machine, the file may stay the same for as long as it takes to apply it.
            let says_so = |outcome: &Outcome| {
                outcome.stderr.matches("has changed meanwhile").count() == 5
                    && outcome.stderr.contains("warning: ")
                    && outcome.stderr.contains("apply it again")
            };
            let mut outcomes = Vec::new();
            while outcomes.len() < 40 && !outcomes.last().is_some_and(says_so) {
                outcomes.push(node.mptm("apply"));
            }
            done.store(true, Ordering::Relaxed);
            assert!(outcomes.iter().all(|outcome| outcome.code == Some(0)), "{outcomes:?}");
            assert!(outcomes.last().is_some_and(says_so), "{outcomes:?}");
        });
        node.mptm("apply").nothing_to_do();
    });
}
