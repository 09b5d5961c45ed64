//! `mptm watch`: waits for something to happen, and then looks again.

mod follower;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{CliError, Global};
use crate::kernel::linux::Events;
use crate::watch::files::{Change, Files};
use crate::watch::log::{Format, Log};
use crate::watch::service::Service;
use crate::watch::timing::{QUIET, QUIET_GONE, Timing};
use follower::Follower;

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// How often to compare everything, whether or not anything has happened
    #[arg(
        long,
        default_value_t = 30,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=86400)
    )]
    interval: u32,
    /// How lines on standard error look
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log_format: Format,
}

pub fn run(global: &Global, args: &WatchArgs) -> Result<ExitCode, CliError> {
    if global.reads_stdin() {
        return Err(failed(
            "watch follows a file, and standard input is none",
            Some("name one with -c FILE"),
        ));
    }
    let signals = signals().map_err(|error| refused("cannot take signals", error))?;
    // Whatever happens from here on is heard of.
    let mut events = Events::subscribe()?;
    let mut files = Files::new(&global.config).map_err(|error| refused("cannot follow files", error))?;
    let service = Service::from_environment();
    let mut follower = Follower::start(global, &mut files, Log::new(args.log_format))?;

    let begin = Instant::now();
    let mut timing = Timing::new(Duration::from_secs(args.interval.into()), begin);
    let has_failed = follower.pass(true);
    timing.passed(begin, Instant::now(), true, has_failed);
    let mut status = follower.status();
    service.ready(&status);

    let mut wanted = Wanted::default();
    let mut alive = Instant::now();
    loop {
        let heartbeat = service.heartbeat().map(|every| alive + every);
        let until = heartbeat.map_or(timing.next(), |heartbeat| heartbeat.min(timing.next()));
        wait(&signals, &events, &files, until).map_err(|error| refused("cannot wait", error))?;
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != Signal::SIGHUP as u32 {
                service.stopping();
                follower.stop();
                return Ok(ExitCode::SUCCESS);
            }
            service.reloading();
            wanted = Wanted { reload: true, by_signal: true };
            timing.at_once(Instant::now());
        }
        match files.read().map_err(|error| refused("cannot follow files", error))? {
            Change::None => {}
            change => {
                wanted.reload = true;
                timing.event(Instant::now(), if change == Change::Complete { QUIET } else { QUIET_GONE });
            }
        }
        let mut matters = false;
        events.read(follower.own_nsid(), |event| matters |= follower.wants(&event))?;
        if matters {
            timing.event(Instant::now(), QUIET);
        }
        let now = Instant::now();
        if now >= timing.next() {
            let is_full = timing.is_full(now);
            let Wanted { reload, by_signal } = std::mem::take(&mut wanted);
            if reload || is_full {
                follower.reload(&mut files, reload);
            }
            if by_signal {
                follower.insist();
            }
            let has_failed = follower.pass(is_full || by_signal);
            timing.passed(now, Instant::now(), is_full, has_failed);
            let before = std::mem::replace(&mut status, follower.status());
            if by_signal {
                service.ready(&status);
            } else if status != before {
                service.status(&status);
            }
        }
        if heartbeat.is_some_and(|heartbeat| Instant::now() >= heartbeat) {
            service.alive();
            alive = Instant::now();
        }
    }
}

/// What the next pass has to do besides.
#[derive(Default)]
struct Wanted {
    /// Read the file again.
    reload: bool,
    /// By SIGHUP, whose sender waits for an answer.
    by_signal: bool,
}

/// Signals, as something to read: none interrupts a change.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().for_each(|signal| set.add(signal));
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Sleeps until something has happened, or until then.
fn wait(signals: &SignalFd, events: &Events, files: &Files, until: Instant) -> nix::Result<()> {
    let mut descriptors =
        [signals.as_fd(), events.as_fd(), files.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    // Rounded up: waking too early would be for nothing.
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
    match poll(&mut descriptors, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

fn failed(what: &str, hint: Option<&str>) -> CliError {
    CliError::Other { what: what.into(), hint: hint.map(Into::into) }
}

fn refused(what: &str, error: Errno) -> CliError {
    let hint = "too many are following files: raise fs.inotify.max_user_instances";
    failed(&format!("{what}: {}", error.desc()), (error == Errno::EMFILE).then_some(hint))
}
