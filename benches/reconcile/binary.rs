//! The binary itself: how large it is, and how long it takes to start.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::common::stats::median;
use crate::generate::Shape;
use crate::node::{MPTM, Node};

/// Prints its size, and the milliseconds of commands that only look.
pub fn report(node: &Node, repeats: usize) {
    let size =
        |path: &Path| fs::metadata(path).map_or(0.0, |metadata| metadata.len() as f64 / 1024.0 / 1024.0);
    println!("The binary: {:.1} MiB with line tables", size(Path::new(MPTM)));
    let stripped = node.path("stripped");
    match Command::new("strip").arg("-o").arg(&stripped).arg(MPTM).status() {
        Ok(status) if status.success() => println!("Stripped: {:.1} MiB", size(&stripped)),
        _ => eprintln!("SKIPPED (needs strip): the size without line tables"),
    }
    let shape = Shape::new(1_000);
    let file = node.path("start.toml");
    shape.write(&file, &node.head()).expect("there is room for a file");
    let ms = |arguments: &[&str]| {
        let times: Vec<f64> = (0..repeats)
            .map(|_| {
                let begin = Instant::now();
                let output =
                    node.mptm(&file, arguments).stderr(Stdio::null()).output().expect("cargo has built it");
                assert!(output.status.success(), "mptm {arguments:?}");
                begin.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        median(&times)
    };
    println!("mptm --version: {:.1} ms", ms(&["--version"]));
    let applied = node.mptm(&file, &["apply"]).output().expect("cargo has built mptm");
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    println!("mptm status, 1000 routes over {} tunnels: {:.1} ms\n", shape.tunnels, ms(&["status"]));
    node.down();
}
