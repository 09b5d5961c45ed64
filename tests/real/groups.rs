//! Who sends to several, and who hears it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use mptm::config::model::NetnsRef;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::traffic::within;

pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x1234);
pub const PORT: u16 = 5000;
/// How many datagrams are sent at a time.
pub const COUNT: usize = 20;
/// After so long nothing more comes.
const SILENCE: Duration = Duration::from_millis(400);

/// A container, or what stands for one.
pub struct Member {
    pub netns: NetnsRef,
    pub device: &'static str,
    pub address: Ipv4Addr,
}

impl Member {
    pub fn v6(&self) -> Ipv6Addr {
        v6(self.address.octets()[3])
    }

    /// A socket that hears the port, and the groups.
    pub fn listen(&self) -> UdpSocket {
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
    pub fn speak(&self, from: IpAddr) -> UdpSocket {
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

pub fn v6(last: u8) -> Ipv6Addr {
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
pub fn heard(socket: &UdpSocket) -> [usize; COUNT] {
    let mut counts = [0; COUNT];
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        assert!(length > 0 && buffer[1..length].iter().all(|byte| *byte == 7), "not what was sent");
        counts[usize::from(buffer[0])] += 1;
    }
    counts
}

/// Sends `COUNT` datagrams of a size.
pub fn say(socket: &UdpSocket, to: SocketAddr, size: usize) {
    for number in 0..COUNT {
        let mut bytes = vec![7; size];
        bytes[0] = number as u8;
        thread::sleep(Duration::from_millis(1));
        socket.send_to(&bytes, to).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}

/// Sockets of all members. They stay open while packets are counted: joining and leaving a group is told to a group.
pub struct Ears(pub Vec<UdpSocket>);

impl Ears {
    pub fn open(members: &[Member]) -> Self {
        let ears = Self(members.iter().map(Member::listen).collect());
        // Each is told once more, after a second or so.
        thread::sleep(Duration::from_secs(3));
        ears
    }

    /// Datagrams from one member, of which each of the others must hear every one exactly once, and which do not come
    /// back to it.
    pub fn hear(&self, members: &[Member], from: usize, source: IpAddr, to: IpAddr, size: usize) {
        say(&members[from].speak(source), (to, PORT).into(), size);
        for (index, ear) in self.0.iter().enumerate() {
            // The kernel lets a sender hear its own broadcasts, once.
            let expected = [usize::from(index != from || !to.is_multicast()); COUNT];
            assert_eq!(heard(ear), expected, "{to} from {from}, heard by {index}");
        }
    }
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
pub fn say_raw(member: &Member, source: Ipv4Addr, tags: &[u16]) {
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
