//! Multicast and broadcast between the workloads of a segment, through tunnels with `flood`.

use std::fs::{self, File};
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use mptm::kernel::abi;
use tempfile::TempDir;

use crate::capture::installed;
use crate::groups::{COUNT, Ears, GROUP, GROUP6, Member, PORT, heard, say, say_raw};
use crate::kernel_end::has_device;
use crate::mesh::{Mesh, Traffic, outer};
use crate::site::{Family, Node, ethtool, exec, finish};
use crate::traffic::ping;
use crate::world;

const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// Everything that is flooded over IPv4, with exact counts of the copies.
fn full_mesh(mesh: &Mesh) {
    let members = &mesh.members;
    let host = Member { netns: mesh.nodes[0].netns.clone(), device: "a1", address: Ipv4Addr::UNSPECIFIED };
    let (host, other) = (host.listen(), mesh.other.listen());
    let ears = Ears::open(members);
    let before: Vec<Traffic> = (1..=3).map(|node| mesh.traffic(node)).collect();
    let subnet = IpAddr::V4(Ipv4Addr::new(10, 250, 1, 255));
    let mut sent = 0;
    for (to, size) in [(GROUP.into(), 100), (BROADCAST, 1), (subnet, 1001), (GROUP.into(), 1300)] {
        ears.hear(members, 0, members[0].address.into(), to, size);
        sent += COUNT as u64;
    }
    for (node, before) in (1..).zip(before) {
        let after = mesh.traffic(node);
        let (out, back) = if node == 1 { (sent, 0) } else { (0, sent) };
        assert!(
            after.sent.iter().zip(&before.sent).all(|(after, before)| after - before == out),
            "{after:?}"
        );
        assert_eq!(after.received.iter().sum::<u64>() - before.received.iter().sum::<u64>(), back);
    }
    assert_eq!(heard(&other), [0; COUNT], "another segment hears nothing");
    // What is sent to a subnet is the host's only if it has an address of it.
    assert_eq!(heard(&host), [3; COUNT], "the host's stack gets all of it, as without flood");
    // Fragments go each for itself.
    ears.hear(members, 0, members[0].address.into(), GROUP.into(), 4000);
    // The others can speak, too.
    ears.hear(members, 3, members[3].address.into(), GROUP.into(), 200);
    ears.hear(members, 2, members[2].address.into(), BROADCAST, 200);
    // Unicast, and the ARP that it needs, as ever.
    for member in &members[1..] {
        ping(&members[0].netns, member.address.into(), 1000);
    }
    for node in &mesh.nodes {
        let status = node.status();
        let mut drops = status.drops();
        // On a segment of tags all nodes get the questions that go to one.
        if status.0["tunnels"][0]["name"] == "t" {
            drops.remove("inner-no-route");
        }
        assert_eq!(drops, [].into(), "{}", node.name);
    }
}

fn ipv6(mesh: &Mesh) {
    mesh.with_ipv6();
    let members = &mesh.members;
    let ears = Ears::open(members);
    for from in [0, 1] {
        for size in [500, 1200] {
            ears.hear(members, from, members[from].v6().into(), GROUP6.into(), size);
        }
    }
    ping(&members[0].netns, members[2].v6().into(), 1000);
}

fn in_mode(protocol: &str, options: &str, mode: &str, family: Family) {
    world::run(&format!("a full mesh of {protocol}, {mode}, over {family:?}"), |world, _| {
        let mesh = Mesh::new(world);
        mesh.apply(&format!("protocol = \"{protocol}\"\nflood = true\n{options}"), mode, family);
        full_mesh(&mesh);
        ipv6(&mesh);
        for node in &mesh.nodes {
            node.down();
        }
    });
}

#[test]
fn vxlan() {
    in_mode("vxlan", "id = 42", "native", Family::V4);
}

#[test]
fn vxlan_generic() {
    in_mode("vxlan", "id = 42\nudp_checksum = true", "generic", Family::V4);
}

#[test]
fn geneve() {
    in_mode(
        "geneve",
        "id = 42\nudp_checksum = true\nttl = \"inherit\"\ntos = \"inherit\"\n\
         options = [{ class = 0x0102, type = 1, data = \"01020304\" }]",
        "native",
        Family::V4,
    );
}

#[test]
fn vxlan_over_ipv6() {
    in_mode("vxlan", "id = 42", "native", Family::V6);
}

#[test]
fn gretap_over_ipv6() {
    in_mode("gretap", "checksum = true\nflow_label = \"inherit\"", "generic", Family::V6);
}

#[test]
fn gretap() {
    in_mode("gretap", "id = 42\nchecksum = true\nsequence = true", "native", Family::V4);
}

#[test]
fn vlan() {
    in_mode("vlan", "id = 42\npcp = \"inherit\"", "native", Family::V4);
}

