//! Multicast and broadcast between the workloads of a segment, through tunnels with `flood`.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use mptm::config::model::NetnsRef;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tempfile::TempDir;

use crate::capture::installed;
use crate::kernel_end::has_device;
use crate::site::{Node, ethtool, exec, with_ipv6};
use crate::traffic::{ping, within};
use crate::world::{self, World, ip, veth};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x1234);
const PORT: u16 = 5000;
/// How many datagrams are sent at a time.
const COUNT: usize = 20;
/// After so long nothing more comes.
const SILENCE: Duration = Duration::from_millis(400);

/// A container, or what stands for one.
struct Member {
    netns: NetnsRef,
    device: &'static str,
    address: Ipv4Addr,
}

impl Member {
    fn v6(&self) -> Ipv6Addr {
        v6(self.address.octets()[3])
    }

    /// A socket that hears the port, and the groups.
    fn listen(&self) -> UdpSocket {
        within(&self.netns, || {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            join(&socket, GROUP, self.device);
            // Without IPv6 there is nothing to join.
            let _ = socket.join_multicast_v6(&GROUP6, index(self.device));
            socket
        })
    }

    /// A socket to send from.
    fn speak(&self, from: IpAddr) -> UdpSocket {
        within(&self.netns, || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            if from.is_ipv4() {
                socket.set_broadcast(true).unwrap();
                socket.set_multicast_loop_v4(false).unwrap();
            } else {
                socket.set_multicast_loop_v6(false).unwrap();
            }
            socket
        })
    }
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, last.into())
}

/// The index of a device of the thread's namespace.
fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

/// Joins an IPv4 group by a device, on a socket that takes both families.
fn join(socket: &UdpSocket, group: Ipv4Addr, device: &str) {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(group.octets()) },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: index(device) as i32,
    };
    // SAFETY: the request is a live struct of the size that stands beside it.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of_val(&request) as u32,
        )
    };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

/// How often each of `COUNT` numbered datagrams comes, until nothing comes.
fn heard(socket: &UdpSocket) -> [usize; COUNT] {
    let mut counts = [0; COUNT];
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        assert!(length > 0 && buffer[1..length].iter().all(|byte| *byte == 7), "not what was sent");
        counts[usize::from(buffer[0])] += 1;
    }
    counts
}

/// Sends `COUNT` datagrams of a size.
fn say(socket: &UdpSocket, to: SocketAddr, size: usize) {
    for number in 0..COUNT {
        let mut bytes = vec![7; size];
        bytes[0] = number as u8;
        thread::sleep(Duration::from_millis(1));
        socket.send_to(&bytes, to).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}

/// Sockets of all members. They stay open while packets are counted: joining and leaving a group is told to a group.
struct Ears(Vec<UdpSocket>);

impl Ears {
    fn open(members: &[Member]) -> Self {
        let ears = Self(members.iter().map(Member::listen).collect());
        // Each is told once more, after a second or so.
        thread::sleep(Duration::from_secs(3));
        ears
    }

    /// Datagrams from one member, of which each of the others must hear every one exactly once, and which do not come
    /// back to it.
    fn hear(&self, members: &[Member], from: usize, source: IpAddr, to: IpAddr, size: usize) {
        say(&members[from].speak(source), (to, PORT).into(), size);
        for (index, ear) in self.0.iter().enumerate() {
            // The kernel lets a sender hear its own broadcasts, once.
            let expected = [usize::from(index != from || !to.is_multicast()); COUNT];
            assert_eq!(heard(ear), expected, "{to} from {from}, heard by {index}");
        }
    }
}

/// Three nodes on a switch: node N has the container aN with 10.250.1.N, node 1 also b1 with 10.250.1.11 in the same
/// segment, and o1 with 10.250.1.12 in another.
struct Mesh {
    nodes: Vec<Node>,
    members: Vec<Member>,
    other: Member,
    _switch: Node,
}

/// Packets that each tunnel of a node has sent and received.
#[derive(Debug)]
struct Traffic {
    sent: Vec<u64>,
    received: Vec<u64>,
}

fn outer(node: usize) -> String {
    format!("10.30.30.{node}")
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let mut command = node.mptm();
                let _ = command.arg("status").status();
            }
        }
    }
}

