//! Locks that processes have against each other, on files that are there anyway.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How often a lock that somebody has is tried again.
const POLL: Duration = Duration::from_millis(20);

/// Locks a file or directory against whoever else asks for this; None: somebody has had it for all of `wait`. Nothing
/// is left of a lock whose holder ends, however it does.
pub(super) fn exclusive(path: &Path, wait: Duration) -> io::Result<Option<Flock<File>>> {
    let deadline = Instant::now() + wait;
    // A lock belongs to what was opened, not to who opened it: hence anew each time, and never a duplicate.
    let mut file = File::open(path)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => return Ok(None),
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) => file = again,
            Err((_, error)) => return Err(error.into()),
        }
        thread::sleep(POLL);
    }
}
