//! A steady stream of UDP datagrams from one container to the other.

use std::fs::File;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

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
    let mut buffer = [0; 64];
    soon(|| from.send(b"hello").is_ok() && to.recv(&mut buffer).is_ok())
}

fn sockets(lab: &Lab) -> (UdpSocket, UdpSocket) {
    let from = socket_in(&lab.a.container, "10.250.1.1:0");
    let to = socket_in(&lab.b.container, "10.250.1.2:0");
    from.connect(to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    (from, to)
}

/// Sends from container a to container b while `work` is done: how many datagrams were sent, and how many did not
/// arrive.
pub fn loss_while(lab: &Lab, work: impl FnOnce()) -> (u32, u32) {
    assert!(reaches(lab), "nothing gets through to begin with");
    let (from, to) = sockets(lab);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0_u32;
            while !done.load(Ordering::Relaxed) {
                from.send(&sent.to_be_bytes()).unwrap();
                sent += 1;
                thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 64];
            let mut received = 0;
            loop {
                match to.recv(&mut buffer) {
                    Ok(_) => received += 1,
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
