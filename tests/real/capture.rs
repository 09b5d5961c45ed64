//! What is on the wire, by tcpdump at the far node's end, read by tshark.

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::site::{Site, UNDERLAY, finish};
use crate::world::soon;

/// Whether programs are there; says which are not.
pub fn installed(title: &str, programs: &[(&str, &str)]) -> bool {
    for (program, package) in programs {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            // Not eprintln: the test harness would swallow it.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("SKIPPED (needs {package}: {program}): {title}\n").as_bytes(),
            );
            return false;
        }
    }
    true
}

/// What a capture needs.
pub const TOOLS: [(&str, &str); 2] = [("tcpdump", "tcpdump"), ("tshark", "tshark")];

/// A running capture at node 2's end of the wire, of what node 1 sends.
pub struct Capture {
    directory: TempDir,
    pid: u32,
}

impl Capture {
    /// Starts one. XDP takes packets before tcpdump sees them, but mptm_pass leaves them.
    pub fn start(site: &mut Site) -> Self {
        let directory = TempDir::new().unwrap();
        let said = directory.path().join("stderr");
        let sender = Site::mac(&site.nodes[0].netns, UNDERLAY[0]);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", site.nodes[1].netns.path().display()));
        command.args(["tcpdump", "-i", UNDERLAY[1], "-U", "--immediate-mode", "-Z", "root", "-c", "20000", "-w"]);
        command.arg(directory.path().join("pcap"));
        // Only what comes in. A VLAN tunnel leaves the containers' own MAC addresses.
        command.args(["-Q", "in", "not", "ether", "host", &sender, "or", "ip"]);
        command.stderr(fs::File::create(&said).unwrap());
        let pid = site.world.spawn(&mut command);
        let listens = || fs::read_to_string(&said).is_ok_and(|said| said.contains("listening on"));
        assert!(soon(listens), "tcpdump: {}", fs::read_to_string(&said).unwrap());
        Self { directory, pid }
    }

    /// Waits until `count` packets fit a display filter, and ends the capture.
    pub fn stop(&self, site: &mut Site, filter: &str, count: usize) {
        let there = || self.fields(filter, &["frame.number"]).len() >= count;
        assert!(soon(there), "no {count} of {filter}:\n{}", self.text("frame"));
        site.world.end(self.pid);
    }

    fn tshark(&self) -> Command {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(self.directory.path().join("pcap"));
        for option in ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"] {
            command.args(["-o", &format!("{option}:TRUE")]);
        }
        command
    }

    /// Fields of the packets that a filter takes; the outer header's value of a field comes first, after it a comma and
    /// the inner one's.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut command = self.tshark();
        command.args(["-Y", filter, "-T", "fields", "-E", "separator=/t"]);
        for field in fields {
            command.args(["-e", field]);
        }
        // While tcpdump writes, the last packet may be half there: tshark says so and shows the others.
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Everything that tshark says of the packets that a filter takes.
    pub fn text(&self, filter: &str) -> String {
        finish(self.tshark().args(["-V", "-Y", filter])).unwrap_or_else(|said| said)
    }
}
