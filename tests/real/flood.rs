//! Multicast and broadcast between the workloads of a segment, through tunnels with `flood`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use mptm::config::model::NetnsRef;

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
    let mut buffer = [0; 2048];
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
            with_ipv6(&member.netns);
            exec(&member.netns, "ip", &format!("addr add {}/64 dev eth0 nodad", member.v6()));
        }
    }

    /// The file of a node, with a tunnel to each other node; `tunnel` is the rest of all of them.
    fn file(number: usize, tunnel: &str, mode: &str) -> String {
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
        let others = (1..=3).filter(|other| *other != number);
        if tunnel.contains("\"vlan\"") || tunnel.contains("\"qinq\"") {
            let inner: Vec<String> = others.map(behind).collect();
            return file + &format!("[tunnel.t]\ninner = [{}]\n{tunnel}\n", inner.join(", "));
        }
        for other in others {
            file += &format!(
                "[tunnel.t{other}]\nremote = \"{}\"\ninner = [{}]\n{tunnel}\n",
                outer(other),
                behind(other)
            );
        }
        file
    }

    fn apply(&self, tunnel: &str, mode: &str) {
        for (node, number) in self.nodes.iter().zip(1..) {
            node.apply(&Self::file(number, tunnel, mode));
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
    // The others can speak, too.
    ears.hear(members, 3, members[3].address.into(), GROUP.into(), 200);
    ears.hear(members, 2, members[2].address.into(), BROADCAST, 200);
    // Unicast, and the ARP that it needs, as ever.
    for member in &members[1..] {
        ping(&members[0].netns, member.address.into(), 1000);
    }
    for node in &mesh.nodes {
        assert_eq!(node.status().drops(), [].into(), "{}", node.name);
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
