//! The pin directory: `maps`, `programs`, `links`, `dispatched` and `flood-links` below one directory of a bpffs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{dispatchers, lock};
use crate::kernel::KernelError;

/// Where things are pinned.
#[derive(Debug, Clone)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Below `root`, which need not be there.
    pub fn new(root: &Path) -> Self {
        // An empty path, the only one that can't be made absolute, is told of where it is used.
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.root.join("maps").is_dir()
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// The pins of all maps.
    pub fn maps(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(self.root.join("maps"))?.map(|entry| Ok(entry?.path())).collect()
    }

    /// The pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    /// The pin of an interface's link. bpffs allows no dots in names, interfaces do.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.root.join("links").join(interface.replace('%', "%25").replace('.', "%2e"))
    }

    /// The pin of an interface's link of mptm_flood.
    pub fn flood_link(&self, interface: &str) -> PathBuf {
        self.root.join(FLOOD_LINKS).join(interface.replace('%', "%25").replace('.', "%2e"))
    }

    /// The pin of an interface's program that is part of a dispatcher.
    pub fn dispatched(&self, interface: &str) -> PathBuf {
        self.root.join(DISPATCHED).join(interface.replace('%', "%25").replace('.', "%2e"))
    }

    /// The pin of the one that is about to take its place.
    pub fn dispatched_new(&self, interface: &str) -> PathBuf {
        let mut name = self.dispatched(interface).into_os_string();
        name.push(NEW);
        name.into()
    }

    /// The interfaces that have either.
    pub fn all_dispatched(&self) -> io::Result<BTreeSet<String>> {
        let pins = self.list(DISPATCHED)?;
        Ok(pins.into_iter().map(|(name, _)| name.strip_suffix(NEW).unwrap_or(&name).to_owned()).collect())
    }

    /// The interfaces that have a link of XDP pinned, and the pins.
    pub fn links(&self) -> io::Result<Vec<(String, PathBuf)>> {
        self.list("links")
    }

    /// The interfaces that have a link of mptm_flood pinned, and the pins.
    pub fn flood_links(&self) -> io::Result<Vec<(String, PathBuf)>> {
        self.list(FLOOD_LINKS)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(self.root.join(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        entries
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().replace("%2e", ".").replace("%25", "%");
                Ok((name, entry.path()))
            })
            .collect()
    }

    /// Another directory beside it, to build in and then rename. Whatever is found there is removed: so it has a name
    /// that nobody chooses with --pin.
    pub fn staging(&self) -> Self {
        let mut name = self.root.file_name().unwrap_or_default().to_owned();
        name.push("%new");
        Self { root: self.root.with_file_name(name) }
    }

    /// Makes `staging`, empty, and mounts a bpffs first if that is wanting. Both under the lock: from then on the
    /// directory itself keeps the mount, so that the rest of the work, which takes longer, needs no lock.
    pub fn make_staging(&self) -> Result<Self, KernelError> {
        let staging = self.staging();
        let lock = self.lock_mount()?;
        self.ensure_bpffs()?;
        staging.remove()?;
        let made = staging.make();
        drop(lock);
        if made.is_err() {
            self.clear_leftovers()?;
        }
        made.map(|()| staging)
    }

    /// Removes what an interrupted creation or removal has left, and the bpffs if that was all that kept it.
    pub fn clear_leftovers(&self) -> Result<(), KernelError> {
        self.staging().remove()?;
        self.release_bpffs()
    }

    /// Makes the directories.
    pub fn make(&self) -> Result<(), KernelError> {
        for dir in ["maps", "programs", "links", DISPATCHED, FLOOD_LINKS] {
            let dir = self.root.join(dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| {
                let kind = error.kind();
                let failed =
                    KernelError::new(format!("cannot make the pin directory {}", dir.display()), error);
                match kind {
                    io::ErrorKind::ReadOnlyFilesystem => failed.hint(READ_ONLY),
                    io::ErrorKind::PermissionDenied => failed.hint(RIGHTS),
                    _ => failed,
                }
            })?;
        }
        Ok(())
    }

    /// Removes it with all that is in it.
    pub fn remove(&self) -> Result<(), KernelError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KernelError::new(
                format!("cannot remove the pin directory {}", self.root.display()),
                error,
            )),
            _ => Ok(()),
        }
    }

    /// Sees to it that the directory can be made: its parent must be on a bpffs. Mounts one on /sys/fs/bpf if that is
    /// the parent and nothing is mounted there. For the holder of the lock: two mounts, one on top of the other, would
    /// hide what is pinned in the lower one.
    fn ensure_bpffs(&self) -> Result<(), KernelError> {
        let root = self.root.display();
        let parent = self.root.parent().unwrap_or(Path::new("/"));
        if !parent.is_dir() {
            return Err(KernelError::plain(format!(
                "cannot make the pin directory {root}: there is no directory {}",
                parent.display()
            ))
            .hint(format!("make it: mkdir -p {}", parent.display())));
        }
        if statfs(parent).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC) {
            return Ok(());
        }
        if parent != Path::new(STANDARD) {
            return Err(KernelError::plain(format!(
                "cannot make the pin directory {root}: {} is on no bpffs",
                parent.display()
            ))
            .hint("choose one below /sys/fs/bpf, or mount one: mount -t bpf bpf DIR"));
        }
        mount(Some(SOURCE), STANDARD, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|error| KernelError::new("cannot mount a bpffs on /sys/fs/bpf", error).hint(RIGHTS))
    }

    /// While this lives, no other mptm mounts or unmounts anything on /sys/fs/bpf. None: it is not about that mount.
    fn lock_mount(&self) -> Result<Option<Flock<File>>, KernelError> {
        if !self.root.starts_with(STANDARD) {
            return Ok(None);
        }
        match lock::exclusive(Path::new(LOCKED), LOCK_WAIT, |_| {}) {
            Ok(Some(lock)) => Ok(Some(lock)),
            Ok(None) => {
                Err(KernelError::plain("another process has locked /sys/fs, where mptm mounts its bpffs")
                    .hint("try again when it is done; `lslocks` shows which process it is"))
            }
            Err(error) => Err(KernelError::new("cannot lock /sys/fs against another mptm", error)),
        }
    }

    /// Unmounts /sys/fs/bpf again if mptm mounted it, and nobody has put anything there or is using it. Without the
    /// lock it stays: an mptm for another network namespace may be about to make its pins there.
    fn release_bpffs(&self) -> Result<(), KernelError> {
        let cannot = |error: io::Error| KernelError::new("cannot unmount the bpffs on /sys/fs/bpf", error);
        if !self.root.starts_with(STANDARD) || !is_own_mount().map_err(cannot)? {
            return Ok(());
        }
        let Some(_lock) = lock::exclusive(Path::new(LOCKED), LOCK_WAIT, |_| {}).map_err(cannot)? else {
            return Ok(());
        };
        // Whoever had the lock may have unmounted it.
        if !is_own_mount().map_err(cannot)? {
            return Ok(());
        }
        let is_left = |entry: &io::Result<fs::DirEntry>| {
            let Ok(entry) = entry else { return true };
            // Dispatchers leave an empty directory.
            let name = entry.file_name();
            let is_empty = || name == dispatchers::DIRECTORY && fs::remove_dir(entry.path()).is_ok();
            !PRELOADED.iter().any(|known| name == *known) && !is_empty()
        };
        if fs::read_dir(STANDARD).map_err(cannot)?.any(|entry| is_left(&entry)) {
            return Ok(());
        }
        match umount2(STANDARD, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EBUSY) => Ok(()),
            Err(error) => Err(cannot(error.into()).hint(RIGHTS)),
        }
    }
}

