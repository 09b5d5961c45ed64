//! The passes over one size of file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use mptm::kernel::linux::BpfDataPlane;

use crate::floor::Floor;
use crate::generate::Shape;
use crate::node::Node;
use crate::pass;

/// What a pass has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Cold,
    Nothing,
    One,
    All,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Nothing => "no-op",
            Self::One => "one changed",
            Self::All => "all changed",
        }
    }

    /// Whether there is next to nothing to write.
    pub fn reads_only(self) -> bool {
        matches!(self, Self::Nothing | Self::One)
    }
}

/// How the passes of one kind went.
pub struct Measured {
    pub what: What,
    /// Seconds, of the binary.
    pub walls: Vec<f64>,
    /// Seconds of CPU time, of the binary: on a machine that does other things, the steadier measure.
    pub cpus: Vec<f64>,
    /// MiB, of the binary.
    pub peaks: Vec<f64>,
    /// Milliseconds by phase, of passes of the bench's own.
    pub phases: Vec<Vec<f64>>,
}

/// All passes over one size.
pub struct Runs {
    pub shape: Shape,
    pub measured: Vec<Measured>,
    pub floor: Floor,
    /// Bytes that all maps take.
    pub memory: u64,
}

impl Runs {
    pub fn new(node: &Node, shape: Shape, repeated: usize) -> Self {
        let file = |name: &str, shape: &Shape| {
            let path = node.path(&format!("{}-{name}.toml", shape.routes));
            shape.write(&path, &node.head()).expect("there is room for a file");
            path
        };
        let base = file("base", &shape);
        let one = file("one", &shape.one_changed());
        let all = file("all", &shape.all_changed());
        let mut measured = Vec::new();
        let mut floor = None;
        let mut memory = 0;
        for what in [What::Cold, What::Nothing, What::One, What::All] {
            let mut runs =
                Measured { what, walls: Vec::new(), cpus: Vec::new(), peaks: Vec::new(), phases: Vec::new() };
            for _ in 0..repeated {
                let changed = match what {
                    What::Cold | What::Nothing => &base,
                    What::One => &one,
                    What::All => &all,
                };
                if what == What::Cold {
                    node.down();
                }
                let (said, wall, Usage { cpu, peak }) = binary(node, changed);
                check_said(what, &shape, &said);
                runs.walls.push(wall);
                runs.cpus.push(cpu);
                runs.peaks.push(peak);
                if what == What::Cold {
                    node.down();
                }
                // The same change back.
                let (steps, phases) = own(node, &base);
                check_steps(what, &shape, steps);
                runs.phases.push(phases);
            }
            if what == What::Cold {
                floor = Some(Floor::of(&node.pin));
                memory = BpfDataPlane::new(&node.pin).memory().expect("the maps are there");
            }
            measured.push(runs);
            eprintln!("{} routes, {}: done", shape.routes, what.name());
        }
        node.down();
        for path in [base, one, all] {
            let _ = std::fs::remove_file(path);
        }
        let floor = floor.expect("the first passes were cold");
        floor.check(&shape);
        Self { shape, measured, floor, memory }
    }
}

/// What a process has taken.
struct Usage {
    /// Seconds of CPU time.
    cpu: f64,
    /// The peak of its memory, in MiB.
    peak: f64,
}

/// `mptm apply`: what it said, how many seconds it took, and what else.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it has taken")]
fn binary(node: &Node, file: &Path) -> (String, f64, Usage) {
    let log: PathBuf = node.path("said");
    let mut command = node.mptm(file, &["apply"]);
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).expect("a file of the bench's own"));
    let begin = Instant::now();
    let child = command.spawn().expect("cargo has built mptm");
    let (status, usage) = wait(child.id());
    let wall = begin.elapsed().as_secs_f64();
    let said = std::fs::read_to_string(&log).expect("it was just written");
    assert_eq!(status, 0, "mptm apply: {said}");
    (said, wall, usage)
}

/// Waits for a child: its status, and what it has taken. Nobody else waits for it.
fn wait(pid: u32) -> (i32, Usage) {
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage, which has only numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types.
    let waited = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid as libc::pid_t, "{}", std::io::Error::last_os_error());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    (status, Usage { cpu, peak: usage.ru_maxrss as f64 / 1024.0 })
}

/// A pass of the bench's own: how many steps it took, and the phases in milliseconds.
fn own(node: &Node, file: &Path) -> (usize, Vec<f64>) {
    let output = Command::new(std::env::current_exe().expect("/proc is mounted"))
        .arg(pass::ARGUMENT)
        .args([file, &node.pin])
        .arg(&node.netns)
        .output()
        .expect("it is running");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it prints numbers");
    let mut words = text.split_whitespace();
    let steps = words.next().and_then(|word| word.parse().ok()).expect("the number of steps");
    (steps, words.map(|word| word.parse().expect("milliseconds")).collect())
}

/// What apply says that it has done.
fn check_said(what: What, shape: &Shape, said: &str) {
    match what {
        What::Nothing => assert_eq!(said, "Nothing to do.\n"),
        What::One => assert_eq!(said, "Done: 0 added, 1 changed, 0 removed.\n"),
        What::All => {
            assert_eq!(said, format!("Done: 0 added, {} changed, 0 removed.\n", shape.routes));
        }
        What::Cold => {
            let added = said.strip_prefix("Done: ").and_then(|rest| rest.split(' ').next());
            let added: usize = added.and_then(|word| word.parse().ok()).expect("so many added");
            // Routes, tunnels and their endpoints; and some for the interfaces.
            assert!((1..30).contains(&(added - shape.routes - 2 * shape.tunnels)), "{said}");
        }
    }
}

fn check_steps(what: What, shape: &Shape, steps: usize) {
    match what {
        What::Nothing => assert_eq!(steps, 0),
        What::One => assert_eq!(steps, 1),
        What::All => assert_eq!(steps, shape.routes),
        What::Cold => assert!(steps > shape.routes + 2 * shape.tunnels, "{steps}"),
    }
}
