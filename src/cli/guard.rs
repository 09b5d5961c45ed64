//! The guard of an apply that wants to be confirmed: a process of its own, which makes all as it was before unless it is
//! told to let it be, in time. It is there before anything is changed, hears no signals, and has no terminal. That the
//! apply has been killed, by whatever, shows as the end of the channel between them. The lock on the network namespace
//! is its own, too: nobody else comes in between.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, fork, setsid};

use super::rejected::{Fingerprint, Rejected};
use super::{CliError, Global, Kernel};
use crate::render;
use crate::rollback::go_back;
use crate::state::State;

/// How often the guard tries to go back, and how long it waits in between.
const TRIES: usize = 3;
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// No answer is longer: what a packet of the channel holds.
const ANSWER: usize = 8192;

/// What the guard is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// All is done: the time runs. What was applied follows.
    Applied = b'a',
    /// Let it be.
    Confirmed = b'c',
    /// Go back.
    GoBack = b'r',
}

/// What has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It stays.
    Kept,
    /// All is as it was; what that took. Empty: nothing.
    Back(String),
    /// It could not go back: why.
    Stuck(String),
}

/// The guard, as the apply sees it.
pub struct Guard {
    process: Pid,
    channel: OwnedFd,
    before: State,
    rejected: Rejected,
    /// What was applied, once it is.
    applied: Option<Fingerprint>,
    /// With the programs that were there before.
    kernel: Kernel,
}

impl Guard {
    /// Starts it. No other thread may be there. If the apply is killed, it leaves `socket` behind: the guard removes it.
    pub fn start(
        global: &Global,
        before: State,
        seconds: u32,
        socket: &Path,
        rejected: Rejected,
    ) -> Result<Self, CliError> {
        let cannot = |error: Errno| CliError::Other {
            what: format!("cannot start the process that goes back: {}", io::Error::from(error)),
            hint: None,
        };
        // The network's sockets are each process's own.
        let mut kernel = global.kernel()?;
        kernel.bpf.hold_programs();
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(cannot)?;
        // SAFETY: there is one thread, so the child can do whatever this process can.
        match unsafe { fork() }.map_err(cannot)? {
            ForkResult::Parent { child } => {
                Ok(Self { process: child, channel: near, before, rejected, applied: None, kernel })
            }
            ForkResult::Child => {
                drop(near);
                // Whatever happens, nothing of the apply's own code is run here.
                let code = catch_unwind(AssertUnwindSafe(|| {
                    watch_over(global, &mut kernel, &before, &far, seconds, socket, &rejected)
                }));
                // SAFETY: it ends the process, without what the apply wants done at its end.
                unsafe { libc::_exit(i32::from(code.is_err())) }
            }
        }
    }

    /// All is done: the time runs.
    pub fn applied(&mut self, file: &Fingerprint) {
        let word = [&[Word::Applied as u8], file.as_bytes()].concat();
        let _ = send(self.channel.as_raw_fd(), &word, MsgFlags::MSG_NOSIGNAL);
        self.applied = Some(file.clone());
    }

    /// Tells it something. If it is gone, `outcome` says so.
    pub fn tell(&self, word: Word) {
        let _ = send(self.channel.as_raw_fd(), &[word as u8], MsgFlags::MSG_NOSIGNAL);
    }

    /// What to wait for, until there is an outcome.
    pub fn channel(&self) -> &OwnedFd {
        &self.channel
    }

    /// What has become of it; waits for that. If somebody has killed the guard, the apply goes back itself.
    pub fn outcome(mut self) -> Outcome {
        let mut answer = [0; ANSWER];
        let length = loop {
            match recv(self.channel.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                result => break result.unwrap_or(0),
            }
        };
        // With it goes its share of the lock.
        while waitpid(self.process, None) == Err(Errno::EINTR) {}
        match answer[..length].split_first() {
            Some((b'k', _)) => Outcome::Kept,
            Some((b'b', text)) => Outcome::Back(String::from_utf8_lossy(text).into_owned()),
            Some((_, text)) => Outcome::Stuck(String::from_utf8_lossy(text).into_owned()),
            None => {
                reject(&self.rejected, self.applied.as_ref());
                try_to_go_back(&mut self.kernel, &self.before)
            }
        }
    }
}

/// The guard's life. Waits for the word, and for its time to be over.
fn watch_over(
    global: &Global,
    kernel: &mut Kernel,
    before: &State,
    channel: &OwnedFd,
    seconds: u32,
    socket: &Path,
    rejected: &Rejected,
) {
    let _ = setsid();
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null).and_then(|()| dup2_stdout(&null));
    }
    let (mut deadline, mut applied) = (None, None);
    let kept = loop {
        match hear(channel, deadline) {
            Some((Word::Applied, file)) => {
                deadline = Some(Instant::now() + Duration::from_secs(seconds.into()));
                applied = Some(file);
            }
            Some((Word::Confirmed, _)) => break true,
            Some((Word::GoBack, _)) | None => break false,
        }
    };
    if !kept {
        reject(rejected, applied.as_ref());
    }
    let outcome = match (kept, global.kernel()) {
        (true, _) => Outcome::Kept,
        (false, Ok(fresh)) => {
            kernel.net = fresh.net;
            try_to_go_back(kernel, before)
        }
        (false, Err(error)) => Outcome::Stuck(error.to_string()),
    };
    let (kind, text) = match &outcome {
        Outcome::Kept => (b'k', ""),
        Outcome::Back(text) => (b'b', text.as_str()),
        Outcome::Stuck(text) => (b'f', text.as_str()),
    };
    let mut answer = vec![kind];
    answer.extend(text.bytes().take(ANSWER - 1));
    if send(channel.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL).is_err() && !kept {
        let _ = std::fs::remove_file(socket);
        // Nobody is left to say it; perhaps somebody reads it all the same.
        let _ = match outcome {
            Outcome::Stuck(why) => {
                writeln!(io::stderr(), "mptm was killed, and its changes could not be undone: {why}")
            }
            _ => writeln!(io::stderr(), "mptm was killed; its changes are undone."),
        };
    }
}

/// What was in force, and was not confirmed, is not wanted. That of an apply that failed may be, later.
fn reject(rejected: &Rejected, applied: Option<&Fingerprint>) {
    if let Some(Err(error)) = applied.map(|file| rejected.set(file)) {
        let _ = writeln!(io::stderr(), "`mptm watch` may apply it again: it can't be told not to: {error}");
    }
}

/// The next word, and what follows it. None: time is over, or the apply is gone.
fn hear(channel: &OwnedFd, deadline: Option<Instant>) -> Option<(Word, Fingerprint)> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, so that it does not wake before its time.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return None,
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return None,
        }
        let mut said = [0; 128];
        return match recv(channel.as_raw_fd(), &mut said, MsgFlags::empty()) {
            Ok(length @ 1..) => {
                let word = match said[0] {
                    b'a' => Word::Applied,
                    b'c' => Word::Confirmed,
                    _ => Word::GoBack,
                };
                Some((word, Fingerprint::received(&said[1..length])))
            }
            Err(Errno::EINTR) => continue,
            _ => None,
        };
    }
}

fn try_to_go_back(kernel: &mut Kernel, before: &State) -> Outcome {
    let mut why = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            std::thread::sleep(TRY_AGAIN);
        }
        match go_back(before, &mut kernel.bpf, &mut kernel.net) {
            Ok(plan) if plan.is_empty() => return Outcome::Back(String::new()),
            Ok(plan) => return Outcome::Back(render::summary_done(&plan)),
            Err(error) => why = error.to_string(),
        }
    }
    Outcome::Stuck(why)
}
