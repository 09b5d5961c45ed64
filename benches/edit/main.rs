//! From an edit to its effect: the time from the rename() that puts a new file into place, under a running `mptm watch`, to
//! the first packet that takes the new way.
//!
//! A container sends a numbered packet every 0.2 ms to an address that is behind one tunnel or the other, as the file says; at
//! the far end of the cable each is stamped by the kernel when it arrives. None may be lost, and none may take the old way
//! after one has taken the new.
//!
//! `cargo bench --bench edit`, as root; `MPTM_BENCH=short` is few edits of small files, and fails only if a count is wrong.

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other benches use the rest")]
mod common;
#[path = "../common/generate.rs"]
#[expect(dead_code, reason = "this bench changes its files itself")]
mod generate;
#[path = "../common/node.rs"]
mod node;
mod probe;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::generate::{Shape, far_end};
use crate::node::Node;
use common::stats::percentile;
use common::table::Table;
use common::{is_short, is_wanted};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use probe::{PROBED, Probes};

/// Routes, and how often the file is edited.
const SIZES: [(usize, usize); 4] = [(1, 200), (1_000, 200), (100_000, 50), (1_000_000, 10)];
const SHORT: [(usize, usize); 2] = [(1, 5), (1_000, 5)];
/// What is between an edit's end and the next edit, at least: as long as an operator, or a deployment, takes.
const REST: Duration = Duration::from_millis(200);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let Some(node) = Node::new(1) else { return };
    println!("From rename() to the first packet on the new way, ms\n");
    let mut table = Table::new(&["routes", "tunnels", "edits", "p50", "p99", "max", "lost"]);
    let sizes: &[(usize, usize)] = if is_short() { &SHORT } else { &SIZES };
    for (routes, edits) in sizes.iter().filter(|(routes, _)| is_wanted(&routes.to_string())) {
        let shape = Shape::new(*routes);
        let (mut times, lost) = measure(&node, &shape, *edits);
        times.sort_by(f64::total_cmp);
        table.row(vec![
            routes.to_string(),
            (shape.tunnels + 2).to_string(),
            edits.to_string(),
            format!("{:.1}", percentile(&times, 50.0)),
            format!("{:.1}", percentile(&times, 99.0)),
            format!("{:.1}", times[times.len() - 1]),
            lost.to_string(),
        ]);
    }
    table.print();
}

/// The milliseconds that each edit took, and how many packets were lost meanwhile.
fn measure(node: &Node, shape: &Shape, edits: usize) -> (Vec<f64>, u64) {
    let ways = [0, 1].map(|way| {
        let path = node.path(&format!("way{way}"));
        shape.write(&path, &(node.head() + &tunnels(shape, way))).expect("there is room for a file");
        path
    });
    let file = node.path("mptm.toml");
    fs::copy(&ways[0], &file).expect("there is room for a file");
    let watch = Watch::start(node, &file);
    watch.says("start: + program w0");
    // What it finds when it looks at its own changes is nothing.
    thread::sleep(REST * 3);
    let probes = Probes::start(node, [0, 1].map(far_end));
    wait_for("the first packet", || probes.seen().last.is_some_and(|(_, way)| way == 0));
    let mut times = Vec::new();
    for edit in 1..=edits {
        let way = edit % 2;
        let next = node.path("next");
        fs::copy(&ways[way], &next).expect("there is room for a file");
        thread::sleep(REST);
        let begin = now();
        fs::rename(&next, &file).expect("both are in one directory");
        wait_for("a packet on the new way", || probes.seen().turns.len() == edit);
        let (at, on) = probes.seen().turns[edit - 1];
        assert_eq!(on, way, "edit {edit}");
        times.push((at - begin) as f64 / 1e6);
        watch.says_times(&format!("route default {PROBED}: "), 1 + edit);
    }
    thread::sleep(REST);
    let seen = probes.stop();
    // Each edit is one turn: none on the old way after one on the new.
    assert_eq!(seen.turns.len(), edits);
    assert_eq!(seen.lost, 0, "packets were lost in {edits} edits");
    watch.stop();
    node.down();
    for path in ways.iter().chain([&file]) {
        let _ = fs::remove_file(path);
    }
    eprintln!("{} routes: done", shape.routes);
    (times, seen.lost)
}

/// Two tunnels, one of which has the address that the packets are for.
fn tunnels(shape: &Shape, way: usize) -> String {
    let tunnel = |number: usize| {
        let probed = if number == way { format!(", \"{PROBED}\"") } else { String::new() };
        format!(
            "\n[tunnel.way{number}]\nprotocol = \"geneve\"\nid = {}\nremote = \"{}\"\ninner = [\"10.98.0.{number}\"\
             {probed}]\n",
            shape.tunnels + 1 + number,
            far_end(number)
        )
    };
    tunnel(0) + &tunnel(1)
}

/// Nanoseconds of the clock that packets are stamped by.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_nanos() as u64
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(Duration::from_millis(1));
    }
}

/// `mptm watch`, until the bench ends.
struct Watch {
    child: Child,
    log: PathBuf,
}

impl Watch {
    fn start(node: &Node, file: &Path) -> Self {
        let log = node.path("log");
        let mut command = node.mptm(file, &["watch"]);
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a file of the bench's own"));
        Self { child: command.spawn().expect("cargo has built mptm"), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a file of the bench's own")
    }

    fn says(&self, text: &str) {
        self.says_times(text, 1);
    }

    fn says_times(&self, text: &str, times: usize) {
        wait_for(text, || self.log().matches(text).count() == times);
    }

    fn stop(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it is running");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "mptm watch: {status}: {}", self.log());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
