//! Namespaces and processes for one test, gone when it ends, however it ends.

mod interrupted;
mod soon;

use std::fs;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use mptm::config::model::NetnsRef;
use mptm::kernel::linux::enter_netns;

pub use soon::soon;

/// What a test made outside of its process.
#[derive(Default)]
pub struct World {
    namespaces: Vec<String>,
    processes: Vec<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for name in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

/// Runs `test` on a thread of its own, in a new namespace whose name it is given; skips it loudly without root.
pub fn run(title: &str, test: impl FnOnce(&mut World, &str) + Send) {
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        // Not eprintln: the test harness would swallow it.
        let _ = writeln!(io::stderr(), "SKIPPED (needs root): {title}");
        return;
    }
    interrupted::clean_up();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut world = World::default();
            let home = world.netns("home");
            enter_netns(&NetnsRef::Name(home.as_str().into())).unwrap();
            test(&mut world, &home);
        });
        if let Err(panicked) = worker.join() {
            std::panic::resume_unwind(panicked);
        }
    });
}

impl World {
    /// A new namespace; its whole name.
    pub fn netns(&mut self, name: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mptmt-{}-{number}-{name}", std::process::id());
        self.namespaces.push(name.clone());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        name
    }

    /// Starts a process that ends with the test at the latest; its id.
    pub fn spawn(&mut self, command: &mut Command) -> u32 {
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = process.id();
        self.processes.push(process);
        pid
    }

    /// A process in a namespace that has no name; its id.
    pub fn process_in_anonymous_netns(&mut self) -> u32 {
        let pid = self.spawn(Command::new("unshare").args(["-n", "sleep", "60"]));
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let there = || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|netns| netns != own);
        assert!(soon(there), "unshare did not unshare");
        pid
    }

    /// Ends a process that `spawn` started.
    pub fn end(&mut self, pid: u32) {
        let index = self.processes.iter().position(|process| process.id() == pid);
        let mut process = self.processes.remove(index.expect("a process of this test"));
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// An `ip` command that must succeed.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A veth pair that is up: `here` in namespace `home`, and `there` in namespace `far`.
pub fn veth(home: &str, here: &str, far: &str, there: &str) {
    ip(&format!("-n {home} link add {here} type veth peer name {there} netns {far}"));
    ip(&format!("-n {home} link set {here} up"));
    ip(&format!("-n {far} link set {there} up"));
}
