//! Changes under load: one tunnel carries a steady stream both ways while all others come, change and go, and while the
//! programs are replaced. `MPTM_RELOADS` is the number of changes, 200 if unset; each tenth replaces the programs.

use std::env;
use std::fmt::Write as _;

use crate::lab::{self, Node};
use crate::snapshot::{Pinned, poke_meta};
use crate::traffic::loss_both_ways_while;

/// The plain file, and those of tunnels b to z whose turn it is, each another than in the round before.
fn file(node: &Node, round: u32) -> String {
    let mut file = node.plain_file();
    for (number, letter) in (1..).zip('b'..='z') {
        if (round + number).is_multiple_of(3) {
            continue;
        }
        let header = match number % 6 {
            0 => format!("protocol = \"geneve\"\nid = {}", 100 * number + round % 50),
            1 => format!("protocol = \"vxlan\"\nid = {number}\nmtu = {}", 1400 - round % 100),
            2 => format!("protocol = \"gre\"\nid = {number}\nchecksum = {}", round.is_multiple_of(2)),
            3 => format!("protocol = \"gtpu\"\nid = {number}\nqfi = {}", round % 64),
            4 => format!("protocol = \"gretap\"\nid = {number}\nttl = {}", 1 + round % 255),
            _ => format!("protocol = \"geneve\"\nid = {number}\ndebug = {}", round.is_multiple_of(2)),
        };
        writeln!(
            file,
            "[tunnel.{letter}]\n{header}\nremote = \"10.30.30.2\"\ninner = [\"10.{}.{}.0/24\", \"10.{}.0.1\"]{}",
            100 + number,
            round % 7,
            150 + number,
            if round.is_multiple_of(2) { "\nfrom = [\"10.250.1.1\"]" } else { "" },
        )
        .unwrap();
    }
    file
}

#[test]
fn the_others_are_not_noticed() {
    lab::run("load: the others are not noticed", |lab| {
        let node = &lab.a;
        for node in [&lab.a, &lab.b] {
            node.apply(&node.plain_file());
        }
        let reloads = env::var("MPTM_RELOADS").map_or(200, |number| number.parse().expect("MPTM_RELOADS"));
        let links = Pinned::look(&node.pin).links;
        let offset = std::mem::offset_of!(mptm::kernel::abi::Meta, build);
        let mut replaced = 0;
        let lost = loss_both_ways_while(lab, || {
            for round in 0..reloads {
                let upgrade = round % 10 == 9;
                if upgrade {
                    poke_meta(&node.pin, offset, round as u8);
                }
                let outcome = node.apply(&file(node, round));
                assert!(!outcome.stdout.contains("tunnel far"), "{outcome:?}");
                replaced += u32::from(outcome.stdout.contains("~ data-plane: build "));
            }
            node.apply(&node.plain_file());
        });
        for (sent, lost) in lost {
            assert!(sent > 10 * reloads, "only {sent} were sent");
            assert_eq!(lost, 0, "of {sent}");
        }
        assert!(replaced + 1 >= reloads / 10, "the programs were replaced {replaced} times only");
        println!("{reloads} changes, programs replaced {replaced} times: of {lost:?} (sent, lost)");
        // Never attached again.
        for (name, (link, _)) in Pinned::look(&node.pin).links {
            assert_eq!(link, links[&name].0, "{name}");
        }
        node.mptm("apply").nothing_to_do();
    });
}
