//! Two nodes with a container each, as namespaces with pin directories of their own: gone when the test ends, however
//! it ends.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tempfile::TempDir;

pub const MPTM: &str = env!("CARGO_BIN_EXE_mptm");

pub use crate::soon::soon;

/// Runs `test` with a new pair of nodes; skips it loudly without root.
pub fn run(title: &str, test: impl FnOnce(&Lab)) {
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        // Not eprintln: the test harness would swallow it.
        let _ = writeln!(io::stderr(), "SKIPPED (needs root): {title}");
        return;
    }
    hold_bpffs();
    test(&Lab::new());
}

/// Mounts a bpffs on /sys/fs/bpf if there is none, as systemd does on most machines, and keeps it from being unmounted
/// until the last test has ended, whoever mounted it: or else the mount would come and go with the other tests. Those of
/// the mount have a mount namespace of their own.
fn hold_bpffs() {
    static HELD: OnceLock<File> = OnceLock::new();
    HELD.get_or_init(|| {
        // Some mptm, or this test in another process, may be just mounting or unmounting it.
        let _lock = Flock::lock(File::open("/sys/fs").unwrap(), FlockArg::LockExclusive).unwrap();
        if statfs("/sys/fs/bpf").unwrap().filesystem_type() != BPF_FS_MAGIC {
            mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700")).unwrap();
        }
        File::open("/sys/fs/bpf").unwrap()
    });
}

/// A node: a namespace whose underlay is `u` and whose workload is `w`, and a container with the workload's `eth0`.
pub struct Node {
    pub netns: String,
    pub container: String,
    pub pin: PathBuf,
    pub file: PathBuf,
}

pub struct Lab {
    pub a: Node,
    pub b: Node,
    pub dir: TempDir,
    /// What the names of all that the test makes begin with.
    pub tag: String,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("mptmm-{:07}-{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        // For the tests of those who are not root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let node = |name: &str| Node {
            netns: format!("{tag}-{name}"),
            container: format!("{tag}-{name}c"),
            pin: Path::new("/sys/fs/bpf").join(format!("{tag}-{name}")),
            file: dir.path().join(format!("{name}.toml")),
        };
        let lab = Self { a: node("a"), b: node("b"), dir, tag };
        let (a, b) = (&lab.a, &lab.b);
        let all = [&a.netns, &a.container, &b.netns, &b.container];
        batch(None, &all.map(|netns| format!("netns add {netns}")).join("\n"));
        batch(
            None,
            &format!(
                "link add u netns {an} address 02:00:00:00:01:01 type veth peer name u netns {bn} address \
                 02:00:00:00:01:02\n\
                 link add w netns {an} address 02:00:00:00:02:01 type veth peer name eth0 netns {ac} address \
                 02:00:00:00:03:01\n\
                 link add w netns {bn} address 02:00:00:00:02:02 type veth peer name eth0 netns {bc} address \
                 02:00:00:00:03:02",
                an = a.netns,
                bn = b.netns,
                ac = a.container,
                bc = b.container
            ),
        );
        for (node, number) in [(a, 1), (b, 2)] {
            batch(
                Some(&node.netns),
                &format!("link set lo up\naddr add 10.30.30.{number}/24 dev u\nlink set u up\nlink set w up"),
            );
            batch(
                Some(&node.container),
                &format!("link set lo up\naddr add 10.250.1.{number}/24 dev eth0\nlink set eth0 up"),
            );
        }
        // As it is when nobody has asked for anything: the far end's MAC address is known.
        ip(&format!("-n {} neigh replace 10.30.30.2 lladdr 02:00:00:00:01:02 dev u nud permanent", a.netns));
        ip(&format!("-n {} neigh replace 10.30.30.1 lladdr 02:00:00:00:01:01 dev u nud permanent", b.netns));
        lab
    }

    pub fn namespaces(&self) -> Vec<String> {
        [&self.a, &self.b].iter().flat_map(|node| [node.netns.clone(), node.container.clone()]).collect()
    }

    /// A file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The names in /sys/fs/bpf that are this test's.
    pub fn pins(&self) -> Vec<String> {
        let entries = fs::read_dir("/sys/fs/bpf").unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| name.into_string().unwrap());
        names.filter(|name| name.starts_with(&format!("{}-", self.tag))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pin in self.pins() {
            let pin = Path::new("/sys/fs/bpf").join(pin);
            let _ = fs::remove_dir_all(&pin).or_else(|_| fs::remove_file(&pin));
        }
        for netns in self.namespaces() {
            let _ = Command::new("ip").args(["netns", "del", &netns]).stderr(Stdio::null()).status();
        }
        if !thread::panicking() {
            assert_eq!(self.pins(), Vec::<String>::new(), "pins are left behind");
            let left =
                self.namespaces().into_iter().find(|netns| Path::new("/run/netns").join(netns).exists());
            assert_eq!(left, None, "a namespace is left behind");
        }
    }
}

