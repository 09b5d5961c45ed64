//! Which tunnels are tried with which far ends: the one table of them. Each line becomes a test for each of its far
//! ends, and a line of the README; `MPTM_BLESS=1` writes the README's table.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use crate::site::Family;

/// A far end, or a judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// mptm on another node; tshark reads along.
    Mptm,
    /// The kernel's own tunnel device.
    Kernel,
    /// Open vSwitch's userspace datapath.
    Ovs,
    /// A program that takes apart and builds packets with scapy.
    Scapy,
}

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Ethernet,
    Ip,
}

/// How much of the underlay's MTU a tunnel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overhead {
    /// It has no outer IP header.
    Tags(u64),
    /// So much beside the outer IP header.
    Ip(u64),
}

use Overhead::{Ip, Tags};

/// A protocol with the keys that go with it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    /// In the README.
    pub label: &'static str,
    /// In the file, beside `remote` and `inner`.
    pub keys: &'static str,
    pub carries: Carries,
    pub overhead: Overhead,
    /// What tshark calls its headers, behind the outer IP header.
    pub layers: &'static str,
    /// What tshark reads in its fields.
    pub fields: &'static [(&'static str, &'static str)],
    pub peers: &'static [Peer],
}

impl Row {
    /// The outer families that it is tried over.
    pub fn outers(&self) -> &'static [Family] {
        if self.has_outer_ip() { &Family::BOTH } else { &[Family::V4] }
    }

    /// The MTU of its tunnels.
    pub fn mtu(&self, underlay: u64, outer: Family) -> u64 {
        let ip = if outer == Family::V4 { 20 } else { 40 };
        match self.overhead {
            Tags(overhead) => underlay - overhead,
            Ip(overhead) => underlay - ip - overhead,
        }
    }

    /// Whether it has an outer IP header.
    pub fn has_outer_ip(&self) -> bool {
        matches!(self.overhead, Ip(_))
    }
}

macro_rules! matrix {
    ($($name:ident $label:literal $keys:literal $carries:ident $overhead:expr, $layers:literal [$($field:literal $value:literal)*] $($peer:ident)*;)*) => {
        pub const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            label: $label,
            keys: $keys,
            carries: Carries::$carries,
            overhead: $overhead,
            layers: $layers,
            fields: &[$(($field, $value)),*],
            peers: &[$(Peer::$peer),*],
        }),*];
        $(mod $name {
            $(
                #[test]
                #[allow(non_snake_case, reason = "named like the far end")]
                fn $peer() {
                    super::run(stringify!($name), super::Peer::$peer);
                }
            )*
        })*
    };
}

