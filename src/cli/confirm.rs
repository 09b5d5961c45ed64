//! `mptm apply --confirm`, which goes back by itself, and `mptm confirm`, which tells it not to.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anstream::eprintln;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::apply::{show, until_it_is_the_newest};
use super::guard::{Guard, Outcome, Word};
use super::rejected::{Fingerprint, Rejected, make_run_directory, run_path};
use super::saved::Saved;
use super::terminal::{Terminal, drop_dead_outputs};
use super::{CliError, Global, Kernel};
use crate::config::Loaded;
use crate::kernel::Network as _;
use crate::plan::Plan;
use crate::render;

/// How long `mptm confirm` may take to say so, once it is connected, and how long the answer may take.
const TALK_TIME: Duration = Duration::from_secs(1);
const ANSWER_TIME: Duration = Duration::from_secs(60);
const CONFIRM: &[u8] = b"confirm\n";

/// Applies a file, and goes back if that is not confirmed within `seconds`. The answer is what was done.
pub fn apply(
    global: &Global,
    loaded: Loaded,
    kernel: &mut Kernel,
    saved: Option<&Saved>,
    seconds: u32,
    json: bool,
) -> Result<Plan, CliError> {
    // Maps of an older layout can't be gone back to.
    let before = kernel.read_current(&global.pin)?.state;
    // Neither this process nor the guard keeps a container's namespace while it waits.
    kernel.net.let_go();
    let meeting = Meeting::at(kernel)?;
    let signals = hold_signals()?;
    let rejected = Rejected::at(kernel)?;
    let mut guard = Guard::start(global, before, seconds, &meeting.path, rejected)?;
    let mut done = Plan::default();
    let summary = |plan: &Plan| format!("Done: {}.", render::summary_done(plan));
    let applied = match until_it_is_the_newest(global, loaded, kernel, saved, &mut done) {
        Ok(applied) => applied,
        Err(error) => return Err(failed(guard, error)),
    };
    if done.is_empty() {
        guard.tell(Word::Confirmed);
        guard.outcome();
        Rejected::at(kernel)?.accept(&applied);
        show(&done, json, "")?;
        return Ok(done);
    }
    show(&done, json, &summary(&done))?;
    let listener = meeting.listen();
    if let Err(error) = &listener {
        super::error::warn(&format!("`mptm confirm` can't reach this: {}: {error}", meeting.path.display()));
    }
    let terminal = Terminal::open();
    let press = if terminal.as_ref().is_some_and(Terminal::has_keys) { "press a key here, or " } else { "" };
    kernel.net.let_go();
    guard.applied(&Fingerprint::of(&applied));
    let netns = global.netns.as_ref().map_or_else(String::new, |netns| format!(" -n {netns}"));
    eprintln!("It goes back in {seconds} s unless you {press}run `mptm{netns} confirm`.");
    let (outcome, why) = wait(guard, seconds, &signals, listener.ok(), terminal);
    drop(meeting);
    drop_dead_outputs();
    match outcome {
        Outcome::Kept => {
            Rejected::at(kernel)?.accept(&applied);
            eprintln!("Confirmed.");
            Ok(done)
        }
        Outcome::Back(_) => Err(CliError::Other {
            what: format!("{why}: all is as it was before"),
            hint: Some(format!(
                "{} still says otherwise: the next apply does it again, but `mptm watch` does not",
                global.config.display()
            )),
        }),
        Outcome::Stuck(cause) => Err(CliError::Other {
            what: format!("{why}, but it could not go back: {cause}"),
            hint: Some("see `mptm status`; `mptm apply` with the former file, or `mptm down`".into()),
        }),
    }
}

/// What failed is undone already. But a file that became another meanwhile may have been applied before.
fn failed(guard: Guard, error: CliError) -> CliError {
    guard.tell(Word::GoBack);
    match guard.outcome() {
        Outcome::Back(text) if !text.is_empty() => eprintln!("Gone back to what was before: {text}."),
        Outcome::Stuck(why) => eprintln!("What was done before that could not be undone: {why}"),
        _ => {}
    }
    error
}

