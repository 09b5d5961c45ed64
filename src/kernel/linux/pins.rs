//! The pin directory: `maps`, `programs` and `links` below one directory of a bpffs.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::kernel::KernelError;

/// Where things are pinned.
#[derive(Debug, Clone)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Below `root`, which need not be there.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
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

    /// The pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    /// The pin of an interface's link. bpffs allows no dots in names, interfaces do.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.root.join("links").join(interface.replace('%', "%25").replace('.', "%2e"))
    }

    /// The interfaces that have a link pinned, and the pins.
    pub fn links(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(self.root.join("links")) {
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

    /// Another directory beside it, to build in and then rename.
    pub fn staging(&self) -> Self {
        let mut name = self.root.file_name().unwrap_or_default().to_owned();
        name.push("-new");
        Self { root: self.root.with_file_name(name) }
    }

    /// Makes the three directories.
    pub fn make(&self) -> Result<(), KernelError> {
        for dir in ["maps", "programs", "links"] {
            let dir = self.root.join(dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| {
                KernelError::new(format!("cannot make the pin directory {}", dir.display()), error)
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

    /// Sees to it that the directory would lie on a bpffs; mounts /sys/fs/bpf if nothing is mounted there.
    pub fn ensure_bpffs(&self) -> Result<(), KernelError> {
        let mut dir = self.root.as_path();
        while !dir.exists() {
            dir = dir.parent().unwrap_or(Path::new("/"));
        }
        let is_bpffs = |dir: &Path| statfs(dir).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
        if is_bpffs(dir) {
            return Ok(());
        }
        let standard = Path::new("/sys/fs/bpf");
        if !self.root.starts_with(standard) {
            return Err(KernelError::plain(format!(
                "the pin directory {} is on no bpffs",
                self.root.display()
            ))
            .hint("choose one below /sys/fs/bpf, or mount one: mount -t bpf bpf DIR"));
        }
        mount(Some("bpf"), standard, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|error| KernelError::new("cannot mount a bpffs on /sys/fs/bpf", error).hint(RIGHTS))
    }
}

/// What to do about missing rights.
pub const RIGHTS: &str = "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN";