matrix! {
    vlan "vlan" "protocol = \"vlan\"\nid = 42\npcp = 5" Ethernet Tags(0),
        "vlan" ["vlan.id" "42" "vlan.priority" "5" "vlan.dei" "0"]
        Mptm Kernel Ovs Scapy;
    qinq "qinq" "protocol = \"qinq\"\nid = 42\nservice_id = 7\npcp = 3" Ethernet Tags(4),
        "ieee8021ad:ethertype:vlan" ["ieee8021ad.id" "7" "ieee8021ad.priority" "3" "vlan.id" "42" "vlan.priority" "3"]
        Mptm Kernel Ovs Scapy;
    vxlan "vxlan" "protocol = \"vxlan\"\nid = 42" Ethernet Ip(30),
        "udp:vxlan" ["udp.dstport" "4789" "vxlan.flags" "0x0800" "vxlan.vni" "42"]
        Mptm Kernel Ovs Scapy;
    vxlan_gbp "vxlan, `gbp`" "protocol = \"vxlan\"\nid = 42\ngbp = 2748" Ethernet Ip(30),
        "udp:vxlan" ["vxlan.flags" "0x8800" "vxlan.vni" "42" "vxlan.gbp" "2748"]
        Mptm Kernel Scapy;
    geneve "geneve" "protocol = \"geneve\"\nid = 42" Ethernet Ip(30),
        "udp:geneve" ["udp.dstport" "6081" "geneve.vni" "0x00002a" "geneve.proto_type" "0x6558" "geneve.flags.critical" "0"]
        Mptm Kernel Ovs Scapy;
    geneve_options "geneve, `options`" "protocol = \"geneve\"\nid = 42\noptions = [{ class = 0x0103, type = 0x05, data = \"01020304\" }, { class = 0xff01, type = 0x80, data = \"0a0b0c0d0e0f1011\" }]" Ethernet Ip(50),
        "udp:geneve" ["geneve.vni" "0x00002a" "geneve.flags.critical" "1" "geneve.option.class" "0x0103" "geneve.option.type" "0x05" "geneve.option.length" "20" "geneve.option.unknown.data" "01020304"]
        Mptm Ovs Scapy;
    geneve_ip "geneve, `payload = \"ip\"`" "protocol = \"geneve\"\nid = 42\npayload = \"ip\"" Ip Ip(16),
        "udp:geneve" ["geneve.vni" "0x00002a"]
        Mptm Kernel Scapy;
    gre "gre" "protocol = \"gre\"" Ip Ip(4),
        "gre" ["gre.flags_and_version" "0x0000"]
        Mptm Kernel Ovs Scapy;
    gre_all "gre, `id`, `checksum`, `sequence`" "protocol = \"gre\"\nid = 4000000000\nchecksum = true\nsequence = true" Ip Ip(16),
        "gre" ["gre.flags_and_version" "0xb000" "gre.key" "0xee6b2800" "gre.checksum.status" "1"]
        Mptm Kernel Ovs Scapy;
    gretap "gretap" "protocol = \"gretap\"" Ethernet Ip(18),
        "gre" ["gre.flags_and_version" "0x0000" "gre.proto" "0x6558"]
        Mptm Kernel Ovs Scapy;
    gretap_all "gretap, `id`, `checksum`, `sequence`" "protocol = \"gretap\"\nid = 42\nchecksum = true\nsequence = true" Ethernet Ip(30),
        "gre" ["gre.flags_and_version" "0xb000" "gre.proto" "0x6558" "gre.key" "0x0000002a" "gre.checksum.status" "1"]
        Mptm Kernel Ovs Scapy;
    ipip "ipip" "protocol = \"ipip\"" Ip Ip(0),
        "" []
        Mptm Kernel Scapy;
    gue "gue" "protocol = \"gue\"" Ip Ip(12),
        "udp:gue" ["udp.dstport" "6080" "gue.version" "0" "gue.hlen" "0" "gue.flags" "0x0000"]
        Mptm Scapy;
    gue_1 "gue, `variant = 1`" "protocol = \"gue\"\nvariant = 1" Ip Ip(8),
        "udp:gue" ["udp.dstport" "6080"]
        Mptm Scapy;
    fou "fou" "protocol = \"fou\"\ndst_port = 5555" Ip Ip(8),
        "udp:gue" ["udp.dstport" "5555"]
        Mptm Scapy;
    gtpu "gtpu" "protocol = \"gtpu\"\nid = 42" Ip Ip(16),
        "udp:gtp" ["udp.dstport" "2152" "gtp.flags" "0x30" "gtp.message" "0xff" "gtp.teid" "0x0000002a"]
        Mptm Scapy;
    gtpu_qfi "gtpu, `qfi`, `uplink`" "protocol = \"gtpu\"\nid = 42\nqfi = 9\nuplink = true" Ip Ip(24),
        "udp:gtp" ["gtp.flags" "0x34" "gtp.teid" "0x0000002a" "gtp.ext_hdr.pdu_ses_con.qos_flow_id" "9" "gtp.ext_hdr.pdu_ses_con.pdu_type" "1"]
        Mptm Scapy;
}

