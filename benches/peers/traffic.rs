//! What is sent from one container to the other. Both are named by their network namespaces.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};

use crate::world::soon;
use crate::{inside, said};

/// The second container's address.
const SERVER: &str = "10.0.0.2";
/// Makes an Ethernet frame of 64 bytes, with its check sequence.
const PAYLOAD: [u8; 18] = [0; 18];
/// Datagrams that are sent by one call.
const BURST: usize = 64;
/// After so long without one, no more come.
const SILENCE: Duration = Duration::from_millis(300);
/// How long the first one may take.
const NOTHING: Duration = Duration::from_secs(10);
const RECEIVE_BUFFER: usize = 8 << 20;

/// For this thread.
fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
}

/// Datagrams per second that arrive, of as many as one thread can send.
pub fn datagrams((client, server): (&str, &str), length: Duration) -> f64 {
    thread::scope(|scope| {
        let (ready, listening) = mpsc::channel();
        let receiver = scope.spawn(move || {
            enter(server);
            let socket = UdpSocket::bind((SERVER, 7001)).expect("nobody has the port");
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root may");
            // It never sleeps: to wake it up would take the sender longer than all else, on a virtual machine above all.
            socket.set_nonblocking(true).expect("a socket");
            ready.send(()).expect("somebody waits");
            let mut buffer = [0; 64];
            let (mut count, mut first, mut last) = (0_u64, None, Instant::now());
            let begin = Instant::now();
            loop {
                match socket.recv(&mut buffer) {
                    Ok(_) => {
                        count += 1;
                        // A look at the clock for some of them only.
                        if count % 64 == 1 {
                            last = Instant::now();
                            first.get_or_insert((last, count));
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        assert!(first.is_some() || begin.elapsed() < NOTHING, "nothing arrives");
                        if first.is_some() && last.elapsed() > SILENCE {
                            break;
                        }
                    }
                    Err(error) => panic!("recv: {error}"),
                }
            }
            let (first, before) = first.expect("some arrived");
            (count - before) as f64 / (last - first).as_secs_f64()
        });
        scope.spawn(move || {
            enter(client);
            listening.recv().expect("the receiver comes");
            let socket = UdpSocket::bind("10.0.0.1:0").expect("a port");
            socket.connect((SERVER, 7001)).expect("there is a route");
            let slice = [IoSlice::new(&PAYLOAD)];
            let slices = [slice; BURST];
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BURST, None);
            let begin = Instant::now();
            while begin.elapsed() < length {
                let to = [None::<SockaddrIn>; BURST];
                sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::empty())
                    .expect("the device takes them, or drops them");
            }
        });
        receiver.join().expect("the receiver ends")
    })
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bits per second of one TCP stream, by iperf3.
pub fn stream((client, server): (&str, &str), seconds: u32) -> f64 {
    let _listener =
        Ended(inside(server, "iperf3").args(["-s", "-1"]).stdout(Stdio::null()).spawn().expect("iperf3"));
    let listens = || !said(inside(server, "ss").args(["-Hltn", "sport = 5201"])).is_empty();
    assert!(soon(listens), "iperf3 does not listen");
    let mut sender = inside(client, "timeout");
    sender.args([&(seconds + 20).to_string(), "iperf3", "-J", "-c", SERVER, "-t", &seconds.to_string()]);
    let text = said(&mut sender);
    let result: serde_json::Value = serde_json::from_str(&text).expect("iperf3 -J prints JSON");
    result["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate")
}

/// Microseconds of each round trip of one byte over TCP.
pub fn round_trips((client, server): (&str, &str), length: Duration) -> Vec<f64> {
    thread::scope(|scope| {
        let (ready, listening) = mpsc::channel();
        scope.spawn(move || {
            enter(server);
            let listener = TcpListener::bind((SERVER, 7000)).expect("nobody has the port");
            ready.send(()).expect("somebody waits");
            let (mut stream, _) = listener.accept().expect("the client comes");
            stream.set_nodelay(true).expect("TCP");
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|size| size > 0) {
                stream.write_all(&byte).expect("the client waits");
            }
        });
        let client = scope.spawn(move || {
            enter(client);
            listening.recv().expect("the server comes");
            let mut stream = TcpStream::connect((SERVER, 7000)).expect("the server listens");
            stream.set_nodelay(true).expect("TCP");
            let (mut times, begin) = (Vec::new(), Instant::now());
            while begin.elapsed() < length {
                let (sent, mut byte) = (Instant::now(), [7]);
                stream.write_all(&byte).expect("the server reads");
                stream.read_exact(&mut byte).expect("the server answers");
                times.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            times
        });
        client.join().expect("the client ends")
    })
}