impl Mesh {
    fn new(world: &mut World) -> Self {
        let switch = Node::new(&world.netns("switch"));
        ip(&format!("-n {} link add br0 type bridge mcast_snooping 0", switch.name));
        ip(&format!("-n {} link set br0 up", switch.name));
        let mut ports = String::new();
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let node = Node::new(&world.netns(&format!("node{number}")));
            let (device, port) = (format!("u{number}"), format!("p{number}"));
            veth(&node.name, &device, &switch.name, &port);
            ip(&format!("-n {} link set {port} master br0", switch.name));
            ethtool(&switch.netns, &port, "txvlan off tx-vlan-stag-hw-insert off");
            ip(&format!("-n {} addr add {}/24 dev {device}", node.name, outer(number)));
            ports += &format!("interface.{port}.role = \"pass\"\n");
            nodes.push(node);
        }
        switch.apply(&ports);
        let mut container = |node: usize, device: &str, last: u8| {
            let netns = world.netns(device);
            let home = &nodes[node - 1].name;
            ip(&format!("-n {home} link add {device} type veth peer name eth0 netns {netns}"));
            ip(&format!("-n {home} link set {device} up"));
            let netns = NetnsRef::Name(netns.as_str().into());
            exec(&netns, "sysctl", "-qw net.ipv6.conf.all.disable_ipv6=1");
            exec(&netns, "ip", &format!("addr add 10.250.1.{last}/24 brd + dev eth0"));
            exec(&netns, "ip", "link set eth0 up");
            Member { netns, device: "eth0", address: [10, 250, 1, last].into() }
        };
        let members =
            vec![container(1, "a1", 1), container(2, "a2", 2), container(3, "a3", 3), container(1, "b1", 11)];
        let other = container(1, "o1", 12);
        Self { nodes, members, other, _switch: switch }
    }

    /// From now on the containers have IPv6, too.
    fn with_ipv6(&self) {
        for member in &self.members {
            with_ipv6(&member.netns, "eth0");
            exec(&member.netns, "ip", &format!("addr add {}/64 dev eth0 nodad", member.v6()));
        }
    }

    /// The file of a node, with a tunnel to each other node; `tunnel` is the rest of the one to node N. Where that is
    /// one with VLAN tags, it leads to all of them.
    fn file(number: usize, tunnel: &dyn Fn(usize) -> String, mode: &str) -> String {
        let workload = |name: &str, last: u8, segment: &str| {
            format!(
                "[interface.{name}]\nrole = \"workload\"\nmode = \"{mode}\"\nsegment = \"{segment}\"\n\
                 addresses = [\"10.250.1.{last}\", \"{}\"]\n",
                v6(last)
            )
        };
        let mut file = format!("[interface.u{number}]\nrole = \"underlay\"\nmode = \"{mode}\"\n");
        file += &workload(&format!("a{number}"), number as u8, "default");
        if number == 1 {
            file += &workload("b1", 11, "default");
            file += &workload("o1", 12, "other");
        }
        let behind = |other: usize| {
            let mut list = format!("\"10.250.1.{other}\", \"{}\"", v6(other as u8));
            if other == 1 {
                list += &format!(", \"10.250.1.11\", \"{}\"", v6(11));
            }
            list
        };
        let mut tagged = Vec::new();
        for other in (1..=3).filter(|other| *other != number) {
            let tunnel = tunnel(other);
            if tunnel.contains("\"vlan\"") || tunnel.contains("\"qinq\"") {
                tagged.push((behind(other), tunnel));
                continue;
            }
            file += &format!(
                "[tunnel.t{other}]\nremote = \"{}\"\ninner = [{}]\n{tunnel}\n",
                outer(other),
                behind(other)
            );
        }
        if let Some((_, tunnel)) = tagged.first() {
            let inner: Vec<&str> = tagged.iter().map(|(behind, _)| behind.as_str()).collect();
            file += &format!("[tunnel.t]\ninner = [{}]\n{tunnel}\n", inner.join(", "));
        }
        file
    }

    fn apply(&self, tunnel: &str, mode: &str) {
        for (node, number) in self.nodes.iter().zip(1..) {
            node.apply(&Self::file(number, &|_| tunnel.into(), mode));
        }
    }

    fn traffic(&self, number: usize) -> Traffic {
        let status = self.nodes[number - 1].status();
        let tunnels = status.0["tunnels"].as_array().unwrap();
        let names: Vec<&str> = tunnels.iter().map(|tunnel| tunnel["name"].as_str().unwrap()).collect();
        Traffic {
            sent: names.iter().map(|name| status.sent(name)).collect(),
            received: names.iter().map(|name| status.received(name)).collect(),
        }
    }
}

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

