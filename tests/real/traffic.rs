//! Traffic between containers, by the kernel's own sockets and `ping`. Time limits are there to end a test that fails,
//! not to measure: a busy machine needs long.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use mptm::config::model::NetnsRef;
use mptm::kernel::linux::enter_netns;

use crate::site::{Container, Status, attempt, exec};

const PATIENCE: Duration = Duration::from_secs(20);
/// A transfer that would not fit into any buffer on the way.
pub const BULK: usize = 50 << 20;

/// So many bytes, but an eighth of them with MPTM_TRAFFIC=short, as an emulated machine wants.
fn volume(size: usize) -> usize {
    if env::var_os("MPTM_TRAFFIC").is_some_and(|value| value == "short") { size / 8 } else { size }
}

/// Does something in another namespace.
pub fn within<T: Send>(netns: &NetnsRef, work: impl FnOnce() -> T + Send) -> T {
    let there = || {
        enter_netns(netns).unwrap();
        work()
    };
    thread::scope(|scope| match scope.spawn(there).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Three echo requests of a size, unfragmented, must be answered.
pub fn ping(from: &NetnsRef, to: IpAddr, size: usize) {
    ping_with(from, to, size, "");
}

/// The same with more options; what `ping` says.
pub fn ping_with(from: &NetnsRef, to: IpAddr, size: usize, options: &str) -> String {
    exec(from, "ping", &format!("-n -c 3 -i 0.05 -w 15 -M do -s {size} {options} {to}"))
}

/// Echo requests that fill a packet of `mtu` bytes.
pub fn ping_full(from: &NetnsRef, to: IpAddr, mtu: u64) {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    ping(from, to, mtu as usize - headers);
}

/// None of three echo requests may be answered.
pub fn no_ping(from: &NetnsRef, to: IpAddr, options: &str) {
    let said = attempt(from, "ping", &format!("-n -c 3 -i 0.05 -W 1 {options} {to}"));
    assert!(said.as_ref().is_err_and(|said| said.contains(" 0 received")), "{said:?}");
}

/// What byte of a transfer is what: no two blocks of a packet's size are alike.
fn pattern(buffer: &mut [u8], mut at: usize) {
    for chunk in buffer.chunks_mut(8) {
        let bytes = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
        at += 8;
    }
}

/// Sends bytes by TCP and compares each at the other end.
pub fn tcp(from: &NetnsRef, to: &NetnsRef, address: IpAddr, size: usize) {
    let listener = within(to, || TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let connect = || TcpStream::connect_timeout(&target, PATIENCE);
            let mut stream =
                within(from, connect).unwrap_or_else(|error| panic!("connect {target}: {error}"));
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut block = vec![0; 1 << 16];
            for at in (0..size).step_by(block.len()) {
                pattern(&mut block, at);
                let length = block.len().min(size - at);
                stream.write_all(&block[..length]).unwrap_or_else(|error| panic!("send at {at}: {error}"));
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // The receiver has compared everything.
            let mut answer = [0];
            stream.read_exact(&mut answer).expect("the receiver's answer");
        });
        let mut stream = accept(&listener);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = vec![0; 1 << 16];
        let mut expected = vec![0; 1 << 16];
        for at in (0..size).step_by(received.len()) {
            let length = received.len().min(size - at);
            stream
                .read_exact(&mut received[..length])
                .unwrap_or_else(|error| panic!("receive at {at}: {error}"));
            pattern(&mut expected, at);
            assert!(received[..length] == expected[..length], "the bytes from {at} on are not those sent");
        }
        assert_eq!(stream.read(&mut received).expect("the end"), 0, "more than was sent");
        stream.write_all(&[1]).unwrap();
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "nobody connects");
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// A socket of a namespace that waits for a while, but not for ever.
pub fn udp_socket(netns: &NetnsRef, address: IpAddr) -> UdpSocket {
    let socket = within(netns, || UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A datagram of a size to `to` and another back; above the MTU, the containers fragment them.
pub fn udp(from: &Container, to: &Container, size: usize) {
    let (near, far) = (udp_socket(&from.netns, from.address), udp_socket(&to.netns, to.address));
    let from = datagram(&near, &far, size);
    assert_eq!(from, near.local_addr().unwrap(), "nobody translates addresses");
    datagram(&far, &near, size);
}

/// Whether a datagram arrives within half a second.
pub fn datagram_arrives(from: &UdpSocket, to: &UdpSocket, size: usize) -> bool {
    from.send_to(&vec![0; size], to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    to.recv_from(&mut vec![0; 1 << 16]).is_ok()
}

/// One datagram between two sockets; who it came from, as the receiver sees it.
fn datagram(from: &UdpSocket, to: &UdpSocket, size: usize) -> SocketAddr {
    let mut sent = vec![0; size];
    pattern(&mut sent, size);
    from.send_to(&sent, to.local_addr().unwrap()).unwrap();
    let mut received = vec![0; 1 << 16];
    let (length, source) =
        to.recv_from(&mut received).unwrap_or_else(|error| panic!("a datagram of {size} bytes: {error}"));
    assert!(received[..length] == sent, "a datagram of {size} bytes is not what was sent");
    source
}

/// All that two containers may want of each other.
pub fn all_kinds(a: &Container, b: &Container) {
    for (from, to) in [(a, b), (b, a)] {
        ping(&from.netns, to.address, 56);
        ping(&from.netns, to.address, 1400);
        for size in [0, 1, 1400, 4000, 20000] {
            udp(from, to, size);
        }
        tcp(&from.netns, &to.netns, to.address, volume(BULK / 2));
    }
}

/// The same in less time, up to the largest packets; TCP from `a` fills them.
pub fn carries(a: &Container, b: &Container, mtu: u64, status: impl Fn() -> Status) {
    carries_up_to(a, b, [mtu, mtu], status);
}

/// The same where `a` and `b` send packets up to sizes of their own.
pub fn carries_up_to(a: &Container, b: &Container, mtus: [u64; 2], status: impl Fn() -> Status) {
    for ((from, to), mtu) in [(a, b), (b, a)].into_iter().zip(mtus) {
        ping_full(&from.netns, to.address, mtu);
        for size in [0, 1, 1200, 20000] {
            udp(from, to, size);
        }
    }
    full_size_of(volume(8 << 20), a, b, status);
    tcp(&b.netns, &a.netns, a.address, volume(2 << 20));
}

/// A TCP transfer through tunnel `t` fills the packets: `status` is asked before and after it.
pub fn full_size(from: &Container, to: &Container, status: impl Fn() -> Status) {
    full_size_of(volume(BULK), from, to, status);
}

/// The same with so many bytes.
pub fn full_size_of(size: usize, from: &Container, to: &Container, status: impl Fn() -> Status) {
    let before = status();
    tcp(&from.netns, &to.netns, to.address, size);
    let after = status();
    let bytes = after.sent_bytes("t") - before.sent_bytes("t");
    let packets = after.sent("t") - before.sent("t");
    assert!(bytes > size as u64, "{bytes} bytes");
    let mtu = after.tunnel("t")["mtu"].as_u64().unwrap();
    assert!(bytes / packets > mtu * 9 / 10, "{bytes} bytes in {packets} packets, where {mtu} would fit");
}
