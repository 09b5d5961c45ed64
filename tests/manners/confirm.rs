//! An apply that goes back by itself unless somebody confirms it, whatever becomes of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mptm::kernel::Network;
use mptm::kernel::linux::LinuxNetwork;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use crate::lab::{self, Lab, Node, Outcome, soon};
use crate::snapshot::{Machine, Pinned, poke_meta};
use crate::traffic::reaches;
use crate::watch::Watch;

/// The plain file with another tunnel, another MTU, and nothing where there was something.
fn other_file(node: &Node) -> String {
    node.plain_file()
        + "mtu = 1400\n[tunnel.other]\nprotocol = \"vxlan\"\nid = 7\nremote = \"10.30.30.2\"\ninner = [\"10.252.0.0/16\"]\n"
}

/// An apply that waits to be confirmed.
struct Waiting {
    child: Child,
    stderr: BufReader<ChildStderr>,
    asks: String,
}

impl Waiting {
    fn start(node: &Node, seconds: u32) -> Self {
        let mut command = node.command(&format!("apply --confirm {seconds}"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut asks = String::new();
        while !asks.contains("It goes back in ") {
            assert_ne!(stderr.read_line(&mut asks).unwrap(), 0, "{asks}");
        }
        Self { child, stderr, asks }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn guard(&self) -> Pid {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

/// Where `mptm confirm` finds it.
fn socket(node: &Node) -> PathBuf {
    let file = File::open(format!("/run/netns/{}", node.netns)).unwrap();
    let ask = || {
        setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
        LinuxNetwork::new().unwrap().netns_cookie(&None).unwrap()
    };
    let cookie = thread::scope(|scope| scope.spawn(ask).join().unwrap());
    PathBuf::from(format!("/run/mptm/confirm-{cookie}"))
}

/// The lines of what is there, and of the machine.
fn look(lab: &Lab) -> (String, Machine) {
    (lab.a.mptm("dump").done().stdout, Machine::look(lab))
}

#[track_caller]
fn is_as_before(lab: &Lab, before: &(String, Machine)) {
    lab.a.mptm("apply --dry-run --wait 0").nothing_to_do();
    let now = look(lab);
    assert_eq!(now.0, before.0);
    now.1.must_be(&before.1);
}

#[test]
fn confirmed_from_elsewhere() {
    lab::run("confirm: from elsewhere", |lab| {
        let node = &lab.a;
        let none =
            ["no apply waits to be confirmed in this network namespace", "hint: `mptm apply --confirm"];
        node.mptm("confirm").refused(&none);
        node.apply(&node.plain_file());
        node.write(&other_file(node));
        let waiting = Waiting::start(node, 60);
        assert!(waiting.asks.contains("Done: "), "{}", waiting.asks);
        let hint = format!("It goes back in 60 s unless you run `mptm -n {} confirm`.\n", node.netns);
        assert!(waiting.asks.ends_with(&hint), "{}", waiting.asks);
        // It is in force, and nobody else comes in between.
        node.mptm("apply --dry-run").nothing_to_do();
        node.mptm("apply --wait 0").refused(&[" apply --confirm 60`, process ", &waiting.pid().to_string()]);
        lab.b.mptm("confirm").refused(&none);
        assert_eq!(node.mptm("confirm").done().stderr, "Confirmed.\n");
        assert_eq!(waiting.end(), (Some(0), "Confirmed.\n".into()));
        node.mptm("confirm").refused(&none);
        node.mptm("apply").nothing_to_do();
        node.mptm("apply --confirm 1").nothing_to_do();
    });
}

#[test]
fn not_confirmed() {
    lab::run("confirm: not confirmed", |lab| {
        let node = &lab.a;
        lab.b.apply(&lab.b.plain_file());
        // From nothing to something, and back to nothing.
        let nothing = Machine::look(lab);
        node.write(&node.plain_file());
        node.mptm("apply --confirm 0").refused(&["--confirm"]);
        let start = Instant::now();
        let (code, said) = Waiting::start(node, 1).end();
        assert!(start.elapsed() > Duration::from_secs(1));
        assert_eq!(code, Some(1));
        assert!(said.starts_with("error: not confirmed within 1 s: all is as it was before\n"), "{said}");
        assert!(said.contains("hint: ") && said.contains("still says otherwise"), "{said}");
        Machine::look(lab).must_be(&nothing);

        // From one file to another and back, and to none and back.
        node.apply(&node.plain_file());
        let before = look(lab);
        node.write(&other_file(node));
        let waiting = Waiting::start(node, 1);
        Machine::look(lab).must_differ_from(&before.1);
        assert_eq!(waiting.end().0, Some(1));
        node.write(&node.plain_file());
        is_as_before(lab, &before);
        node.write("");
        let waiting = Waiting::start(node, 1);
        Machine::look(lab).must_be(&nothing);
        assert_eq!(waiting.end().0, Some(1));
        node.write(&node.plain_file());
        node.mptm("apply --dry-run").nothing_to_do();
        assert_eq!(node.mptm("dump").done().stdout, before.0);
        assert!(reaches(lab));
    });
}

#[test]
fn what_ends_it_takes_it_back() {
    lab::run("confirm: ended", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        let before = look(lab);
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            node.write(&other_file(node));
            let waiting = Waiting::start(node, 60);
            assert!(socket(node).exists());
            kill(waiting.pid(), signal).unwrap();
            let (code, said) = waiting.end();
            if signal == Signal::SIGKILL {
                assert_eq!((code, said.as_str()), (None, "mptm was killed; its changes are undone.\n"));
            } else {
                assert_eq!(code, Some(1), "{said}");
                assert!(
                    said.contains(&format!("interrupted by {}: all is as it was", signal.as_str())),
                    "{said}"
                );
            }
            node.write(&node.plain_file());
            is_as_before(lab, &before);
            node.mptm("confirm").refused(&["no apply waits"]);
            assert!(!socket(node).exists());
        }
        // Its guard is killed: it goes back all the same. Stopped, it does not keep the guard from it.
        node.write(&other_file(node));
        let waiting = Waiting::start(node, 60);
        kill(waiting.guard(), Signal::SIGKILL).unwrap();
        let (code, said) = waiting.end();
        assert!(code == Some(1) && said.contains("all is as it was before"), "{said}");
        node.write(&node.plain_file());
        is_as_before(lab, &before);

        node.write(&other_file(node));
        let waiting = Waiting::start(node, 1);
        kill(waiting.pid(), Signal::SIGSTOP).unwrap();
        node.write(&node.plain_file());
        assert!(soon(|| node.mptm("apply --dry-run").stderr == "Nothing to do.\n"));
        kill(waiting.pid(), Signal::SIGCONT).unwrap();
        assert_eq!(waiting.end().0, Some(1));
        is_as_before(lab, &before);
    });
}

#[test]
fn programs_come_back() {
    lab::run("confirm: programs come back", |lab| {
        let node = &lab.a;
        lab.b.apply(&lab.b.plain_file());
        node.apply(&node.plain_file());
        poke_meta(&node.pin, 16, 0xee);
        let before = Pinned::look(&node.pin);
        for killed in [false, true] {
            let waiting = Waiting::start(node, 1);
            assert_ne!(Pinned::look(&node.pin).programs, before.programs);
            if killed {
                kill(waiting.pid(), Signal::SIGKILL).unwrap();
            }
            waiting.end();
            Pinned::look(&node.pin).must_have_the_objects_of(&before);
            assert!(reaches(lab));
        }
        let outcome = node.mptm("apply").done();
        assert!(outcome.stdout.starts_with("~ data-plane: "), "{outcome:?}");
        node.mptm("apply").nothing_to_do();
    });
}

/// What fails is undone, and nothing is left to confirm.
#[test]
fn nothing_to_confirm() {
    lab::run("confirm: nothing to confirm", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        let before = look(lab);
        node.ip("link add br0 type bridge");
        node.ip("link set br0 up");
        node.write(&(node.plain_file() + "\n[interface.br0]\nrole = \"pass\"\n"));
        node.mptm("apply --confirm 60").refused(&["cannot attach mptm_pass to br0", "nothing is changed"]);
        node.ip("link del br0");
        node.write("[interface.u\n");
        node.mptm("apply --confirm 60").refused(&["a.toml:1:"]);
        node.write(&node.plain_file());
        is_as_before(lab, &before);
    });
}

/// The file of the node is applied from a terminal of its own; `then` gets the other side of it.
fn from_a_terminal(node: &Node, then: impl FnOnce(File, String)) -> Outcome {
    let pty = openpty(None, None).unwrap();
    let (controller, terminal) = (File::from(pty.master), pty.slave);
    fcntl(&controller, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let number = terminal.as_raw_fd();
    let mut command = node.command("apply --confirm 60");
    command.stdout(Stdio::piped()).stderr(Stdio::from(terminal.try_clone().unwrap()));
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            if libc::ioctl(number, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    // What the command has of the terminal must be all that there is.
    drop((terminal, command));
    let mut said = String::new();
    let mut lines = BufReader::new(controller.try_clone().unwrap());
    while !said.contains("It goes back in ") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    drop(lines);
    then(controller, said);
    Outcome::from(child.wait_with_output().unwrap())
}

#[test]
fn terminals() {
    lab::run("confirm: terminals", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        let before = look(lab);
        // Gone, as when the connection that it came by breaks.
        node.write(&other_file(node));
        let outcome = from_a_terminal(node, |controller, said| {
            assert!(said.contains("unless you press a key here, or run `mptm "), "{said}");
            drop(controller);
        });
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        node.write(&node.plain_file());
        is_as_before(lab, &before);

        // ^C.
        node.write(&other_file(node));
        let outcome = from_a_terminal(node, |mut controller, _| {
            controller.write_all(b"\x03").unwrap();
            let mut said = String::new();
            let _ = controller.read_to_string(&mut said);
            assert!(said.contains("interrupted by SIGINT: all is as it was before"), "{said}");
        });
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        node.write(&node.plain_file());
        is_as_before(lab, &before);

        // A key.
        node.write(&other_file(node));
        let outcome = from_a_terminal(node, |mut controller, _| {
            controller.write_all(b"y").unwrap();
            let mut said = String::new();
            let _ = controller.read_to_string(&mut said);
            assert!(said.ends_with("Confirmed.\r\n"), "{said}");
        });
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        node.mptm("apply").nothing_to_do();
    });
}

#[test]
fn watch_leaves_alone_what_was_not_confirmed() {
    lab::run("confirm: watch leaves alone what was not confirmed", |lab| {
        let node = &lab.a;
        lab.b.apply(&lab.b.plain_file());
        node.write(&node.plain_file());
        let watch = Watch::start(lab, "--interval 1");
        let before = look(lab);
        // It hears of the edit while the apply is at work, and has to wait for its lock.
        let stopped_without_lock = || {
            watch.signal(Signal::SIGSTOP);
            let is_free = node.mptm("apply --wait 0").code == Some(0);
            if !is_free {
                watch.signal(Signal::SIGCONT);
            }
            is_free
        };
        assert!(soon(stopped_without_lock));
        node.write(&other_file(node));
        let waiting = Waiting::start(node, 1);
        watch.signal(Signal::SIGCONT);
        assert_eq!(waiting.end().0, Some(1));
        watch.says("warning: file: `mptm apply --confirm` has gone back from what ");
        // Full passes don't change its mind.
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(look(lab).0, before.0, "{}", watch.log());
        let log = watch.stop();
        assert_eq!(log.matches("has gone back from").count(), 1, "{log}");
        assert!(!log.contains("+ tunnel other"), "{log}");

        // Nor does another one; what is not rejected is applied.
        let watch = Watch::spawn(lab, "--interval 3600", |_| {});
        watch.says("has gone back from");
        assert_eq!(look(lab).0, before.0);
        node.write(&other_file(node).replace("10.252.0.0", "10.253.0.0"));
        watch.says("start: + tunnel other");
        node.write(&node.plain_file());
        watch.says("file: - tunnel other");
        // It still is, until somebody insists.
        node.write(&other_file(node));
        assert!(soon(|| watch.log().matches("has gone back from").count() == 2), "{}", watch.log());
        assert_eq!(look(lab).0, before.0);
        watch.signal(Signal::SIGHUP);
        assert!(soon(|| watch.log().contains("file: + tunnel other")), "{}", watch.log());
        watch.settle();
        watch.stop();
        let watch = Watch::start(lab, "--interval 3600");
        assert!(!watch.stop().contains("gone back"));

        // An apply by hand insists, too.
        node.mptm("down").done();
        assert_eq!(Waiting::start(node, 1).end().0, Some(1));
        node.mptm("apply").done();
        let watch = Watch::start(lab, "--interval 3600");
        assert!(!watch.stop().contains("gone back"));
    });
}
