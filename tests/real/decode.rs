//! tshark reads what mptm sends, and has nothing to complain of.

use std::collections::BTreeSet;

use crate::capture::Capture;
use crate::matrix::{Carries, Row};
use crate::site::{Container, Family, Node, Site, mac};

/// Packets that are wrong in some way: errors and warnings, but for TCP's own states (a retransmission, say).
const WRONG: &str = "_ws.malformed or _ws.short or ip.checksum.status == 0 or udp.checksum.status == 0 or \
                     tcp.checksum.status == 0 or icmp.checksum.status == 0 or icmpv6.checksum.status == 0 or \
                     gre.checksum.status == 0 or ip.bogus_ip_length or udp.length.bad or \
                     (_ws.expert.severity >= 6291456 and not tcp.analysis.flags)";

/// A capture of what node 1 sends while containers talk.
pub struct Listener(Capture);

impl Listener {
    /// Starts to listen.
    pub fn start(site: &mut Site, switch: &Node) -> Self {
        Self(Capture::start(site.world, switch))
    }

    /// Ends the capture, and looks at the packets of pings, datagrams, fragments and TCP in both inner families.
    pub fn check(self, site: &mut Site, row: &Row, outer: Family, [c1, c2]: &[Container; 2]) {
        let Self(capture) = self;
        capture.stop(site.world, "tcp.flags.fin == 1", 2);
        assert_eq!(capture.text(WRONG), "");

        let layers = layers(row, outer);
        let all = capture.fields("frame", &["frame.protocols"]);
        let inner: &[(&str, usize)] = match row.carries {
            Carries::Ethernet => &[
                ("ethertype:arp", 1),
                ("ethertype:ip:icmp:data", 4),
                ("ethertype:ip:udp", 1),
                ("ethertype:ip:tcp", 10),
                ("ethertype:ipv6:icmpv6", 4),
                ("ethertype:ipv6:udp", 1),
                ("ethertype:ipv6:tcp", 10),
                ("ethertype:ipv6:ipv6.fraghdr", 2),
            ],
            Carries::Ip => &[
                ("ip:icmp:data", 4),
                ("ip:udp", 1),
                ("ip:tcp", 10),
                ("ipv6:icmpv6", 4),
                ("ipv6:udp", 1),
                ("ipv6:tcp", 10),
                ("ipv6:ipv6.fraghdr", 2),
            ],
        };
        for (payload, at_least) in inner {
            let layers = format!("{layers}:{payload}");
            let count = all.iter().filter(|row| row[0].starts_with(&layers)).count();
            assert!(count >= *at_least, "{count} of {layers} in {all:?}");
        }

        for (inner, source) in [("ip.src", c1.address), ("ipv6.src", c1.at(Family::V6).address)] {
            let filter = format!("{inner} == {source}");
            let (fields, expected): (Vec<&str>, Vec<&str>) = outer_fields(row, outer).iter().copied().unzip();
            let rows = capture.fields(&filter, &fields);
            assert!(rows.len() > 100, "{} packets", rows.len());
            for row in rows {
                let outer: Vec<&str> = row.iter().map(|values| values.split(',').next().unwrap()).collect();
                assert_eq!(outer, expected, "{fields:?}");
            }
            macs(&capture, site, row, &filter, [c1, c2]);
            if row.has_outer_ip() && outer == Family::V6 {
                labels(&capture, &filter);
            }
        }
    }
}

/// What tshark calls the headers down to the inner packet.
fn layers(row: &Row, outer: Family) -> String {
    let mut layers = vec!["eth:ethertype"];
    if row.has_outer_ip() {
        layers.push(if outer == Family::V4 { "ip" } else { "ipv6" });
    }
    layers.push(row.layers);
    if row.carries == Carries::Ethernet && row.has_outer_ip() {
        layers.push("eth");
    }
    layers.retain(|layer| !layer.is_empty());
    layers.join(":")
}

/// The fields of the outer headers.
fn outer_fields(row: &Row, outer: Family) -> Vec<(&'static str, &'static str)> {
    let mut fields = match outer {
        _ if !row.has_outer_ip() => Vec::new(),
        Family::V4 => vec![
            ("ip.src", "10.30.30.1"),
            ("ip.dst", "10.30.30.2"),
            ("ip.ttl", "64"),
            ("ip.flags.df", "1"),
            ("ip.id", "0x0000"),
            ("ip.dsfield.dscp", "0"),
        ],
        Family::V6 => vec![
            ("ipv6.src", "fd30::1"),
            ("ipv6.dst", "fd30::2"),
            ("ipv6.hlim", "64"),
            ("ipv6.tclass.dscp", "0"),
        ],
    };
    if row.layers.starts_with("udp") {
        // Over IPv6 there is a checksum, which tshark has found right; over IPv4 there is none.
        fields.push(("udp.checksum.status", if outer == Family::V4 { "3" } else { "1" }));
    }
    fields.extend(row.fields);
    fields
}

/// The outer and inner MAC addresses.
fn macs(capture: &Capture, site: &Site, row: &Row, filter: &str, [c1, c2]: [&Container; 2]) {
    let (underlay, far) = (mac(&site.nodes[0].netns, "u1"), mac(&site.nodes[1].netns, "u2"));
    let (source, destination) = (c1.mac("eth0"), c2.mac("eth0"));
    let expected = match row.carries {
        _ if !row.has_outer_ip() => [source, destination],
        Carries::Ethernet => [format!("{underlay},{source}"), format!("{far},{destination}")],
        Carries::Ip => [underlay, far],
    };
    // A solicitation goes to a group.
    let filter = format!("{filter} and not icmpv6.type == 135");
    for row in capture.fields(&filter, &["eth.src", "eth.dst"]) {
        assert_eq!(row[..], expected[..], "outer and inner MAC addresses");
    }
}

/// A flow has a flow label of its own, and keeps it (RFC 6438).
fn labels(capture: &Capture, filter: &str) {
    let rows = capture.fields(&format!("{filter} and tcp"), &["ipv6.flow"]);
    let outermost = |row: &Vec<String>| row[0].split(',').next().unwrap().to_owned();
    let labels: BTreeSet<String> = rows.iter().map(outermost).collect();
    assert!(labels.len() == 1 && !labels.contains("0x000000"), "flow labels {labels:?}");
}
