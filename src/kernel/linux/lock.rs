//! One mptm at a time changes things. A lock that its holder's end releases, and that holds no state.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// As iptables has /run/xtables.lock.
const FILE: &str = "/run/mptm.lock";

/// Whoever holds it is the only one.
pub struct Lock {
    _held: Option<Flock<File>>,
}

/// Waits until no other mptm changes anything; calls `waiting` with the lock's path once, when that takes long.
///
/// Where there can be no such file (a read-only /run, say), there is no lock: every change is checked afterwards, anyway.
pub fn only_one(waiting: impl FnOnce(&str)) -> Lock {
    const STEP: Duration = Duration::from_millis(20);
    const STEPS: u32 = 100;
    let Ok(mut file) =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(FILE)
    else {
        return Lock { _held: None };
    };
    for _ in 0..STEPS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Lock { _held: Some(held) },
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err(_) => return Lock { _held: None },
        }
        thread::sleep(STEP);
    }
    waiting(FILE);
    Lock { _held: Flock::lock(file, FlockArg::LockExclusive).ok() }
}
