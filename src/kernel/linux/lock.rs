//! Locks that processes have against each other, on files that are there anyway.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};

/// How often a lock that somebody has is tried again.
const POLL: Duration = Duration::from_millis(20);

/// Who has a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its command line; empty: it has ended, and a child of its has the lock.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.command.is_empty() {
            write!(f, "what process {} has started", self.pid)
        } else {
            write!(f, "`{}`, process {}", self.command, self.pid)
        }
    }
}

/// Locks a file or directory against whoever else asks for this; None: somebody has had it for all of `wait`. `busy`
/// is told who has it, as soon as that is known and whenever it has become another. Nothing is left of a lock whose
/// holder ends, however it does.
pub(super) fn exclusive(
    path: &Path,
    wait: Duration,
    mut busy: impl FnMut(&Holder),
) -> io::Result<Option<Flock<File>>> {
    let deadline = Instant::now() + wait;
    // A lock belongs to what was opened, not to who opened it: hence anew each time, and never a duplicate.
    let mut file = File::open(path)?;
    let mut told = None;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) => file = again,
            Err((_, error)) => return Err(error.into()),
        }
        let now = holder(&file);
        if let Some(now) = now.filter(|now| told.as_ref() != Some(now)) {
            busy(&now);
            told = Some(now);
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Who has the lock on what was opened. None: nobody any more, or somebody who can't be seen from here.
fn holder(file: &File) -> Option<Holder> {
    let metadata = file.metadata().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| locked_by(line, metadata.dev(), metadata.ino()))?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Some(Holder { pid, command: words.join(" ").trim_end().to_owned() })
}

/// The process of a line of /proc/locks (proc_locks(5)) if it has the lock of that inode; those that wait have an arrow.
fn locked_by(line: &str, device: u64, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next() != Some("FLOCK") {
        return None;
    }
    let (pid, place) = (fields.nth(2)?, fields.next()?);
    let here = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    // 0: a process that this PID namespace does not see.
    (place == here).then(|| pid.parse().ok()).flatten().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_locks() {
        let device = nix::sys::stat::makedev(0, 4);
        let line = "12: FLOCK  ADVISORY  WRITE 4711 00:04:4026531840 0 EOF";
        assert_eq!(locked_by(line, device, 4_026_531_840), Some(4711));
        assert_eq!(locked_by(line, device, 4_026_531_841), None);
        assert_eq!(
            locked_by("12: -> FLOCK  ADVISORY  WRITE 4712 00:04:4026531840 0 EOF", device, 4_026_531_840),
            None
        );
        assert_eq!(
            locked_by("3: POSIX  ADVISORY  WRITE 9 00:04:4026531840 0 EOF", device, 4_026_531_840),
            None
        );
        assert_eq!(
            locked_by("3: FLOCK  ADVISORY  WRITE 0 00:04:4026531840 0 EOF", device, 4_026_531_840),
            None
        );
        assert_eq!(locked_by("", device, 1), None);
    }

    #[test]
    fn the_holder_is_told_at_once_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let lock = exclusive(directory.path(), Duration::ZERO, |_| panic!("nobody has it")).unwrap().unwrap();
        let mut told = Vec::new();
        let wait = Duration::from_millis(50);
        assert!(exclusive(directory.path(), wait, |holder| told.push(holder.clone())).unwrap().is_none());
        assert_eq!(told.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [std::process::id()]);
        assert!(told[0].to_string().ends_with(&format!("`, process {}", std::process::id())), "{}", told[0]);
        drop(lock);
        assert!(exclusive(directory.path(), Duration::ZERO, |_| {}).unwrap().is_some());
    }
}
