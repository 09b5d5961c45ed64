//! A blocking rtnetlink client: one socket, one question at a time, nothing that waits for ever.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator, parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long the kernel may take for a message, in seconds.
const RECEIVE_SECONDS: i64 = 5;
/// How long an answer of one message may take, strangers' messages included.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a whole dump may take.
const DUMP_TIME: Duration = Duration::from_secs(30);
/// How often a dump is begun again because the table changed meanwhile.
const DUMP_TRIES: u32 = 8;
/// More than the kernel puts into one datagram (32 KiB).
const BUFFER_BYTES: usize = 64 * 1024;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// The kernel's words about a refusal.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A refusal for which the kernel gave more than a number.
#[derive(Debug)]
struct Refusal {
    errno: i32,
    words: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", io::Error::from_raw_os_error(self.errno), self.words)
    }
}

impl std::error::Error for Refusal {}

/// The error number, whether or not words came with it.
pub(super) fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| Some(error.get_ref()?.downcast_ref::<Refusal>()?.errno))
}

/// A socket of one network namespace: that of the thread that opened it, wherever the socket goes afterwards. ethtool's
/// ioctl and the namespace's cookie can be asked of it too, since those care for no socket's family.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// Opens a socket in the thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Connected: nobody but the kernel can put messages into it.
        socket.connect(&SocketAddr::new(0, 0))?;
        // A refusal carries words, and not a copy of the question.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Dumps heed their filters.
        socket.set_netlink_get_strict_chk(true)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(RECEIVE_SECONDS))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Asks for one thing.
    pub(super) fn get(&mut self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        self.send(question, NLM_F_REQUEST)?;
        let message = self.first_answer()?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => Ok(answer),
            NetlinkPayload::Error(refusal) => Err(refused(&refusal, message.header.flags)),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes something; `flags` are NLM_F_CREATE and its like.
    pub(super) fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let message = self.first_answer()?;
        match message.payload {
            NetlinkPayload::Error(ErrorMessage { code: None, .. }) => Ok(()),
            NetlinkPayload::Error(refusal) => Err(refused(&refusal, message.header.flags)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for all that match, as of one moment.
    pub(super) fn dump(&mut self, question: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let deadline = Instant::now() + DUMP_TIME;
        for _ in 0..DUMP_TRIES {
            self.send(question.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if let Some(answers) = self.receive_dump(deadline)? {
                return Ok(answers);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the table changed each time that it was read"))
    }

    /// None: the table changed while the kernel was writing it down.
    fn receive_dump(&mut self, deadline: Instant) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive(deadline)? {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(refusal) => return Err(refused(&refusal, message.header.flags)),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(with_words(-done.code, &done.extended_ack));
                    }
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(answers)),
                    other => return Err(unexpected(&other)),
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    fn first_answer(&mut self) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            if let Some(message) = self.receive(deadline)?.into_iter().next() {
                return Ok(message);
            }
        }
    }

    /// The messages of one datagram that answer the last question. Leftovers of a question that was given up are
    /// passed over.
    fn receive(&mut self, deadline: Instant) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        loop {
            if Instant::now() > deadline {
                return Err(no_answer());
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(invalid(format!("a message of {length} bytes is too long")));
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(no_answer()),
                Err(error) => return Err(error),
            }
        }
        answers_to(self.sequence, &self.buffer)
    }
}

fn answers_to(sequence: u32, mut datagram: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut messages = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        let [a, b, c, d, _, _, _, _, e, f, g, h, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let message = match datagram.get(..length) {
            Some(message) if length >= HEADER_BYTES => message,
            _ => return Err(invalid(format!("a message claims {length} bytes"))),
        };
        if u32::from_ne_bytes([e, f, g, h]) == sequence {
            messages.push(NetlinkMessage::deserialize(message).map_err(|error| invalid(error.to_string()))?);
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

fn refused(refusal: &ErrorMessage, flags: u16) -> io::Error {
    let errno = refusal.raw_code().saturating_abs();
    if flags & NLM_F_ACK_TLVS == 0 {
        return io::Error::from_raw_os_error(errno);
    }
    // The question's header comes first, and the whole question unless it was capped.
    let question = match refusal.header.first_chunk() {
        Some(length) if flags & NLM_F_CAPPED == 0 => u32::from_ne_bytes(*length) as usize,
        _ => HEADER_BYTES,
    };
    with_words(errno, refusal.header.get(question.next_multiple_of(4)..).unwrap_or_default())
}

fn with_words(errno: i32, attributes: &[u8]) -> io::Error {
    let words = NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok());
    let plain = io::Error::from_raw_os_error(errno);
    match words {
        Some(words) if !words.is_empty() => io::Error::new(plain.kind(), Refusal { errno, words }),
        _ => plain,
    }
}

/// An answer to another question than was asked.
pub(super) fn unexpected(what: &dyn fmt::Debug) -> io::Error {
    invalid(format!("{what:?} was not asked for"))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel's answer can't be read: {what}"))
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A refusal of question 7 with EINVAL and words, capped.
    fn refusal() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(48u32.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes()); // NLMSG_ERROR
        bytes.extend((NLM_F_ACK_TLVS | NLM_F_CAPPED).to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend((-libc::EINVAL).to_ne_bytes());
        bytes.extend([0; HEADER_BYTES]); // the question's header
        bytes.extend(12u16.to_ne_bytes());
        bytes.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        bytes.extend(b"too big\0");
        bytes
    }

    #[test]
    fn words_of_a_refusal() {
        let messages = answers_to(7, &refusal()).unwrap();
        let [NetlinkMessage { header, payload: NetlinkPayload::Error(error), .. }] = &messages[..] else {
            panic!("{messages:?}")
        };
        let error = refused(error, header.flags);
        assert_eq!(error.to_string(), "Invalid argument (os error 22): too big");
        assert_eq!(errno(&error), Some(libc::EINVAL));
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn another_questions_answer_is_passed_over() {
        assert!(answers_to(8, &refusal()).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_is_an_error_or_nothing() {
        let whole = refusal();
        for length in 0..whole.len() {
            match answers_to(7, &whole[..length]) {
                Ok(messages) => assert!(messages.is_empty(), "{length}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}"),
            }
        }
    }
}
