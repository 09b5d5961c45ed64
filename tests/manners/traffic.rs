//! A steady stream of UDP datagrams from one container to the other.

use std::fs::File;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::lab::{Lab, soon};

/// A socket of a namespace, which the calling thread does not enter.
fn socket_in(netns: &str, address: &str) -> UdpSocket {
    let file = File::open(format!("/run/netns/{netns}")).unwrap();
    thread::scope(|scope| {
        let bind = || {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind(address).unwrap()
        };
        scope.spawn(bind).join().unwrap()
    })
}

/// One datagram gets through, perhaps after ARP has.
pub fn reaches(lab: &Lab) -> bool {
    let (from, to) = sockets(lab);
    // Another one is sent soon.
    to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 64];
    soon(|| from.send(b"hello").is_ok() && to.recv(&mut buffer).is_ok())
}

/// A sender in container a, and a receiver in container b.
pub struct Pair {
    from: UdpSocket,
    to: UdpSocket,
}

impl Pair {
    pub fn open(lab: &Lab) -> Self {
        let (from, to) = sockets(lab);
        Self { from, to }
    }

    /// Whether a datagram arrives, as the next one, and as it was sent.
    pub fn passes(&self, number: u32) -> bool {
        let mut buffer = [0; 64];
        self.from.send(&number.to_be_bytes()).unwrap();
        self.to.recv(&mut buffer).is_ok_and(|length| buffer[..length] == number.to_be_bytes())
    }
}

fn sockets(lab: &Lab) -> (UdpSocket, UdpSocket) {
    let from = socket_in(&lab.a.container, "10.250.1.1:0");
    let to = socket_in(&lab.b.container, "10.250.1.2:0");
    from.connect(to.local_addr().unwrap()).unwrap();
    patient(&to);
    (from, to)
}

/// A receiver that may have to wait for a busy machine, and whose datagrams wait for it meanwhile.
fn patient(to: &UdpSocket) {
    to.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    setsockopt(to, RcvBufForce, &(16 << 20)).unwrap();
}

/// Sends from container a to container b while `work` is done: how many datagrams were sent, and how many did not
/// arrive, once and in their order.
pub fn loss_while(lab: &Lab, work: impl FnOnce()) -> (u32, u32) {
    assert!(reaches(lab), "nothing gets through to begin with");
    stream(sockets(lab), work)
}

/// The same in both directions at once: sent and lost, from a to b and from b to a.
pub fn loss_both_ways_while(lab: &Lab, work: impl FnOnce()) -> [(u32, u32); 2] {
    assert!(reaches(lab), "nothing gets through to begin with");
    let (from, to) =
        (socket_in(&lab.b.container, "10.250.1.2:0"), socket_in(&lab.a.container, "10.250.1.1:0"));
    from.connect(to.local_addr().unwrap()).unwrap();
    patient(&to);
    let mut there = (0, 0);
    let back = stream((from, to), || there = stream(sockets(lab), work));
    [there, back]
}

fn stream((from, to): (UdpSocket, UdpSocket), work: impl FnOnce()) -> (u32, u32) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0_u32;
            while !done.load(Ordering::Relaxed) {
                sent += 1;
                from.send(&sent.to_be_bytes()).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 64];
            let (mut received, mut last) = (0, 0);
            loop {
                match to.recv(&mut buffer) {
                    Ok(length) => {
                        let number = <[u8; 4]>::try_from(&buffer[..length]).map_or(0, u32::from_be_bytes);
                        if number > last {
                            received += 1;
                            last = number;
                        }
                    }
                    Err(_) if done.load(Ordering::Relaxed) => return received,
                    Err(_) => {}
                }
            }
        });
        // However it ends, the threads do, too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = Stop(&done);
        work();
        drop(stop);
        let sent = sender.join().unwrap();
        let received: u32 = receiver.join().unwrap();
        (sent, sent - received)
    })
}
