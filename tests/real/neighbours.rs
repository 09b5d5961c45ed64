//! Containers keep asking for each other's MAC addresses, also from link-local addresses, and get answers.

use std::thread;
use std::time::Duration;

use crate::kernel_end::addressed_over;
use crate::matrix::{ROWS, Row};
use crate::protocols::file;
use crate::site::{Container, Family, Site, exec};
use crate::traffic::{ping_with, udp_socket};
use crate::world;

fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).expect("a row of this name")
}

/// Has a container doubt what it knows after a second.
fn impatient(container: &Container, device: &str) {
    for family in ["ipv4", "ipv6"] {
        let of = format!("net.{family}.neigh.{device}");
        exec(
            &container.netns,
            "sysctl",
            &format!(
                "-qw {of}.base_reachable_time_ms=300 {of}.delay_first_probe_time=1 {of}.retrans_time_ms=200"
            ),
        );
    }
}

/// Datagrams for a while, of which none is lost, and which tell nobody that the neighbour is still there.
fn steady(from: &Container, to: &Container) {
    let (near, far) = (udp_socket(&from.netns, from.address), udp_socket(&to.netns, to.address));
    let mut buffer = [0; 8];
    for number in 0..40_u64 {
        near.send_to(&number.to_be_bytes(), far.local_addr().unwrap()).unwrap();
        far.recv(&mut buffer).unwrap_or_else(|error| panic!("datagram {number} to {}: {error}", to.address));
        assert_eq!(u64::from_be_bytes(buffer), number);
        thread::sleep(Duration::from_millis(100));
    }
    let known = exec(&from.netns, "ip", &format!("neigh show {}", to.address));
    assert!(known.contains("lladdr") && !known.contains("FAILED"), "{known}");
}

/// How many neighbour solicitations a container has sent.
fn solicitations(container: &Container) -> u64 {
    let said = exec(&container.netns, "nstat", "-asz Icmp6OutNeighborSolicits");
    let mut words = said.split_whitespace().skip_while(|word| *word != "Icmp6OutNeighborSolicits");
    words.nth(1).expect("a number").parse().unwrap()
}

fn stay_known(name: &str, outer: Family, kernel: bool) {
    let far_end = if kernel { "the kernel's" } else { "two nodes'" };
    world::run(&format!("neighbours through {far_end} {name}"), |world, _| {
        let mut site = Site::new(world);
        let row = row(name);
        let c1 = site.container(0, "c1", "10.250.1.1");
        let c2 = if kernel {
            site.add_ipv6(&[&c1]);
            site.wire(1);
            let Some(far) = addressed_over(&site, name, outer, row.mtu(1500, outer)) else { return };
            impatient(&far, "tun0");
            far
        } else {
            let c2 = site.container(1, "c2", "10.250.1.2");
            site.add_ipv6(&[&c1, &c2]);
            site.nodes[1].apply(&file(1, row, outer));
            impatient(&c2, "eth0");
            c2
        };
        site.nodes[0].apply(&file(0, row, outer));
        impatient(&c1, "eth0");
        thread::scope(|scope| {
            for inner in Family::BOTH {
                let [c1, c2] = [c1.at(inner), c2.at(inner)];
                scope.spawn(move || {
                    ping_with(&c1.netns, c2.address, 56, "");
                    thread::scope(|scope| {
                        scope.spawn(|| steady(&c1, &c2));
                        scope.spawn(|| steady(&c2, &c1));
                    });
                });
            }
        });
        for container in [&c1, &c2] {
            assert!(solicitations(container) >= 3, "{} solicitations", solicitations(container));
        }
        if kernel {
            // Linux asks for the link-local address that it was asked from, too, and gets there: it is known by then.
            let status = site.nodes[0].status();
            let drops = status.drops();
            assert!(drops.keys().all(|reason| *reason == "inner-group"), "{drops:?}");
        } else {
            site.nothing_dropped();
        }
    });
}

#[test]
fn ethernet() {
    stay_known("vxlan", Family::V4, false);
}

#[test]
fn ip() {
    stay_known("gre", Family::V6, false);
}

#[test]
fn kernel() {
    stay_known("vxlan", Family::V6, true);
}
