//! The file that an unconfirmed apply has gone back from. Whoever did not confirm it does not want it, or could not say so
//! any more: `mptm watch` must not be the one that applies it again.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use super::{CliError, Kernel};
use crate::config::Source;
use crate::kernel::Network;

/// What mptm keeps until the next boot.
const RUN: &str = "/run/mptm";

/// A path of the managed network namespace's own.
pub fn run_path(kernel: &Kernel, what: &str) -> Result<PathBuf, CliError> {
    let cookie = kernel.net.netns_cookie(&None)?;
    Ok(Path::new(RUN).join(format!("{what}-{cookie}")))
}

/// Makes the directory, unless it is there, and is root's own.
pub fn make_run_directory() -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(RUN) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(RUN)?;
    if !metadata.is_dir() || metadata.mode() & 0o022 != 0 || metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("others may write to {RUN}")));
    }
    Ok(())
}

/// What a configuration's texts are known by; where they came from does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of the file and its drop-ins.
    pub fn of(sources: &[Source]) -> Self {
        let mut digest = Sha256::new();
        for source in sources {
            // Where one ends is a part of it.
            digest.update((source.text.len() as u64).to_be_bytes());
            digest.update(source.text.as_bytes());
        }
        Self(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What a process that has made one has sent.
    pub fn received(text: &[u8]) -> Self {
        Self(String::from_utf8_lossy(text).into_owned())
    }

    /// To be sent.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Where it is written down. For the holder of the lock.
pub struct Rejected {
    path: PathBuf,
}

impl Rejected {
    /// That of the managed network namespace.
    pub fn at(kernel: &Kernel) -> Result<Self, CliError> {
        Ok(Self { path: run_path(kernel, "rejected")? })
    }

    /// Whether there is one at all: it takes time to find out which.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Whether it is this one.
    pub fn is(&self, file: &Fingerprint) -> bool {
        fs::read(&self.path).is_ok_and(|text| text == file.as_bytes())
    }

    /// It is this one from now on.
    pub fn set(&self, file: &Fingerprint) -> io::Result<()> {
        make_run_directory()?;
        fs::write(&self.path, file.as_bytes())
    }

    /// There is none from now on.
    pub fn clear(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Somebody has had these texts applied: if it is they, they are no longer rejected.
    pub fn accept(&self, sources: &[Source]) {
        if self.exists() && self.is(&Fingerprint::of(sources)) {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_the_texts() {
        let of = |sources: &[(&str, &str)]| {
            let sources: Vec<Source> = sources.iter().map(|(name, text)| Source::new(*name, *text)).collect();
            Fingerprint::of(&sources)
        };
        assert_eq!(of(&[("a", "x"), ("b", "y")]), of(&[("c", "x"), ("d", "y")]));
        assert_ne!(of(&[("a", "xy"), ("b", "")]), of(&[("a", "x"), ("b", "y")]));
        assert_ne!(of(&[("a", "x")]), of(&[("a", "x"), ("b", "")]));
    }

    #[test]
    fn one_is_rejected_until_it_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let rejected = Rejected { path: directory.path().join("rejected") };
        let [one, other] = ["x", "y"].map(|text| vec![Source::new("a", text)]);
        assert!(!rejected.exists() && !rejected.is(&Fingerprint::of(&one)));
        fs::write(&rejected.path, Fingerprint::of(&one).as_bytes()).unwrap();
        rejected.accept(&other);
        assert!(
            rejected.exists()
                && rejected.is(&Fingerprint::of(&one))
                && !rejected.is(&Fingerprint::of(&other))
        );
        rejected.accept(&one);
        assert!(!rejected.exists());
    }
}