/// Waits until it is confirmed or not; the answer is what has become of it, and why if it went back.
fn wait(
    guard: Guard,
    seconds: u32,
    signals: &SignalFd,
    listener: Option<UnixListener>,
    mut terminal: Option<Terminal>,
) -> (Outcome, String) {
    let mut why = format!("not confirmed within {seconds} s");
    let mut clients = Vec::new();
    loop {
        let mut fds = vec![
            PollFd::new(guard.channel().as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(listener) = &listener {
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        if let Some(terminal) = &terminal {
            let events = if terminal.has_keys() { PollFlags::POLLIN } else { PollFlags::empty() };
            fds.push(PollFd::new(terminal.as_fd(), events));
        }
        let _ = poll(&mut fds, PollTimeout::NONE);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        if ready[0] {
            break;
        }
        if ready[1]
            && let Ok(Some(signal)) = signals.read_signal()
        {
            let name = i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            why = format!("interrupted by {}", name.map_or("a signal", Signal::as_str));
            guard.tell(Word::GoBack);
        }
        let mut rest = ready[2..].iter();
        if let Some(listener) = &listener
            && rest.next() == Some(&true)
            && let Some(client) = hear(listener)
        {
            guard.tell(Word::Confirmed);
            clients.push(client);
        }
        if rest.next() == Some(&true)
            && let Some(mut gone) = terminal.take()
        {
            if gone.has_keys() && gone.key() {
                guard.tell(Word::Confirmed);
            } else {
                why = "the terminal is gone".into();
                guard.tell(Word::GoBack);
            }
        }
    }
    let outcome = guard.outcome();
    for mut client in clients {
        let answer = match &outcome {
            Outcome::Kept => "confirmed".to_owned(),
            Outcome::Back(_) => why.clone(),
            Outcome::Stuck(cause) => format!("{why}, but it could not go back: {cause}"),
        };
        let _ = client.write_all(answer.as_bytes());
    }
    (outcome, why)
}

/// Somebody who confirms. None: nobody, after all.
fn hear(listener: &UnixListener) -> Option<UnixStream> {
    let (mut client, _) = listener.accept().ok()?;
    client.set_read_timeout(Some(TALK_TIME)).ok()?;
    let mut word = [0; CONFIRM.len()];
    client.read_exact(&mut word).ok()?;
    (word == CONFIRM).then_some(client)
}

/// Signals that would end it are read instead: what goes back is still waited for.
fn hold_signals() -> Result<SignalFd, CliError> {
    let mask: SigSet =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    mask.thread_block()
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|error| CliError::Other { what: format!("cannot wait for signals: {error}"), hint: None })
}

/// Where the apply and `mptm confirm` meet: a socket for each network namespace, in a directory of root's own.
struct Meeting {
    path: PathBuf,
}

impl Meeting {
    fn at(kernel: &Kernel) -> Result<Self, CliError> {
        Ok(Self { path: run_path(kernel, "confirm")? })
    }

    /// For the holder of the lock: what is found there is of somebody who was killed.
    fn listen(&self) -> io::Result<UnixListener> {
        make_run_directory()?;
        let _ = fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path)?;
        fs::set_permissions(&self.path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// `mptm confirm`.
pub fn run(global: &Global) -> Result<ExitCode, CliError> {
    let meeting = std::mem::ManuallyDrop::new(Meeting::at(&global.kernel()?)?);
    let failed = |what: String, hint: Option<String>| CliError::Other { what, hint };
    let mut answer = String::new();
    let talk = UnixStream::connect(&meeting.path).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.write_all(CONFIRM)?;
        stream.read_to_string(&mut answer)
    });
    match talk {
        Ok(_) if answer == "confirmed" => {
            eprintln!("Confirmed.");
            Ok(ExitCode::SUCCESS)
        }
        Ok(_) if !answer.is_empty() => Err(failed(format!("too late: {answer}"), None)),
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(failed(format!("cannot reach the apply that waits: {error}"), None))
        }
        _ => Err(failed(
            "no apply waits to be confirmed in this network namespace".into(),
            Some("`mptm apply --confirm SECONDS` does; -n NETNS says in which namespace".into()),
        )),
    }
}
