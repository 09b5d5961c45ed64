//! What it takes to bring a node to a file: from nothing, from the same file, after one change, after a change of every
//! route. Next to it the floor, which is the same entries written by bare batches of updates, and bpftool's batch mode.
//!
//! `cargo bench --bench reconcile`, as root; `MPTM_BENCH=short` is one size, once, and fails only if a count is wrong.

mod binary;
#[path = "../common/mod.rs"]
mod common;
mod fit;
mod floor;
#[path = "../common/generate.rs"]
mod generate;
#[path = "../common/node.rs"]
mod node;
mod pass;
mod run;

use std::path::Path;

use crate::generate::{Shape, is_size_wanted};
use crate::node::Node;
use common::is_short;
use common::stats::median;
use common::table::Table;
use fit::Fit;
use run::{Measured, Runs};

/// Routes.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Up to this size, a pass is repeated so often.
const REPEATED: [(usize, usize); 3] = [(10_000, 15), (200_000, 5), (usize::MAX, 3)];
/// The size for which bpftool is asked.
const BPFTOOL: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        // Each pass is a process of its own, so that its memory is its own, too.
        Some(pass::ARGUMENT) => return pass::main(&arguments[2..]),
        Some(floor::ARGUMENT) => return floor::main(Path::new(&arguments[2])),
        _ => {}
    }
    let Some(node) = Node::new(2) else { return };
    let sizes: &[usize] = if is_short() { &SIZES[..1] } else { &SIZES };
    let all: Vec<Runs> = sizes
        .iter()
        .filter(|size| is_size_wanted(**size))
        .map(|size| {
            let repeated = REPEATED.iter().find(|(most, _)| size <= most).map_or(1, |(_, times)| *times);
            Runs::new(&node, Shape::new(*size), if is_short() { 1 } else { repeated })
        })
        .collect();
    whole(&all);
    phases(&all);
    maps(&all);
    if all.len() > 1 {
        growth(&all);
    }
    if all.iter().any(|runs| runs.shape.routes == BPFTOOL) {
        bpftool(&node, &Shape::new(BPFTOOL));
    }
    binary::report(&node, if is_short() { 1 } else { 20 });
}

/// The binary, from its start to its end.
fn whole(all: &[Runs]) {
    println!("The binary: seconds from start to end, and its peak of memory\n");
    let mut table =
        Table::new(&["routes", "what", "wall, s", "CPU, s", "peak, MiB", "floor, s", "wall / floor"]);
    for runs in all {
        let Runs { shape, floor, .. } = runs;
        for measured in &runs.measured {
            let wall = median(&measured.walls);
            let floor = if measured.what.reads_only() { floor.read } else { floor.read + floor.write };
            table.row(vec![
                shape.routes.to_string(),
                measured.what.name().into(),
                format!("{wall:.3}"),
                format!("{:.3}", median(&measured.cpus)),
                format!("{:.0}", median(&measured.peaks)),
                format!("{floor:.3}"),
                format!("{:.1}", wall / floor),
            ]);
        }
    }
    table.print();
}

/// Where the time goes.
fn phases(all: &[Runs]) {
    println!("The phases of a pass, ms\n");
    let mut heading = vec!["routes", "what"];
    heading.extend(pass::PHASES);
    heading.push("sum");
    let mut table = Table::new(&heading);
    for Runs { shape, measured, .. } in all {
        for Measured { what, phases, .. } in measured {
            let mut cells = vec![shape.routes.to_string(), what.name().into()];
            let medians: Vec<f64> = (0..pass::PHASES.len())
                .map(|place| median(&phases.iter().map(|times| times[place]).collect::<Vec<_>>()))
                .collect();
            cells.extend(medians.iter().map(|ms| format!("{ms:.1}")));
            cells.push(format!("{:.1}", medians.iter().sum::<f64>()));
            table.row(cells);
        }
    }
    table.print();
}

/// What the maps take, which have room for up to twice the routes and tunnels.
fn maps(all: &[Runs]) {
    println!("Memory of the maps, as the kernel counts it\n");
    let mut table = Table::new(&["routes", "tunnels", "MiB", "bytes per route"]);
    for Runs { shape, memory, .. } in all {
        table.row(vec![
            shape.routes.to_string(),
            shape.tunnels.to_string(),
            format!("{:.1}", *memory as f64 / 1024.0 / 1024.0),
            format!("{:.0}", *memory as f64 / shape.routes as f64),
        ]);
    }
    table.print();
}

/// How the time grows with the routes.
fn growth(all: &[Runs]) {
    println!(
        "Wall time over routes: fixed + per route, by least squares of relative errors; the exponent is that of a power\n"
    );
    let mut table = Table::new(&["what", "fixed, ms", "per route, µs", "largest error", "exponent"]);
    for (place, first) in all[0].measured.iter().enumerate() {
        let points: Vec<(f64, f64)> =
            all.iter().map(|runs| (runs.shape.routes as f64, median(&runs.measured[place].walls))).collect();
        let fit = Fit::of(&points);
        table.row(vec![
            first.what.name().into(),
            format!("{:.1}", fit.fixed * 1e3),
            format!("{:.2}", fit.slope * 1e6),
            format!("{:.0} %", fit.largest_error * 100.0),
            format!("{:.2}", fit::exponent(&points)),
        ]);
    }
    table.print();
}

fn bpftool(node: &Node, shape: &Shape) {
    let repeats = if is_short() { 1 } else { 5 };
    let Some((lines, seconds)) = floor::bpftool(node, shape, repeats) else {
        eprintln!("SKIPPED (needs bpftool): the same entries by bpftool batch");
        return;
    };
    println!("bpftool batch, {lines} lines for the same entries: {seconds:.3} s\n");
}
