//! A node, its containers, and the far end of its cable, as namespaces that go when it goes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::generate::{FAR_ENDS, far_end};

#[path = "../../tests/common/interrupted.rs"]
mod interrupted;

pub const MPTM: &str = env!("CARGO_BIN_EXE_mptm");
/// The MAC address of the node's end of the cable, and of the far one.
pub const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// A node with the underlay `u`, and with a container behind each of `w0`, `w1`, ...
pub struct Node {
    pub netns: String,
    /// Where `u` leads to: a device of the same name. All far ends of the tunnels are there.
    pub far: String,
    pub containers: Vec<String>,
    pub pin: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Node {
    /// None, and a line on standard error: this is not root.
    pub fn new(containers: usize) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED (needs root): a node with its containers");
            return None;
        }
        interrupted::clean_up();
        let tag = format!("mptmb-{}", std::process::id());
        let node = Self {
            netns: format!("{tag}-node"),
            far: format!("{tag}-far"),
            containers: (0..containers).map(|number| format!("{tag}-c{number}")).collect(),
            pin: Path::new("/sys/fs/bpf").join(&tag),
            dir: tempfile::tempdir().expect("a directory for temporary files"),
        };
        let mut lines = format!("netns add {}\nnetns add {}\n", node.netns, node.far);
        let (near_mac, far_mac) = (mac_text(NEAR_MAC), mac_text(FAR_MAC));
        for container in &node.containers {
            lines += &format!("netns add {container}\n");
        }
        lines += &format!(
            "link add u netns {} address {near_mac} mtu 2000 type veth peer name u netns {} address {far_mac} mtu \
             2000\n",
            node.netns, node.far
        );
        for (number, container) in node.containers.iter().enumerate() {
            lines += &format!(
                "link add w{number} netns {} type veth peer name eth0 netns {container}\n",
                node.netns
            );
        }
        ip(None, &lines);
        let mut lines = "link set lo up\nlink set u up\naddr add 10.30.0.1/16 dev u\n".to_owned();
        (0..containers).for_each(|number| lines += &format!("link set w{number} up\n"));
        for number in 0..FAR_ENDS {
            lines += &format!("neigh add {} lladdr {far_mac} dev u nud permanent\n", far_end(number));
        }
        ip(Some(&node.netns), &lines);
        ip(Some(&node.far), "link set u up\n");
        node.containers.iter().for_each(|container| ip(Some(container), "link set eth0 up\n"));
        Some(node)
    }

    /// What a file says of the interfaces.
    pub fn head(&self) -> String {
        // Its far end takes what XDP sends into it only if mptm sees to that.
        let mut head = format!(
            "[interface.u]\nrole = \"underlay\"\npeer = {{ netns = \"{}\", name = \"u\" }}\n",
            self.far
        );
        for number in 0..self.containers.len() {
            head += &format!(
                "\n[interface.w{number}]\nrole = \"workload\"\naddresses = [\"{}\"]\n",
                workload(number)
            );
        }
        head
    }

    /// A file of the bench's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// mptm, for a file on this node.
    pub fn mptm(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(MPTM);
        command.arg("-c").arg(file).arg("--pin").arg(&self.pin).args(["-n", &self.netns]).args(arguments);
        command.env_remove("MPTM_CONFIG").env_remove("MPTM_PIN").stdin(Stdio::null());
        command
    }

    /// Everything that mptm made goes.
    pub fn down(&self) {
        let output = self.mptm(Path::new("/dev/null"), &["down"]).output().expect("cargo has built mptm");
        assert!(output.status.success(), "mptm down: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.mptm(Path::new("/dev/null"), &["down"]).output();
        for netns in self.containers.iter().chain([&self.netns, &self.far]) {
            let _ = Command::new("ip").args(["netns", "del", netns]).stderr(Stdio::null()).status();
        }
        if self.pin.exists() {
            eprintln!("left behind: {}", self.pin.display());
            let _ = fs::remove_dir_all(&self.pin);
        }
    }
}

/// The address of a container.
pub fn workload(number: usize) -> String {
    format!("10.250.{}.{}", number / 250, number % 250 + 1)
}

pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Commands of iproute2, by one process.
fn ip(netns: Option<&str>, lines: &str) {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child =
        command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2 is installed");
    child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("ip reads");
    let status = child.wait().expect("ip ends");
    assert!(status.success(), "ip -batch: {status}");
}
