//! Fields of the outer header that the file sets, and those that are inherited, as tshark reads them.

use crate::capture::{Capture, can_capture};
use crate::matrix::{Carries, Overhead, Row};
use crate::protocols::file;
use crate::site::{Family, Site};
use crate::traffic::ping_with;
use crate::world;

/// Pings through a tunnel with options of `ping`; what fields of the outer header each request must have.
fn outer(
    keys: &'static str,
    outer: Family,
    inner: Family,
    options: &str,
    expected: &[(&str, &str)],
) -> Vec<Vec<String>> {
    let title = format!("{expected:?} of the outer header");
    if !can_capture(&title) {
        return Vec::new();
    }
    let tagged = keys.contains("vlan") || keys.contains("qinq");
    let row = Row {
        name: "of its own",
        label: "",
        keys,
        carries: Carries::Ethernet,
        overhead: if tagged { Overhead::Tags(0) } else { Overhead::Ip(0) },
        layers: "",
        fields: &[],
        peers: &[],
    };
    let mut numbers = Vec::new();
    world::run(&title, |world, _| {
        let (mut site, switch) = Site::with_switch(world);
        let containers = site.two_containers();
        site.add_ipv6(&[&containers[0], &containers[1]]);
        for node in 0..2 {
            site.nodes[node].apply(&file(node, &row, outer));
        }
        let [c1, c2] = containers.each_ref().map(|container| container.at(inner));
        ping_with(&c1.netns, c2.address, 56, "");
        let capture = Capture::start(site.world, &switch);
        ping_with(&c1.netns, c2.address, 56, options);
        let filter = match inner {
            Family::V4 => format!("icmp.type == 8 and ip.src == {}", c1.address),
            Family::V6 => format!("icmpv6.type == 128 and ipv6.src == {}", c1.address),
        };
        capture.stop(site.world, &filter, 3);
        let (fields, expected): (Vec<&str>, Vec<&str>) = expected.iter().copied().unzip();
        for row in capture.fields(&filter, &fields) {
            let first: Vec<&str> = row.iter().map(|values| values.split(',').next().unwrap()).collect();
            assert_eq!(first, expected, "{fields:?}");
        }
        site.nothing_dropped();
        numbers = capture.fields(&filter, &["ip.id"]);
    });
    numbers
}

#[test]
fn inherited_over_ipv4() {
    let keys = "protocol = \"vxlan\"\nid = 42\nttl = \"inherit\"\ntos = \"inherit\"\ndf = \"inherit\"";
    let dscp = ("ip.dsfield.dscp", "46");
    // ECT(1) is copied, as is CE (RFC 6040, 4.1).
    for (tos, ecn) in [("184", "0"), ("185", "1"), ("187", "3")] {
        outer(
            keys,
            Family::V4,
            Family::V4,
            &format!("-t 33 -Q {tos} -M dont"),
            &[("ip.ttl", "33"), dscp, ("ip.dsfield.ecn", ecn), ("ip.flags.df", "0")],
        );
    }
    outer(
        keys,
        Family::V4,
        Family::V6,
        "-t 33 -Q 186",
        &[("ip.ttl", "33"), dscp, ("ip.dsfield.ecn", "2"), ("ip.flags.df", "1")],
    );
}

#[test]
fn inherited_over_ipv6() {
    let keys =
        "protocol = \"gretap\"\nid = 42\nttl = \"inherit\"\ntos = \"inherit\"\nflow_label = \"inherit\"";
    let common = [("ipv6.hlim", "33"), ("ipv6.tclass.dscp", "46"), ("ipv6.tclass.ecn", "3")];
    let label = |label| [&common[..], &[("ipv6.flow", label)]].concat();
    outer(keys, Family::V6, Family::V6, "-t 33 -Q 187 -F 0x12345", &label("0x012345"));
    outer(keys, Family::V6, Family::V4, "-t 33 -Q 187", &label("0x000000"));
}

#[test]
fn as_written() {
    let numbers = outer(
        "protocol = \"geneve\"\nid = 42\nttl = 7\ntos = 72\ndf = \"unset\"\nudp_checksum = true\nsrc_port = 1234",
        Family::V4,
        Family::V4,
        "",
        &[
            ("ip.ttl", "7"),
            ("ip.dsfield", "0x48"),
            ("ip.flags.df", "0"),
            ("udp.checksum.status", "1"),
            ("udp.srcport", "1234"),
        ],
    );
    // What may be fragmented is told apart by its identification.
    let outermost: std::collections::BTreeSet<_> =
        numbers.iter().map(|row| row[0].split(',').next().unwrap()).collect();
    assert_eq!(outermost.len(), numbers.len(), "{numbers:?}");
    outer(
        "protocol = \"vxlan\"\nid = 42\nttl = 7\ntos = 72\nflow_label = 0xabcde\nudp_checksum = false",
        Family::V6,
        Family::V4,
        "",
        &[
            ("ipv6.hlim", "7"),
            ("ipv6.tclass.dscp", "18"),
            ("ipv6.flow", "0x0abcde"),
            ("udp.checksum", "0x0000"),
        ],
    );
}

#[test]
fn priority_of_tags() {
    let tags = "protocol = \"qinq\"\nid = 42\nservice_id = 7\npcp = \"inherit\"";
    let both = [("ieee8021ad.priority", "5"), ("vlan.priority", "5")];
    outer(tags, Family::V4, Family::V4, "-Q 184", &both);
    outer(tags, Family::V4, Family::V6, "-Q 184", &both);
    outer(
        "protocol = \"vlan\"\nid = 42\npcp = 3",
        Family::V4,
        Family::V4,
        "-Q 184",
        &[("vlan.priority", "3")],
    );
}
