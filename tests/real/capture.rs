//! What is on the wire: tcpdump at the switch between the nodes, read by tshark.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::site::{Node, finish};
use crate::world::{World, soon};

/// Whether programs are installed; says loudly which are not.
pub fn installed(title: &str, package: &str, programs: &[&str]) -> bool {
    let runs = |program: &&&str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let missing: Vec<_> = programs.iter().filter(|program| !runs(program)).collect();
    if !missing.is_empty() {
        skipped(&format!("needs {package}"), &format!("{title}: no {missing:?}"));
    }
    missing.is_empty()
}

/// Says loudly that a test was skipped. Not by eprintln: the test harness would swallow it.
pub fn skipped(why: &str, what: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED ({why}): {what}");
}

/// Whether packets can be captured and read.
pub fn can_capture(title: &str) -> bool {
    installed(title, "tcpdump", &["tcpdump"]) && installed(title, "tshark", &["tshark"])
}

/// A capture of what node 1 sends to the switch.
pub struct Capture {
    directory: TempDir,
    pid: u32,
}

impl Capture {
    /// Starts one, of 20,000 packets at most.
    pub fn start(world: &mut World, switch: &Node) -> Self {
        let directory = TempDir::new().unwrap();
        let said = directory.path().join("stderr");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", switch.netns.path().display()));
        command.args([
            "tcpdump",
            "-i",
            "p1",
            "-Q",
            "in",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-c",
            "20000",
        ]);
        // Room for all packets of a test, so that none is missing however busy the machine is.
        command.args(["-s", "2048", "-B", "32768"]);
        command.arg("-w").arg(directory.path().join("pcap"));
        command.stderr(fs::File::create(&said).unwrap());
        let pid = world.spawn(&mut command);
        let listens = || fs::read_to_string(&said).is_ok_and(|said| said.contains("listening on"));
        assert!(soon(listens), "tcpdump: {}", fs::read_to_string(&said).unwrap());
        Self { directory, pid }
    }

    /// Waits until `count` packets fit a display filter, and ends the capture.
    pub fn stop(&self, world: &mut World, filter: &str, count: usize) {
        let there = || self.fields(filter, &["frame.number"]).len() >= count;
        assert!(soon(there), "no {count} packets of {filter}: {:?}", self.seen());
        world.end(self.pid);
    }

    fn seen(&self) -> Vec<Vec<String>> {
        self.fields("frame", &["frame.protocols", "ip.src", "udp.dstport"])
    }

    fn tshark(&self) -> Command {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(self.directory.path().join("pcap"));
        for option in ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"] {
            command.args(["-o", &format!("{option}:TRUE")]);
        }
        // Fragments are to be seen, not what was made of them.
        for option in ["ip.defragment", "ipv6.defragment"] {
            command.args(["-o", &format!("{option}:FALSE")]);
        }
        command.args(["-X", concat!("lua_script:", env!("CARGO_MANIFEST_DIR"), "/tests/real/gue.lua")]);
        command
    }

    /// Fields of the packets that a filter takes. Where a field is in more than one header, the outermost comes first,
    /// and commas are between them.
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
