//! Encapsulation and decapsulation, protocol by protocol, next to the floors.

use std::os::fd::RawFd;

use mptm::kernel::Program;

use crate::bench::stats::median;
use crate::bench::table::Table;
use crate::bench::{is_short, is_wanted};
use crate::site::{Counters, Site};
use crate::tunnels::Tunnel;

/// The inner IP packets, in bytes: the first makes an Ethernet frame of 64 bytes.
const SIZES: [usize; 2] = [50, 1500];
/// In nanoseconds above the floor.
const ENCAP_AIM: f64 = 22.0;
const DECAP_AIM: f64 = 20.0;

/// One thing that is measured.
struct Row {
    name: String,
    program: RawFd,
    frame: Vec<u8>,
    ifindex: u32,
    /// Of the rows before it, the one that it is compared with, and the aim; None: a floor.
    above: Option<(usize, f64)>,
    /// The counters that move, once per frame.
    counts: Vec<String>,
    times: Vec<f64>,
}

fn floor(site: &Site, name: &str, program: &str, frame: &[u8], size: usize) -> Row {
    Row {
        name: format!("{name}, {size}"),
        program: site.floor.of(program),
        frame: frame.to_vec(),
        ifindex: site.workload,
        above: None,
        counts: Vec::new(),
        times: Vec::new(),
    }
}

fn rows(site: &Site, tunnels: &[Tunnel]) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        let first = &tunnels[0];
        let frame = first.leaving(size);
        let outer = site.outcome(Program::Encap, site.workload, &frame);
        site.floor.put_header(first.inner.octets(), &template(&outer));
        let floors = rows.len();
        rows.push(floor(site, "floor: redirect", "redirect_only", &frame, size));
        rows.push(floor(site, "floor: adjust_head + redirect", "grow_and_redirect", &frame, size));
        rows.push(Row {
            above: Some((floors + 1, ENCAP_AIM)),
            ..floor(site, "GENEVE by hand", "geneve_by_hand", &frame, size)
        });
        for tunnel in tunnels.iter().filter(|tunnel| is_wanted(&format!("encap {}", tunnel.name))) {
            rows.push(Row {
                name: format!("encap {}, {size}", tunnel.name),
                program: site.program(Program::Encap),
                frame: tunnel.leaving(size),
                ifindex: site.workload,
                above: Some((floors + 1, ENCAP_AIM)),
                counts: vec!["mptm_encap action 4".into(), format!("{} encap", tunnel.name)],
                times: Vec::new(),
            });
        }
        for tunnel in tunnels.iter().filter(|tunnel| is_wanted(&format!("decap {}", tunnel.name))) {
            let outer = site.outcome(Program::Encap, site.workload, &tunnel.leaving(size));
            rows.push(Row {
                name: format!("decap {}, {size}", tunnel.name),
                program: site.program(Program::Decap),
                frame: tunnel.arriving(&outer, size),
                ifindex: site.underlay,
                above: Some((floors, DECAP_AIM)),
                counts: vec!["mptm_decap action 4".into(), format!("{} decap", tunnel.name)],
                times: Vec::new(),
            });
        }
    }
    rows
}

/// The 50 bytes of a GENEVE header over IPv4, with what differs from packet to packet zero, and the rest summed up.
fn template(outer: &[u8]) -> Vec<u8> {
    let mut header = outer[..50].to_vec();
    header[16..18].fill(0);
    header[24..26].fill(0);
    header[38..40].fill(0);
    let sum: u32 =
        header[14..34].chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    header[24..26].copy_from_slice(&(sum as u16).to_ne_bytes());
    header
}

/// What moved, as far as it did.
fn moved(before: &Counters, after: &Counters) -> Counters {
    let by = |(name, now): (&String, &u64)| (name.clone(), now - before.get(name).unwrap_or(&0));
    after.iter().map(by).filter(|(_, by)| *by > 0).collect()
}

/// Measures all rows, and prints them.
///
/// # Panics
/// A counter is not what it must be.
pub fn measure(site: &Site, tunnels: &[Tunnel]) {
    let (rounds, repeat) = if is_short() { (3, 2_000) } else { (101, 20_000) };
    let mut rows = rows(site, tunnels);
    for _ in 0..rounds {
        for row in &mut rows {
            let before = site.counters();
            row.times.push(site.floor.time(row.program, &row.frame, None, row.ifindex, repeat));
            let expected = row.counts.iter().map(|name| (name.clone(), u64::from(repeat))).collect();
            let moved = moved(&before, &site.counters());
            assert_eq!(moved, expected, "{}: counters", row.name);
        }
    }
    println!("{rounds} rounds of {repeat} frames each; nanoseconds per frame, medians\n");
    let mut table =
        Table::new(&["program, inner packet's bytes", "ns", "least", "above floor", "aim", "ratio"]);
    for row in &rows {
        let mut cells = vec![row.name.clone(), format!("{:.0}", median(&row.times))];
        cells.push(format!("{:.0}", row.times.iter().copied().fold(f64::INFINITY, f64::min)));
        match row.above {
            None => cells.extend([String::new(), String::new(), String::new()]),
            Some((floor, aim)) => {
                let above: Vec<f64> =
                    row.times.iter().zip(&rows[floor].times).map(|(time, floor)| time - floor).collect();
                let above = median(&above);
                cells.extend([format!("{above:.0}"), format!("{aim:.0}"), format!("{:.2}", above / aim)]);
            }
        }
        table.row(cells);
    }
    table.print();
}
