//! tshark reads what mptm sends, and has nothing to complain of.

use crate::capture::{Capture, can_capture};
use crate::site::{Site, mac};
use crate::traffic::{ping, tcp, udp};
use crate::world;

/// Packets that are wrong in some way: errors and warnings, but for TCP's own states (a retransmission, say).
const WRONG: &str = "_ws.malformed or _ws.short or ip.checksum.status == 0 or udp.checksum.status == 0 or \
                     tcp.checksum.status == 0 or icmp.checksum.status == 0 or ip.bogus_ip_length or \
                     udp.length.bad or (_ws.expert.severity >= 6291456 and not tcp.analysis.flags)";

/// `layers` are those of the outer header.
fn decodes(protocol: &str, id: &str, layers: &str, header: &[(&str, &str)]) {
    let title = format!("tshark decodes {protocol}");
    if !can_capture(&title) {
        return;
    }
    world::run(&title, |world, _| {
        let (mut site, switch) = Site::with_switch(world);
        let [c1, c2] = site.two_containers();
        site.apply(&format!("protocol = \"{protocol}\"\nid = {id}"));
        let capture = Capture::start(site.world, &switch);
        ping(&c1.netns, c2.address, 56);
        ping(&c1.netns, c2.address, 1400);
        udp(&c1, &c2, 0);
        udp(&c1, &c2, 4000);
        tcp(&c1.netns, &c2.netns, c2.address, 1 << 20);
        capture.stop(site.world, &format!("{protocol} and tcp.flags.fin == 1"), 1);

        assert_eq!(capture.text(WRONG), "");
        let all = capture.fields("frame", &["frame.protocols"]);
        for (payload, at_least) in [("arp", 1), ("ip:icmp:data", 6), ("ip:udp:data", 1), ("ip:tcp", 10)] {
            let layers = format!("{layers}:{payload}");
            let count = all.iter().filter(|row| row[0].starts_with(&layers)).count();
            assert!(count >= at_least, "{count} of {layers} in {all:?}");
        }
        let (underlay, far) = (mac(&site.nodes[0].netns, "u1"), mac(&site.nodes[1].netns, "u2"));
        let has_outer_ip = protocol != "vlan";
        let (fields, expected): (Vec<&str>, Vec<&str>) = header.iter().copied().unzip();
        let rows = capture.fields(&format!("{protocol} and ip.src == 10.250.1.1"), &fields);
        assert!(rows.len() > 100, "{} packets", rows.len());
        for row in rows {
            let outer: Vec<&str> = row.iter().map(|values| values.split(',').next().unwrap()).collect();
            assert_eq!(outer, expected, "{fields:?}");
        }
        let (source, destination) = (c1.mac("eth0"), c2.mac("eth0"));
        let expected = if has_outer_ip {
            [format!("{underlay},{source}"), format!("{far},{destination}")]
        } else {
            [source, destination]
        };
        let rows = capture.fields(&format!("{protocol} and not arp"), &["eth.src", "eth.dst"]);
        for row in rows {
            assert_eq!(row[..], expected[..], "outer and inner MAC addresses");
        }
        site.nothing_dropped();
    });
}

const UDP_OVER_IP: [(&str, &str); 6] = [
    ("ip.src", "10.30.30.1"),
    ("ip.dst", "10.30.30.2"),
    ("ip.ttl", "64"),
    ("ip.flags.df", "1"),
    ("ip.id", "0x0000"),
    ("udp.checksum", "0x0000"),
];

#[test]
fn geneve() {
    let own = [
        ("udp.dstport", "6081"),
        ("geneve.vni", "0xabcdef"),
        ("geneve.proto_type", "0x6558"),
        ("geneve.version", "0"),
    ];
    decodes(
        "geneve",
        "11259375",
        "eth:ethertype:ip:udp:geneve:eth:ethertype",
        &[&UDP_OVER_IP[..], &own].concat(),
    );
}

#[test]
fn vxlan() {
    let own = [("udp.dstport", "4789"), ("vxlan.vni", "16777215"), ("vxlan.flags", "0x0800")];
    decodes(
        "vxlan",
        "16777215",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype",
        &[&UDP_OVER_IP[..], &own].concat(),
    );
}

#[test]
fn vlan() {
    decodes(
        "vlan",
        "4094",
        "eth:ethertype:vlan:ethertype",
        &[("vlan.id", "4094"), ("vlan.priority", "0"), ("vlan.dei", "0"), ("ip.src", "10.250.1.1")],
    );
}
