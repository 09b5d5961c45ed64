//! A stream of numbered packets, and who sees where they arrive.

use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mptm::config::model::NetnsRef;
use mptm::kernel::linux::enter_netns;

use crate::node::{Node, workload};

/// What the packets are for.
pub const PROBED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// How often one is sent.
const EVERY: Duration = Duration::from_micros(200);
/// Where the number is: behind Ethernet, IPv4 and UDP; at the far end behind the same again, and GENEVE's own 8 bytes.
const NUMBER: usize = 14 + 20 + 8;
const OUTER: usize = NUMBER + 8;
/// The kernel's stamp of the packet that was read last: uapi linux/sockios.h, with a 64-bit timespec.
const SIOCGSTAMPNS: libc::c_ulong = 0x8907;

/// What has arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When the last one arrived, in nanoseconds of the real-time clock, and by which way.
    pub last: Option<(u64, usize)>,
    /// The first packet of each change of the way.
    pub turns: Vec<(u64, usize)>,
    /// How many numbers are missing.
    pub lost: u64,
    next: u64,
}

impl Seen {
    fn note(&mut self, at: u64, way: usize, number: u64) {
        match self.last {
            Some(_) => {
                assert!(number >= self.next, "packet {number} after {}", self.next);
                self.lost += number - self.next;
            }
            None => assert_eq!(way, 0, "the first packet took the other way"),
        }
        if self.last.is_some_and(|(_, last)| last != way) {
            self.turns.push((at, way));
        }
        (self.last, self.next) = (Some((at, way)), number + 1);
    }
}

/// The stream, until it is stopped.
pub struct Probes {
    seen: Arc<Mutex<Seen>>,
    ends: Arc<[AtomicBool; 2]>,
    threads: Vec<JoinHandle<()>>,
}

impl Probes {
    /// From the node's first container to `PROBED`; at the far end, `ways` are the outer destinations.
    pub fn start(node: &Node, ways: [Ipv4Addr; 2]) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let ends = Arc::new([const { AtomicBool::new(false) }; 2]);
        let (far, container) = (node.far.clone(), node.containers[0].clone());
        let listening = inside(&far, || Packets::open("u")).expect("root may read packets");
        let sending = inside(&container, || Packets::open("eth0")).expect("root may send packets");
        let (seen_there, ends_there, ends_here) = (seen.clone(), ends.clone(), ends.clone());
        let threads = vec![
            thread::spawn(move || listen(&listening, ways, &seen_there, &ends_there[0])),
            thread::spawn(move || send(&sending, &ends_here[1])),
        ];
        Self { seen, ends, threads }
    }

    pub fn seen(&self) -> Seen {
        assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a thread has ended");
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the stream, and waits for what is on its way.
    pub fn stop(mut self) -> Seen {
        let seen = self.seen();
        self.end();
        assert!(self.seen.lock().is_ok_and(|now| now.next >= seen.next));
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&mut self) {
        for (end, thread) in [1, 0].into_iter().zip([self.threads.pop(), self.threads.pop()]) {
            self.ends[end].store(true, Ordering::Relaxed);
            if let Some(Err(panicked)) = thread.map(JoinHandle::join)
                && !thread::panicking()
            {
                std::panic::resume_unwind(panicked);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.end();
    }
}

/// Does something on a thread in another namespace.
fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter_netns(&NetnsRef::Name(netns.into())).expect("the bench has made it");
            work()
        });
        worker.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    })
}

fn listen(packets: &Packets, ways: [Ipv4Addr; 2], seen: &Mutex<Seen>, end: &AtomicBool) {
    let mut frame = [0; 2048];
    while !end.load(Ordering::Relaxed) {
        let Some((length, at)) = packets.receive(&mut frame) else { continue };
        let Some(to) = frame[..length].get(30..34).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else {
            continue;
        };
        let number = frame[..length].get(OUTER + NUMBER..).and_then(|rest| rest.first_chunk());
        let way = ways.iter().position(|way| way.octets() == to);
        if let (Some(way), Some(number)) = (way, number) {
            let number = u64::from_be_bytes(*number);
            seen.lock().unwrap_or_else(PoisonError::into_inner).note(at, way, number);
        }
    }
}

fn send(packets: &Packets, end: &AtomicBool) {
    // Sleeping shall end when it should, and not 50 µs later.
    // SAFETY: it takes numbers, and concerns this thread alone.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let mut frame = frame();
    let mut next = Instant::now();
    let mut number = 0_u64;
    while !end.load(Ordering::Relaxed) {
        frame[NUMBER..NUMBER + 8].copy_from_slice(&number.to_be_bytes());
        number += 1;
        packets.send(&frame);
        next += EVERY;
        match next.checked_duration_since(Instant::now()) {
            Some(left) => thread::sleep(left),
            // What was late is not made up for: a burst could overrun somebody.
            None => next = Instant::now(),
        }
    }
}

/// Ethernet, IPv4, UDP without a checksum, and room for a number.
fn frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 9, 1, 8, 0];
    let source: Ipv4Addr = workload(0).parse().expect("an address");
    let mut header = [0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&PROBED.octets());
    let sum: u32 = header.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([0x30, 0, 0, 9, 0, 16, 0, 0]);
    frame.extend([0; 8]);
    frame
}

/// A packet socket on one device.
struct Packets(OwnedFd);

impl Packets {
    fn open(device: &str) -> io::Result<Self> {
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let protocol = (libc::ETH_P_IP as u16).to_be();
        // SAFETY: it takes numbers.
        let fd =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: all zeros is a valid sockaddr_ll, which has only numbers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex as i32;
        // SAFETY: the address is valid and as long as is said.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let wait = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
        let room = 64_i32 << 20;
        socket.set(libc::SO_RCVTIMEO, &wait)?;
        socket.set(libc::SO_RCVBUFFORCE, &room)?;
        // Once asked for, stamps are kept from then on.
        let _ = socket.stamp();
        Ok(socket)
    }

    fn set<T>(&self, option: i32, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as u32;
        // SAFETY: the descriptor is open, and the value is as long as is said.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(value).cast(),
                length,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame's length, and when it arrived. None: there was none for a while.
    fn receive(&self, frame: &mut [u8]) -> Option<(usize, u64)> {
        // SAFETY: the descriptor is open, and the buffer as long as is said.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        let length = usize::try_from(length).ok()?;
        Some((length, self.stamp().expect("the kernel has stamped it")))
    }

    /// When the frame arrived that was read last.
    fn stamp(&self) -> io::Result<u64> {
        let mut stamp = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the descriptor is open, and the kernel writes a timespec.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCGSTAMPNS, &raw mut stamp) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stamp.tv_sec as u64 * 1_000_000_000 + stamp.tv_nsec as u64)
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: the descriptor is open, and the buffer as long as is said.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }
}
