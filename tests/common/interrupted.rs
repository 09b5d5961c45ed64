//! Ctrl-C and SIGTERM: what this process has made in the kernel goes before it does, though nothing is dropped then.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::panic;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction};
use nix::unistd::{Pid, pipe2};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Where the handler writes to.
static NOTED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: libc::c_int) {
    let signal = signal.to_ne_bytes();
    // SAFETY: write is async-signal-safe, and the bytes are there.
    unsafe { libc::write(NOTED.load(Ordering::Relaxed), signal.as_ptr().cast(), signal.len()) };
}

/// From now on, a signal that ends this process first removes the namespaces and pins that have its id in their names,
/// and ends its children.
pub fn clean_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        NOTED.store(write.into_raw_fd(), Ordering::Relaxed);
        thread::spawn(move || {
            let mut signal = [0; size_of::<libc::c_int>()];
            File::from(read).read_exact(&mut signal).expect("the other end stays open");
            // Whoever misses its child now waits for the end, and says nothing.
            panic::set_hook(Box::new(|_| {
                loop {
                    thread::park();
                }
            }));
            end_children();
            remove_all();
            let signal = Signal::try_from(libc::c_int::from_ne_bytes(signal)).expect("it is one of those");
            handle(signal, SigHandler::SigDfl);
            let _ = raise(signal);
        });
        SIGNALS.into_iter().for_each(|signal| handle(signal, SigHandler::Handler(note)));
    });
}

fn handle(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing but what a handler may do.
    unsafe { sigaction(signal, &action) }.expect("a signal that can be handled");
}

fn end_children() {
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
    }
}

fn remove_all() {
    for name in own_names(Path::new("/run/netns")) {
        let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
    }
    let bpffs = Path::new("/sys/fs/bpf");
    for name in own_names(bpffs) {
        let _ = fs::remove_dir_all(bpffs.join(name));
    }
}

/// What is called mptm-something, by the first number in its name, which is who made it.
fn own_names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let is_own = |name: &String| {
        let mut parts = name.split(|letter: char| !letter.is_ascii_alphanumeric());
        name.starts_with("mptm") && parts.find_map(|part| part.parse().ok()) == Some(std::process::id())
    };
    names.filter(is_own).collect()
}
