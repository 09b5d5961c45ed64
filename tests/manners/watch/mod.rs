//! `mptm watch`, running beside what changes.

mod file;
mod killed;
mod machine;
mod service;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Node, soon};

/// A watch in the background; it ends with the test.
pub struct Watch<'a> {
    node: &'a Node,
    child: Child,
    log: std::path::PathBuf,
}

impl<'a> Watch<'a> {
    /// Starts it on node a, and waits until it has applied the file.
    pub fn start(lab: &'a Lab, arguments: &str) -> Self {
        Self::start_with(lab, arguments, |_| {})
    }

    /// The same, with more of an environment.
    pub fn start_with(lab: &'a Lab, arguments: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let watch = Self::spawn(lab, arguments, prepare);
        watch.settle();
        watch
    }

    /// Where the file can't be applied as a whole.
    pub fn start_unsettled(lab: &'a Lab, arguments: &str) -> Self {
        let watch = Self::spawn(lab, arguments, |_| {});
        watch.says("start: + ");
        watch
    }

    /// Starts it, and does not wait.
    pub fn spawn(lab: &'a Lab, arguments: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let node = &lab.a;
        let log = lab.path("watch.log");
        let mut command = node.command(&format!("watch {arguments}"));
        command.stderr(File::create(&log).unwrap());
        prepare(&mut command);
        // SAFETY: prctl is async-signal-safe, and asks for nothing but an end with this thread.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Self { node, child: command.spawn().unwrap(), log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// It is in the log within a time.
    #[track_caller]
    pub fn says(&self, text: &str) {
        assert!(soon(|| self.log().contains(text)), "not a word of {text:?} in:\n{}", self.log());
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends it as systemd does; it must do so without complaint.
    pub fn stop(mut self) -> String {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.log());
        self.log()
    }

    /// Nothing is left to be done.
    fn is_settled(&self) -> bool {
        self.node.mptm("apply --dry-run --detailed-exitcode").code == Some(0)
    }

    /// Waits until the kernel is as the file and the machine are.
    #[track_caller]
    pub fn settle(&self) {
        assert!(soon(|| self.is_settled()), "{:?}\n{}", self.node.mptm("apply --dry-run"), self.log());
    }

    /// Voluntary context switches: how often it woke up; and its CPU time, in nanoseconds.
    fn work(&self) -> (u64, u64) {
        let proc = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap();
        let status = proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        let time = proc("schedstat").split(' ').next().unwrap().parse().unwrap();
        (line.trim().parse().unwrap(), time)
    }

    /// How often it wakes up in so many seconds, and how long it works.
    pub fn work_in(&self, seconds: u64) -> (u64, Duration) {
        let (wakes, time) = self.work();
        thread::sleep(Duration::from_secs(seconds));
        let (wakes_after, time_after) = self.work();
        (wakes_after - wakes, Duration::from_nanos(time_after - time))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tunnel more, by the name and number.
pub fn tunnel(name: &str, id: u32) -> String {
    format!(
        "\n[tunnel.{name}]\nprotocol = \"geneve\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = [\"10.251.{}.{}\"]\n",
        id / 256,
        id % 256
    )
}

/// The live state has a tunnel of that name, and soon.
#[track_caller]
pub fn has_tunnel(node: &Node, name: &str, wanted: bool) {
    let line = format!("[tunnel.{name}]\n");
    assert!(
        soon(|| node.mptm("dump").stdout.contains(&line) == wanted),
        "tunnel {name}: not {wanted}\n{}",
        node.mptm("dump").stdout
    );
}

/// How long until a condition holds; it must, soon.
#[track_caller]
pub fn time_until(condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    assert!(soon(condition));
    start.elapsed()
}