/// Why there is no test with a far end, or where that comes from.
const NOTES: &[(Peer, &[&str], &str)] = &[
    (
        Peer::Kernel,
        &["vlan", "qinq", "geneve", "geneve_ip", "gre", "gre_all", "gretap", "gretap_all"],
        "by Debian's Linux 6.12 in an emulated machine, where the kernel of this table (6.18, without modules) has not \
         the device",
    ),
    (
        Peer::Kernel,
        &["ipip"],
        "over IPv4 ipip and sit devices, as for the others; over IPv6 Linux's SRv6 encapsulation without a segment list \
         is IPv4 and IPv6 in IPv6",
    ),
    (Peer::Kernel, &["geneve_options"], "Linux takes options from a program or tc, not from the device"),
    (Peer::Kernel, &["gue", "gue_1", "fou"], "the kernel of this table has no fou"),
    (Peer::Kernel, &["gtpu", "gtpu_qfi"], "the kernel of this table has no gtp"),
    (Peer::Ovs, &["vxlan_gbp"], "the userspace datapath of Open vSwitch 3.1 refuses the extension's flags"),
    (Peer::Ovs, &["geneve_ip", "ipip", "gue", "gue_1", "fou"], "Open vSwitch does not speak it"),
    (
        Peer::Ovs,
        &["gre_all", "gretap_all"],
        "checksum and sequence one after the other: with both, Open vSwitch 3.1 sends wrong checksums",
    ),
    (
        Peer::Ovs,
        &["gtpu", "gtpu_qfi"],
        "Open vSwitch 3.1 fills in the length after the UDP checksum, which is wrong then, and does not recognise IP in \
         what it receives",
    ),
];

/// What a cell of the README says.
fn cell(row: &Row, peer: Peer) -> String {
    let note = NOTES.iter().position(|(of, rows, _)| *of == peer && rows.contains(&row.name));
    let inner = if row.peers.contains(&peer) { "4 6" } else { "-" };
    note.map_or_else(|| inner.to_owned(), |note| format!("{inner} [{}]", note + 1))
}

/// The README's table.
fn table() -> String {
    let mut text = String::from(
        "| tunnel | outer | mptm | Linux | Open vSwitch | scapy | tshark reads |\n|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        for outer in row.outers() {
            let family = match outer {
                _ if !row.has_outer_ip() => "none",
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            };
            let [mptm, kernel, ovs, scapy] =
                [Peer::Mptm, Peer::Kernel, Peer::Ovs, Peer::Scapy].map(|peer| cell(row, peer));
            let label = row.label;
            writeln!(text, "| {label} | {family} | {mptm} | {kernel} | {ovs} | {scapy} | {mptm} |").unwrap();
        }
    }
    for (number, (_, _, why)) in NOTES.iter().enumerate() {
        write!(text, "\n[{}]: {why}.\\", number + 1).unwrap();
    }
    text.trim_end_matches('\\').to_owned() + "\n"
}

const BEGIN: &str = "<!-- the table of tests/real/matrix.rs -->\n\n";
const END: &str = "\n<!-- its end -->\n";

#[test]
fn the_readme_has_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has a place for the table");
    let (written, after) = rest.split_once(END).expect("and an end of it");
    if env::var_os("MPTM_BLESS").is_some() {
        fs::write(path, [before, BEGIN, &table(), END, after].concat()).unwrap();
    } else {
        assert_eq!(written, table(), "MPTM_BLESS=1 writes it");
    }
}

#[test]
fn every_cell_is_tested_or_explained() {
    for row in ROWS {
        for peer in [Peer::Mptm, Peer::Kernel, Peer::Ovs, Peer::Scapy] {
            let explained = NOTES.iter().any(|(of, rows, _)| *of == peer && rows.contains(&row.name));
            assert!(row.peers.contains(&peer) || explained, "{} with {peer:?}", row.name);
        }
    }
}

/// The test of a cell, over all of its outer families.
fn run(name: &str, peer: Peer) {
    let row = ROWS.iter().find(|row| row.name == name).expect("a row of this name");
    for outer in row.outers() {
        match peer {
            Peer::Mptm => crate::protocols::between_two_nodes(row, *outer),
            Peer::Kernel => crate::kernel::against_kernel(row, *outer),
            Peer::Ovs => crate::ovs::against_ovs(row, *outer),
            Peer::Scapy => crate::scapy::against_scapy(row, *outer),
        }
    }
}