#[test]
fn qinq() {
    in_mode("qinq", "id = 42\nservice_id = 7", "native", Family::V4);
}

/// How much multicast and broadcast of a node's workloads was not flooded.
fn groups(node: &Node) -> u64 {
    node.status().0["passed"]["group"]["packets"].as_u64().unwrap_or_default()
}

/// Tunnels with headers of many lengths in one segment, one of them by way of the host's stack, and somebody who looks
/// at all packets.
#[test]
fn mixed() {
    world::run("flooding through different tunnels", |world, _| {
        let mesh = Mesh::new(world);
        for number in 1..=3 {
            let tunnel = |other: usize| match number + other {
                3 => "protocol = \"vlan\"\nid = 42\nflood = true".to_owned(),
                4 => "protocol = \"geneve\"\nid = 42\nudp_checksum = true\nredirect = false\nflood = true"
                    .into(),
                _ => "protocol = \"gretap\"\nflood = true".into(),
            };
            mesh.nodes[number - 1].apply(&Mesh::file(number, &tunnel, "native", Family::V4));
        }
        let members = &mesh.members;
        for (node, device) in [(0, "a1"), (0, "u1"), (1, "u2"), (2, "a3")] {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", mesh.nodes[node].netns.path().display()));
            command.args(["tcpdump", "-n", "-i", device]).stdout(Stdio::null()).stderr(Stdio::null());
            world.spawn(&mut command);
        }
        let ears = Ears::open(members);
        for from in 0..members.len() {
            ears.hear(members, from, members[from].address.into(), GROUP.into(), 700);
        }
        // Who has no address yet asks for one.
        let from = &members[2];
        say_raw(from, Ipv4Addr::UNSPECIFIED, &[]);
        for (index, ear) in ears.0.iter().enumerate() {
            assert_eq!(heard(ear), [usize::from(index != 2); COUNT], "heard by {index}");
        }
        // But nobody takes another's.
        let before = groups(&mesh.nodes[2]);
        say_raw(from, Ipv4Addr::new(10, 250, 1, 2), &[]);
        assert!(ears.0.iter().all(|ear| heard(ear) == [0; COUNT]));
        assert_eq!(groups(&mesh.nodes[2]), before + COUNT as u64);
    });
}

/// What is larger than a tunnel's MTU goes where it fits.
#[test]
fn too_big() {
    world::run("flooding what is too big for one tunnel", |world, _| {
        let mesh = Mesh::new(world);
        for number in 1..=3 {
            let tunnel = |other: usize| match number + other {
                3 => "protocol = \"vlan\"\nid = 42\ndebug = true\nflood = true",
                _ => "protocol = \"vxlan\"\nid = 42\ndebug = true\nflood = true",
            };
            let file = Mesh::file(number, &|other| tunnel(other).into(), "native", Family::V4);
            mesh.nodes[number - 1]
                .apply(&file.replace("\"workload\"", "\"workload\"\nmanage = [\"offloads\"]"));
        }
        let members = &mesh.members;
        let ears = Ears::open(members);
        let mut monitor = mesh.nodes[0].mptm();
        let mut monitor =
            monitor.arg("monitor").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_secs(1));
        say(&members[0].speak(members[0].address.into()), (GROUP, PORT).into(), 1472);
        let counts: Vec<_> = ears.0.iter().map(heard).collect();
        assert_eq!(counts, [[0; COUNT], [1; COUNT], [0; COUNT], [1; COUNT]]);
        assert_eq!(mesh.nodes[0].status().drops()["flood-too-big"], COUNT as u64);
        monitor.kill().unwrap();
        let told = String::from_utf8(monitor.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(told.matches(" mptm_flood t3 drop:flood-too-big ").count(), COUNT, "{told}");
        assert_eq!(told.matches(" mptm_flood t redirect 1518 ").count(), COUNT, "{told}");
    });
}