/// The directory of the programs that are parts of dispatchers.
const DISPATCHED: &str = "dispatched";
/// What the name of one ends with that is about to take another's place. No interface's does, as it is written here.
const NEW: &str = "%new";
/// The directory of the links of mptm_flood.
const FLOOD_LINKS: &str = "flood-links";
/// Where a bpffs is looked for, and mounted if there is none.
const STANDARD: &str = "/sys/fs/bpf";
/// The lock against mptm for other network namespaces, which each have their own, is on the directory that the mount
/// point is in: it is always there, no mount covers it, and whoever sees the same mount point sees the same directory.
const LOCKED: &str = "/sys/fs";
/// How long to wait for it. Nobody has it for longer than a few system calls.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// What mptm's own mounts have as their source, so that they are known again.
const SOURCE: &str = "mptm";
/// What the kernel itself puts into every bpffs.
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];

/// Whether what is mounted on /sys/fs/bpf, uppermost, is mptm's own.
fn is_own_mount() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(mounts.lines().rev().find_map(source_of_standard) == Some(SOURCE))
}

/// The source of a line of mountinfo (proc_pid_mountinfo(5)) if it is about a bpffs on /sys/fs/bpf; "" for another
/// file system there.
fn source_of_standard(line: &str) -> Option<&str> {
    let (mount, file_system) = line.split_once(" - ")?;
    if mount.split(' ').nth(4) != Some(STANDARD) {
        return None;
    }
    let mut fields = file_system.split(' ');
    let kind = fields.next();
    fields.next().map(|source| if kind == Some("bpf") { source } else { "" })
}

/// What to do about a bpffs that can't be written.
const READ_ONLY: &str = "mount -o remount,rw makes it writable; in a systemd unit, ProtectKernelTunables=yes makes it \
                         read-only";

/// What to do about missing rights.
pub const RIGHTS: &str = "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN";

#[cfg(test)]
mod tests {
    use super::source_of_standard;

    #[test]
    fn mountinfo() {
        let line = "31 24 0:27 / /sys/fs/bpf rw,relatime shared:9 - bpf mptm rw,mode=700";
        assert_eq!(source_of_standard(line), Some("mptm"));
        let line = "31 24 0:27 / /sys/fs/bpf rw,nosuid shared:9 master:1 - bpf bpf rw,mode=700";
        assert_eq!(source_of_standard(line), Some("bpf"));
        let line = "31 24 0:27 / /sys/fs/bpf rw - tmpfs mptm rw";
        assert_eq!(source_of_standard(line), Some(""));
        let line = "31 24 0:27 / /sys/fs/bpf/mptm rw - bpf mptm rw";
        assert_eq!(source_of_standard(line), None);
    }
}
