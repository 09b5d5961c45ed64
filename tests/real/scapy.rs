//! mptm against packets that scapy takes apart and builds, for every protocol: as a far end with a network device, and
//! packet by packet, byte for byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mptm::config::model::NetnsRef;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::capture::skipped;
use crate::matrix::{Carries, Row};
use crate::protocols::file;
use crate::site::{Container, Family, Site, exec, finish, mac, settled};
use crate::traffic::{ping_full, ping_with, tcp, udp, within};
use crate::world::{self, ip, soon};

/// The distribution's: another python3 that comes first in PATH may be without scapy.
const PYTHON: &str = "/usr/bin/python3";
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/peer.py");

/// Whether scapy is there; says loudly if it is not.
fn has_scapy(title: &str) -> bool {
    let mut command = Command::new(PYTHON);
    command.args(["-c", "import scapy"]).stdout(Stdio::null()).stderr(Stdio::null());
    let runs = command.status().is_ok_and(|status| status.success());
    if !runs {
        skipped("needs python3-scapy", title);
    }
    runs
}

/// peer.py on node 2.
fn peer(netns: &NetnsRef, mode: &str, settings: &Value) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", "nsenter", &format!("--net={}", netns.path().display()), PYTHON, PEER, mode]);
    command.arg(settings.to_string());
    command
}

/// The cells of a protocol over an outer family, with both inner families.
pub fn against_scapy(row: &Row, outer: Family) {
    let title = format!("scapy's {}, over {outer:?}", row.name);
    if !has_scapy(&title) {
        return;
    }
    world::run(&title, |world, _| {
        let mut site = Site::new(world);
        let c1 = site.container(0, "c1", "10.250.1.1");
        site.add_ipv6(&[&c1]);
        // What XDP redirects to it arrives, and is not merged.
        site.nodes[1].apply("[interface.u2]\nrole = \"pass\"\n");
        // A packet socket may not send a frame with two tags that is as long as the wire takes it.
        ip(&format!("-n {} link set u2 mtu 1504", site.nodes[1].name));
        let [near, far] = [mac(&site.nodes[0].netns, "u1"), mac(&site.nodes[1].netns, "u2")];
        let outer_addresses = outer.outer();
        let settings = json!({
            "row": row.name,
            "carries": if row.carries == Carries::Ethernet { "Ethernet" } else { "Ip" },
            "underlay": "u2",
            "local": outer_addresses[1],
            "remote": outer_addresses[0],
            "local_mac": far,
            "remote_mac": near,
        });
        site.nodes[0].apply(&file(0, row, outer));
        byte_for_byte(&site, row, &c1, &settings);
        // Its sequence numbers begin anew.
        site.nodes[0].down();
        site.nodes[0].apply(&file(0, row, outer));
        talk(&mut site, row, outer, &c1, &settings);
    });
}

/// Packets of all kinds arrive as they were sent.
fn byte_for_byte(site: &Site, row: &Row, c1: &Container, settings: &Value) {
    let [near, far] = site.nodes.each_ref().map(|node| &node.netns);
    let mut settings = settings.clone();
    let source = Container { netns: far.clone(), address: [10, 250, 1, 2].into() };
    settings["source"] = json!(Family::BOTH.map(|family| source.at(family).address));
    settings["destination"] = json!(Family::BOTH.map(|family| c1.at(family).address));
    // An IP payload gets the MAC address of mptm's end.
    settings["source_mac"] = match row.carries {
        Carries::Ethernet => json!("02:00:5e:10:00:99"),
        Carries::Ip => json!(mac(near, "c1")),
    };
    settings["destination_mac"] = json!(c1.mac("eth0"));

    let mut listener = within(&c1.netns, || {
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .unwrap();
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(200)).unwrap();
        File::from(socket)
    });
    let printed = finish(&mut peer(far, "send", &settings)).unwrap_or_else(|said| panic!("{said}"));
    let mut expected: BTreeSet<&str> = printed.lines().collect();
    assert!(expected.len() > 30, "{printed}");

    let deadline = Instant::now() + Duration::from_secs(5);
    let mut buffer = [0; 1 << 16];
    let mut seen = Vec::new();
    while !expected.is_empty() && Instant::now() < deadline {
        if let Ok(length) = listener.read(&mut buffer) {
            let frame: String = buffer[..length].iter().map(|byte| format!("{byte:02x}")).collect();
            if !expected.remove(&*frame) {
                seen.push(frame);
            }
        }
    }
    assert!(
        expected.is_empty(),
        "{} did not arrive: {expected:#?}\nothers: {seen:#?}\n{:?}",
        expected.len(),
        site.nodes[0].status().drops()
    );
    site.nodes[0].status();
}

/// A far end with a network device: what mptm sends is taken apart and compared with what it should be.
fn talk(site: &mut Site, row: &Row, outer: Family, c1: &Container, settings: &Value) {
    let directory = TempDir::new().unwrap();
    let [printed, said] = ["stdout", "stderr"].map(|name| directory.path().join(name));
    let netns = site.nodes[1].netns.clone();
    let mut command = peer(&netns, "far", settings);
    command.stdout(File::create(&printed).unwrap()).stderr(File::create(&said).unwrap());
    site.world.spawn(&mut command);
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    // Python needs long to begin on a busy machine.
    assert!(soon(|| read(&printed).contains("ready")), "{}", read(&said));

    let mtu = row.mtu(1500, outer);
    let far = Container { netns: netns.clone(), address: [10, 250, 1, 2].into() };
    let node = &site.nodes[1].name;
    ip(&format!("-n {node} link set tun0 mtu {mtu}"));
    ip(&format!("-n {node} addr add {}/24 dev tun0", far.address));
    ip(&format!("-n {node} addr add {}/120 dev tun0 nodad", far.at(Family::V6).address));
    settled(&netns);
    // The container has asked for the far end before it was there, and may be about to give up.
    exec(&c1.netns, "ip", "neigh flush dev eth0");
    let talk = || {
        for family in Family::BOTH {
            let [c1, far] = [c1.at(family), far.at(family)];
            ping_with(&c1.netns, far.address, 56, "");
            ping_full(&c1.netns, far.address, mtu);
            ping_full(&far.netns, c1.address, mtu);
            for size in [0, 1, 4000] {
                udp(&c1, &far, size);
            }
            tcp(&c1.netns, &far.netns, far.address, 1 << 17);
            tcp(&far.netns, &c1.netns, c1.address, 1 << 17);
        }
    };
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(talk)) {
        let drops = site.nodes[0].status();
        panic!("{panic:?}\npeer.py said: {}\n{:?}", read(&said), drops.drops());
    }
    assert_eq!(read(&said), "", "peer.py");
    crate::kernel::nothing_but_groups_dropped(&site.nodes[0].status());
    exec(&netns, "ip", "link set tun0 down");
}