/// VLAN tags of the containers' own, which the kernel takes out of the frames between XDP and tc.
#[test]
fn tags() {
    let title = "flooding frames with tags";
    world::run(title, |world, _| {
        if !installed(title, "tcpdump", &["tcpdump"]) {
            return;
        }
        let mesh = Mesh::new(world);
        mesh.apply("protocol = \"geneve\"\nid = 42\nudp_checksum = true\nflood = true", "native", Family::V4);
        let directory = TempDir::new().unwrap();
        let file = |index: usize| directory.path().join(index.to_string());
        let read = |index: usize| fs::read_to_string(file(index)).unwrap();
        for (index, member) in mesh.members.iter().enumerate() {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", member.netns.path().display()));
            command.args(["tcpdump", "-n", "-e", "-l", "-v", "-Q", "in", "-i", "eth0"]);
            command.stdout(File::create(file(index)).unwrap()).stderr(Stdio::null());
            world.spawn(&mut command);
        }
        thread::sleep(Duration::from_secs(1));
        let from = &mesh.members[1];
        for tags in [&[][..], &[0x0007], &[0xe007, 0x0008]] {
            say_raw(from, from.address, tags);
        }
        let line = |tags: &str| format!("length {}: {tags}", 342 + 4 * tags.matches("vlan").count());
        for index in [0, 2, 3] {
            let count = |tags: &str| read(index).matches(&line(tags)).count();
            let all = || count("vlan 7, p 7, ethertype 802.1Q (0x8100), vlan 8") == COUNT;
            assert!(world::soon(all), "{}", read(index));
            assert_eq!(count("vlan 7, p 0, ethertype IPv4"), COUNT, "{}", read(index));
            assert_eq!(count("(tos 0x0"), COUNT, "{}", read(index));
        }
        assert!(!read(1).contains(" > 255.255.255.255"), "{}", read(1));
        for node in &mesh.nodes {
            assert_eq!(node.status().drops(), [].into(), "{}", node.name);
        }
    });
}

/// The kernel's own vxlan device on node 3.
#[test]
fn kernel_vxlan() {
    world::run("flooding to and from the kernel's vxlan", |world, _| {
        let mut mesh = Mesh::new(world);
        for number in [1, 2] {
            let tunnel = "protocol = \"vxlan\"\nid = 42\nflood = true";
            mesh.nodes[number - 1].apply(&Mesh::file(number, &|_| tunnel.into(), "native", Family::V4));
        }
        let far = mesh.nodes[2].netns.clone();
        ethtool(&far, "u3", "gro on tx off txvlan off");
        if !has_device(&far, "tun0 type vxlan id 42 local 10.30.30.3 dstport 4789") {
            return;
        }
        // It copies for itself: to both others.
        for other in [1, 2] {
            exec(
                &far,
                "bridge",
                &format!("fdb append 00:00:00:00:00:00 dev tun0 dst {}", outer(Family::V4, other)),
            );
        }
        exec(&far, "ip", "link set tun0 up");
        exec(&far, "ip", "addr add 10.250.1.3/24 brd + dev tun0");
        mesh.members[2] = Member { netns: far, device: "tun0", address: [10, 250, 1, 3].into() };
        let ears = Ears::open(&mesh.members);
        for from in 0..mesh.members.len() {
            ears.hear(&mesh.members, from, mesh.members[from].address.into(), GROUP.into(), 1200);
        }
        ping(&mesh.members[0].netns, mesh.members[2].address.into(), 1000);
    });
}

/// A link that somebody detached is drift, and is mended; another build takes over.
#[test]
fn detached() {
    world::run("a detached flood program", |world, _| {
        let mesh = Mesh::new(world);
        mesh.apply("protocol = \"vxlan\"\nid = 42\nflood = true", "native", Family::V4);
        let node = &mesh.nodes[0];
        assert_eq!(node.status().interface("a1")["flood"], true);
        assert_eq!(node.status().interface("o1")["flood"], false);
        let pin = Path::new("/sys/fs/bpf").join(&node.name).join("flood-links/a1");
        libbpf_rs::Link::open(&pin).unwrap().detach().unwrap();
        let status = finish(node.mptm().arg("status")).unwrap();
        assert!(status.contains("mptm_encap native, flood detached"), "{status}");
        assert!(status.contains("~ flood-program a1: index detached -> "), "{status}");
        let tunnel = |_| "protocol = \"vxlan\"\nid = 42\nflood = true".to_owned();
        let file = Mesh::file(1, &tunnel, "native", Family::V4);
        let plan = node.apply(&file);
        assert!(plan.starts_with("~ flood-program a1: "), "{plan}");
        assert_eq!(node.apply(&file), "");
        // Another build takes the place of the program in the link.
        let meta =
            MapHandle::from_pinned_path(Path::new("/sys/fs/bpf").join(&node.name).join("maps/meta")).unwrap();
        let mut row = meta.lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        row[offset_of!(abi::Meta, build)] ^= 1;
        meta.update(&[0; 4], &row, MapFlags::ANY).unwrap();
        let link = || libbpf_rs::Link::open(&pin).unwrap().info().unwrap();
        let before = link();
        let plan = node.apply(&file);
        assert!(plan.starts_with("~ data-plane: build ") && plan.lines().count() == 1, "{plan}");
        assert_eq!(link().id, before.id);
        assert_ne!(link().prog_id, before.prog_id);
        let ears = Ears::open(&mesh.members);
        ears.hear(&mesh.members, 0, mesh.members[0].address.into(), GROUP.into(), 100);
        // Without flood there is nothing of it.
        node.apply(&file.replace("flood = true", ""));
        assert_eq!(node.status().interface("a1")["flood"], false);
        assert!(!pin.exists());
        node.down();
    });
}