impl Node {
    /// A command line of mptm, with this node's file, pins and namespace.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(MPTM);
        command.arg("-c").arg(&self.file).arg("--pin").arg(&self.pin).args(["-n", &self.netns]);
        command.args(arguments.split_whitespace()).stdin(Stdio::null());
        command.env_remove("MPTM_CONFIG").env_remove("MPTM_PIN").env_remove("NO_COLOR");
        command
    }

    pub fn mptm(&self, arguments: &str) -> Outcome {
        Outcome::of(&mut self.command(arguments))
    }

    /// mptm with a text on standard input.
    pub fn mptm_reading(&self, arguments: &str, input: &str) -> Outcome {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Outcome::from(child.wait_with_output().unwrap())
    }

    pub fn write(&self, toml: &str) {
        fs::write(&self.file, toml).unwrap();
    }

    /// Applies a file; it must work.
    pub fn apply(&self, toml: &str) -> Outcome {
        self.write(toml);
        self.mptm("apply").done()
    }

    /// A command of iproute2 in the node's namespace.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.netns));
    }

    /// What a shell command in the node's namespace prints; it must work.
    pub fn shell(&self, script: &str) -> String {
        shell_in(&self.netns, script)
    }

    /// This node's own file: one workload, and one geneve tunnel `far` to the other node.
    pub fn plain_file(&self) -> String {
        let (own, other) = if self.pin.to_string_lossy().ends_with('a') { (1, 2) } else { (2, 1) };
        format!(
            "[interface.u]\nrole = \"underlay\"\n\n[interface.w]\nrole = \"workload\"\naddresses = [\"10.250.1.{own}\"]\n\n\
             [tunnel.far]\nprotocol = \"geneve\"\nid = 42\nremote = \"10.30.30.{other}\"\ninner = [\"10.250.1.{other}\"]\n"
        )
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("mptm writes UTF-8");
        let outcome =
            Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        outcome
    }
}

impl Outcome {
    pub fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// It worked, and had nothing to complain of.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(!self.stderr.contains("error:") && !self.stderr.contains("warning:"), "{self:?}");
        self
    }

    /// It worked, and there was nothing to do.
    #[track_caller]
    pub fn nothing_to_do(&self) {
        assert_eq!(
            (self.code, self.stdout.as_str(), self.stderr.as_str()),
            (Some(0), "", "Nothing to do.\n"),
            "{self:?}"
        );
    }

    /// It failed with one message, which says all of `parts`, and wrote nothing else.
    #[track_caller]
    pub fn refused(&self, parts: &[&str]) {
        assert_eq!(self.stdout, "", "{self:?}");
        self.refused_after(parts);
    }

    /// The same, after something that it did.
    #[track_caller]
    pub fn refused_after(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stderr.matches("error: ").count(), 1, "not one error: {}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "not a word of {part:?} in:\n{}", self.stderr);
        }
    }
}

/// An `ip` command that must succeed.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Several, in a namespace, by one process.
pub fn batch(netns: Option<&str>, lines: &str) {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a shell command prints in a namespace; it must work. Mounts stay those of the test.
pub fn shell_in(netns: &str, script: &str) -> String {
    let netns = format!("--net=/run/netns/{netns}");
    let output = Command::new("nsenter").args([&netns, "sh", "-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