fn in_mode(protocol: &str, options: &str, mode: &str) {
    world::run(&format!("a full mesh of {protocol}, {mode}"), |world, _| {
        let mesh = Mesh::new(world);
        mesh.apply(&format!("protocol = \"{protocol}\"\nflood = true\n{options}"), mode);
        full_mesh(&mesh);
        ipv6(&mesh);
        for node in &mesh.nodes {
            node.down();
        }
    });
}

#[test]
fn vxlan() {
    in_mode("vxlan", "id = 42", "native");
}

#[test]
fn vxlan_generic() {
    in_mode("vxlan", "id = 42\nudp_checksum = true", "generic");
}

#[test]
fn geneve() {
    in_mode(
        "geneve",
        "id = 42\nudp_checksum = true\nttl = \"inherit\"\ntos = \"inherit\"\n\
         options = [{ class = 0x0102, type = 1, data = \"01020304\" }]",
        "native",
    );
}

#[test]
fn gretap() {
    in_mode("gretap", "id = 42\nchecksum = true\nsequence = true", "native");
}

#[test]
fn vlan() {
    in_mode("vlan", "id = 42\npcp = \"inherit\"", "native");
}

#[test]
fn qinq() {
    in_mode("qinq", "id = 42\nservice_id = 7", "native");
}

/// A frame with a datagram for `PORT` to all, as from `source`.
fn broadcast(source: Ipv4Addr, tags: &[u16], payload: &[u8]) -> Vec<u8> {
    let (udp, all) = (8 + payload.len() as u16, 28 + payload.len() as u16);
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&all.to_be_bytes());
    ip[12..16].copy_from_slice(&source.octets());
    let sum: u32 = ip.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 9]].concat();
    for tag in tags {
        frame.extend([[0x81, 0], tag.to_be_bytes()].concat());
    }
    frame.extend([8, 0]);
    frame.extend(ip);
    for word in [68, PORT, udp, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// Sends a frame as it is, `COUNT` times, numbered.
fn say_raw(member: &Member, source: Ipv4Addr, tags: &[u16]) {
    within(&member.netns, || {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        let mut to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: index(member.device) as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        to.sll_addr[..6].fill(0xff);
        for number in 0..COUNT {
            let frame = broadcast(source, tags, &[&[number as u8][..], &[7; 299]].concat());
            // SAFETY: the frame and the address are live, and of the sizes that stand beside them.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as u32,
                )
            };
            assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
            thread::sleep(Duration::from_millis(1));
        }
    });
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
            mesh.nodes[number - 1].apply(&Mesh::file(number, &tunnel, "native"));
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
            let file = Mesh::file(number, &|other| tunnel(other).into(), "native");
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
        mesh.apply("protocol = \"geneve\"\nid = 42\nudp_checksum = true\nflood = true", "native");
        let directory = TempDir::new().unwrap();
        let file = |index: usize| directory.path().join(index.to_string());
        let read = |index: usize| fs::read_to_string(file(index)).unwrap();
        for (index, member) in mesh.members.iter().enumerate() {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", member.netns.path().display()));
            command.args(["tcpdump", "-n", "-e", "-l", "-v", "-Q", "in", "-i", "eth0"]);
            command.stdout(File::create(file(index)).unwrap()).stderr(Stdio::inherit());
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
            mesh.nodes[number - 1].apply(&Mesh::file(number, &|_| tunnel.into(), "native"));
        }
        let far = mesh.nodes[2].netns.clone();
        ethtool(&far, "u3", "gro on tx off txvlan off");
        if !has_device(&far, "tun0 type vxlan id 42 local 10.30.30.3 dstport 4789") {
            return;
        }
        // It copies for itself: to both others.
        for other in [1, 2] {
            exec(&far, "bridge", &format!("fdb append 00:00:00:00:00:00 dev tun0 dst {}", outer(other)));
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
