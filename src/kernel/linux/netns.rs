//! Network namespaces: their files, and work done inside.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::Flock;
use nix::sched::{CloneFlags, setns};

use super::lock::{self, Holder};
use super::netlink::errno;
use crate::config::model::NetnsRef;
use crate::kernel::KernelError;

/// The calling thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where the namespaces that have names are.
pub(super) const NAMED: &str = "/run/netns";

/// What tells a namespace from all others that live at the same time: device and inode of its file.
pub(super) type NetnsId = (u64, u64);

/// An open namespace. It can't die while this lives: so nothing keeps one for longer than a question.
#[derive(Debug)]
pub(super) struct NetnsFile {
    file: File,
    id: NetnsId,
}

impl NetnsFile {
    /// Opens a namespace file. That it is one shows only when it is entered.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // A FIFO would wait for its writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let id = id_of(&file.metadata()?);
        Ok(Self { file, id })
    }

    /// The calling thread's.
    pub(super) fn own() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The file, for questions about the namespace.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Device and inode.
    pub(super) fn id(&self) -> NetnsId {
        self.id
    }

    /// Locks it against whoever else asks for this; None: somebody has had it for all of `wait`. `busy` is told who.
    pub(super) fn lock(&self, wait: Duration, busy: impl FnMut(&Holder)) -> io::Result<Option<NetnsLock>> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(lock::exclusive(Path::new(&path), wait, busy)?.map(|lock| NetnsLock { _lock: lock }))
    }

    /// Does `work` inside, on a thread of its own unless the calling thread is there already: the caller's namespace
    /// never changes. What is opened inside belongs to the namespace and may be carried out.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if fs::metadata(OWN).is_ok_and(|own| id_of(&own) == self.id) {
            return Ok(work());
        }
        thread::scope(|scope| {
            let worker = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            })?;
            worker.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }
}

/// While this lives, no other mptm changes anything in the namespace.
#[derive(Debug)]
pub struct NetnsLock {
    _lock: Flock<File>,
}

/// Device and inode.
pub(super) fn id_of(metadata: &fs::Metadata) -> NetnsId {
    (metadata.dev(), metadata.ino())
}

/// All other namespaces that can be seen, each once: those in /run/netns in the order of names, then those of processes.
/// What vanishes meanwhile, or may not be looked at, is passed over.
pub(super) fn others(home: &NetnsFile) -> impl Iterator<Item = NetnsRef> {
    let (device, inode) = home.id();
    let mut seen = HashSet::from([(device, inode)]);
    let mut names: Vec<String> = entries(NAMED).collect();
    names.sort_unstable();
    // Others could not be written into a file, nor recorded.
    let names = names.into_iter().filter(|name| matches!(name.parse(), Ok(NetnsRef::Name(_))));
    let named = names.filter_map(|name| {
        let reference = NetnsRef::Name(name.into());
        let id = id_of(&fs::metadata(reference.path()).ok()?);
        Some((id, reference))
    });
    let mut pids: Vec<u32> = entries("/proc").filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let of_processes = pids.into_iter().filter_map(move |pid| {
        let reference = NetnsRef::Pid(pid);
        // The link's text tells as much as the file would, and costs less; all namespace files are of one device.
        let id = (device, linked_inode(&reference.path())?);
        Some((id, reference))
    });
    let all = named.chain(of_processes);
    all.filter_map(move |(id, reference)| seen.insert(id).then_some(reference))
}

/// The names in a directory; none if it can't be read.
fn entries(directory: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// The namespace that /proc/PID/ns/net names, as `net:[INODE]`.
fn linked_inode(path: &Path) -> Option<u64> {
    let target = fs::read_link(path).ok()?;
    target.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Why a namespace could not be opened or entered, and what to do about it.
pub(super) fn cannot_enter(reference: &NetnsRef, cause: io::Error) -> KernelError {
    let hint = match (errno(&cause), reference) {
        (Some(libc::EPERM | libc::EACCES), _) => Some("this needs root, or CAP_SYS_ADMIN".into()),
        (Some(libc::ENOENT | libc::ESRCH), NetnsRef::Pid(pid)) => Some(format!("process {pid} is gone")),
        (Some(libc::ENOENT), NetnsRef::Name(_)) => Some("`ip netns list` shows those that there are".into()),
        (Some(libc::EINVAL), _) => {
            Some(format!("{} is not the file of a network namespace", reference.path().display()))
        }
        _ => None,
    };
    KernelError { hint, ..KernelError::new(format!("cannot enter network namespace {reference}"), cause) }
}

/// Moves the calling thread to another network namespace and leaves everything else as it is, mounts above all: with
/// it /sys/fs/bpf stays in sight. For the command line's `-n`, before any other thread is made: those that exist
/// already stay where they are.
///
/// # Errors
/// There is no such namespace, or the process may not enter it.
pub fn enter_netns(reference: &NetnsRef) -> Result<(), KernelError> {
    NetnsFile::open(&reference.path())
        .and_then(|netns| Ok(setns(netns.file(), CloneFlags::CLONE_NEWNET)?))
        .map_err(|cause| cannot_enter(reference, cause))
}
