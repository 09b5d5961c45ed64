//! Maps that grow and shrink with the file: nothing is lost meanwhile, and nothing is counted wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use libbpf_rs::{MapCore, MapHandle};
use mptm::kernel::linux::BpfDataPlane;
use mptm::kernel::{DataPlane, Sizes, Table};

use crate::lab::{self, Node, soon};
use crate::snapshot::{Machine, Pinned};
use crate::traffic::loss_both_ways_while;

/// The plain file with so many more tunnels, and so many more routes through them.
fn file(node: &Node, tunnels: u32, routes: u32) -> String {
    let mut file = node.plain_file();
    for tunnel in 0..tunnels {
        let id = 1000 + tunnel;
        write!(
            file,
            "[tunnel.t{tunnel}]\nprotocol = \"vxlan\"\nid = {id}\nremote = \"10.30.30.2\"\ninner = ["
        )
        .unwrap();
        for route in (tunnel..routes).step_by(tunnels as usize) {
            let [_, a, b, c] = route.to_be_bytes();
            write!(file, "\"11.{a}.{b}.{c}\", ").unwrap();
        }
        file += "]\n";
    }
    file
}

/// How many entries the pinned maps have room for.
fn sizes(node: &Node) -> BTreeMap<&'static str, u32> {
    ["routes", "tunnels", "interfaces", "devices"]
        .into_iter()
        .map(|name| {
            let map = MapHandle::from_pinned_path(node.pin.join("maps").join(name)).unwrap();
            (name, map.max_entries())
        })
        .collect()
}

/// Packets that the tunnel `far` has encapsulated and decapsulated.
fn counted(node: &Node) -> [u64; 2] {
    let status: serde_json::Value = serde_json::from_str(&node.mptm("status --json").done().stdout).unwrap();
    let tunnels = status["tunnels"].as_array().unwrap();
    let tunnel = tunnels.iter().find(|tunnel| tunnel["name"] == "far").unwrap();
    ["encap", "decap"].map(|direction| tunnel[direction]["packets"].as_u64().unwrap())
}

#[test]
fn nothing_is_lost() {
    lab::run("resize: nothing is lost", |lab| {
        let node = &lab.a;
        let clean = Machine::look(lab);
        lab.b.apply(&lab.b.plain_file());
        node.apply(&file(node, 3, 10));
        let small = sizes(node);
        let links = Pinned::look(&node.pin).links;
        let before = [counted(node), counted(&lab.b)];
        let lost = loss_both_ways_while(lab, || {
            node.write(&file(node, 3, 100_000));
            let dry = node.mptm("apply --dry-run").done();
            assert!(dry.stdout.starts_with("~ data-plane: room for routes 1024 -> 131072\n"), "{dry:?}");
            node.mptm("apply").done();
            assert_eq!(sizes(node)["routes"], 131_072);
            node.mptm("apply").nothing_to_do();
            node.apply(&file(node, 3, 10));
            assert_eq!(sizes(node), small);
            node.mptm("apply").nothing_to_do();
            // The counters are in maps that grow with the tunnels.
            for _ in 0..10 {
                node.apply(&file(node, 300, 300));
                assert_eq!(sizes(node)["tunnels"], 2 * 512);
                node.apply(&file(node, 3, 10));
                // 512 is not far too large for 4.
                let dropped = node.apply(&node.plain_file());
                assert!(!dropped.stdout.contains("tunnel far"), "{dropped:?}");
            }
        });
        println!("grown and shrunk: of {lost:?} (sent, lost)");
        assert!(lost.iter().all(|(sent, lost)| *sent > 1000 && *lost == 0), "{lost:?}");
        // What either end has sent is what the other one has received, to the packet; and its maps never changed.
        let same = || {
            let [[a_sent, a_received], [b_sent, b_received]] = before;
            let (a, b) = (counted(node), counted(&lab.b));
            (a[0] - a_sent, a[1] - a_received) == (b[1] - b_received, b[0] - b_sent)
        };
        assert!(soon(same), "{before:?}, {:?}, {:?}", counted(node), counted(&lab.b));
        for (name, (link, _)) in Pinned::look(&node.pin).links {
            assert_eq!(link, links[&name].0, "{name} was attached again");
        }
        node.mptm("down").done();
        lab.b.mptm("down").done();
        Machine::look(lab).in_the_long_run().must_be(&clean.in_the_long_run());
    });
}

/// More entries than any kernel's maps can have.
#[test]
fn the_kernel_says_no() {
    lab::run("resize: the kernel says no", |lab| {
        let node = &lab.a;
        node.apply(&node.plain_file());
        let before = (Machine::look(lab), Pinned::look(&node.pin), sizes(node));
        let mut bpf = BpfDataPlane::new(&node.pin);
        let meta = bpf.meta().unwrap().unwrap();
        // Hashes only: an array of that size may well fit into some machine.
        for (table, map) in [(Table::Routes, "routes"), (Table::Names, "names")] {
            let mut sizes = bpf.sizes().unwrap();
            sizes[table] = u32::MAX;
            let error = bpf.resize(&meta, &sizes).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot make the map {map} for 4294967295 entries"));
            let hint = "no map of this kernel can be so large: spread tunnels and routes over several nodes";
            assert_eq!(error.hint.as_deref(), Some(hint));
        }
        let error = bpf.resize(&meta, &Sizes::each(|_| 1)).unwrap_err();
        assert!(error.to_string().contains("cannot copy the map"), "{error}");
        Pinned::look(&node.pin).must_be(&before.1);
        assert_eq!(sizes(node), before.2);
        node.mptm("apply").nothing_to_do();
        Machine::look(lab).must_be(&before.0);
        node.mptm("down").done();
    });
}
