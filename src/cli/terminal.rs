//! The terminal that mptm was started from: one key of it, and whether it is still there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use nix::unistd::{dup2_stderr, dup2_stdout, getpgrp, tcgetpgrp};

/// The controlling terminal. As long as this lives, keys are read as they are pressed, and not shown.
pub struct Terminal {
    file: File,
    /// How it was. None: mptm runs in the background, and keys are for somebody else.
    before: Option<Termios>,
}

impl Terminal {
    /// None: there is none.
    pub fn open() -> Option<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/tty").ok()?;
        let mut terminal = Self { file, before: None };
        // Who is in the background would be stopped for trying.
        if tcgetpgrp(&terminal.file) == Ok(getpgrp())
            && let Ok(before) = tcgetattr(&terminal.file)
        {
            let mut now = before.clone();
            now.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            if tcsetattr(&terminal.file, SetArg::TCSANOW, &now).is_ok() {
                // What was typed before there was anything to confirm confirms nothing.
                let _ = tcflush(&terminal.file, FlushArg::TCIFLUSH);
                terminal.before = Some(before);
            }
        }
        Some(terminal)
    }

    /// Whether keys are for mptm.
    pub fn has_keys(&self) -> bool {
        self.before.is_some()
    }

    /// Whether a key was pressed, when there was something to read; false: the terminal is gone.
    pub fn key(&mut self) -> bool {
        self.file.read(&mut [0; 64]).is_ok_and(|length| length > 0)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, before);
        }
    }
}

/// Sees to it that the rest of what is said is lost where nobody hears it any more, instead of being an error.
pub fn drop_dead_outputs() {
    let Ok(null) = File::options().write(true).open("/dev/null") else { return };
    if is_dead(std::io::stdout().as_fd()) {
        let _ = dup2_stdout(&null);
    }
    if is_dead(std::io::stderr().as_fd()) {
        let _ = dup2_stderr(&null);
    }
}

fn is_dead(output: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(output, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|_| {
        fds[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    })
}
