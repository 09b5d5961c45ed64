//! Namespaces and processes for one test, gone when it ends, however it ends.

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mptm::config::model::NetnsRef;
use mptm::kernel::linux::{LinuxNetwork, enter_netns};
use mptm::kernel::{Link, Netns, Network};

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

    /// A process in a namespace that has no name; its id.
    pub fn process_in_anonymous_netns(&mut self) -> u32 {
        let process = Command::new("unshare").args(["-n", "sleep", "60"]).spawn().unwrap();
        let pid = process.id();
        self.processes.push(process);
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let there = || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|netns| netns != own);
        assert!(soon(there), "unshare did not unshare");
        pid
    }

    /// Ends the processes.
    pub fn end_processes(&mut self) {
        for mut process in self.processes.drain(..) {
            process.kill().unwrap();
            process.wait().unwrap();
        }
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

/// What `ethtool -k` prints, from inside the thread's namespace.
pub fn ethtool_features(device: &str) -> Vec<(String, bool, bool)> {
    let output = Command::new("ethtool").args(["-k", device]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (name, state) = line.trim().split_once(": ")?;
        Some((name.to_string(), state.starts_with("on"), !state.contains("[fixed]")))
    };
    text.lines().filter_map(line).collect()
}

/// The network of the thread's namespace.
pub fn network() -> LinuxNetwork {
    LinuxNetwork::new().unwrap()
}

/// A device of the managed namespace that must be there.
pub fn link(network: &LinuxNetwork, name: &str) -> Link {
    network.link(&None, name).unwrap().unwrap_or_else(|| panic!("no {name}"))
}

/// A namespace by name.
pub fn named(name: &str) -> Netns {
    Some(NetnsRef::Name(name.into()))
}

/// A namespace held open by nothing but this file.
pub fn hold_and_unname(name: &str) -> File {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    ip(&format!("netns del {name}"));
    file
}

/// Whether `condition` holds within 5 seconds.
pub fn soon(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
