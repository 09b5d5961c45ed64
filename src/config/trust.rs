//! Whether somebody else could write what mptm is about to believe: the file, its drop-ins, or a directory on the way.
//!
//! Whoever writes the file directs traffic and sets sysctls with mptm's rights. So it must be root's, the caller's, or
//! that of the user who called sudo, and so must every symbolic link and directory that leads to it. A directory that
//! others may write to will do if it is sticky, as /tmp is: nobody can take away there what is another's.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

use super::diagnostic::Diagnostic;

/// As many symbolic links as the kernel follows.
const LINKS: usize = 40;
/// Where links can lead to what has no path: pipes of a shell's `<(...)`.
const PROC: &str = "/proc";
const INSIST: &str = "or insist with --allow-insecure-config";

/// Users who may do what mptm may.
struct Trusted(Vec<u32>);

impl Trusted {
    fn here() -> Self {
        let caller = geteuid();
        let mut users = vec![0, caller.as_raw()];
        // Only root's word is taken for it: sudo sets it.
        if caller.is_root()
            && let Some(user) = std::env::var("SUDO_UID").ok().and_then(|user| user.parse().ok())
        {
            users.push(user);
        }
        Self(users)
    }

    fn owner(&self, path: &Path, metadata: &Metadata) -> Result<(), Diagnostic> {
        if self.0.contains(&metadata.uid()) {
            return Ok(());
        }
        let (path, user) = (path.display(), metadata.uid());
        Err(Diagnostic::new(format!("{path} belongs to user {user}, who may change it"))
            .help(format!("chown root {path}; {INSIST}")))
    }

    /// Its owner, and who may write.
    fn object(&self, path: &Path, metadata: &Metadata) -> Result<(), Diagnostic> {
        self.owner(path, metadata)?;
        if metadata.file_type().is_char_device() {
            // What is written there is not what is read: /dev/null.
            return Ok(());
        }
        const STICKY: u32 = 0o1000;
        let mode = metadata.mode();
        let others = if metadata.gid() == 0 { 0o002 } else { 0o022 };
        if mode & others == 0 || metadata.is_dir() && mode & STICKY != 0 {
            return Ok(());
        }
        let what = if metadata.is_dir() { "the directory " } else { "" };
        let path = path.display();
        Err(Diagnostic::new(format!("others may write to {what}{path} (mode {:04o})", mode & 0o7777))
            .help(format!("chmod go-w {path}; {INSIST}")))
    }

    /// Everything on the way to `path`, and what is there. What is missing or can't be looked at is not for here to say.
    fn way(&self, path: &Path) -> Result<(), Diagnostic> {
        let mut here = PathBuf::from("/");
        let mut rest = components(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let mut links = 0;
        let own_files = PathBuf::from(format!("{PROC}/{}/fd", std::process::id()));
        if let Ok(metadata) = fs::metadata(&here) {
            self.object(&here, &metadata)?;
        }
        while let Some(component) = rest.pop_front() {
            if component == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&component);
            let Ok(metadata) = fs::symlink_metadata(&next) else { return Ok(()) };
            if !metadata.is_symlink() {
                self.object(&next, &metadata)?;
                here = next;
                continue;
            }
            if here == own_files {
                // Like standard input: whoever started mptm has opened it.
                return Ok(());
            }
            if here.starts_with(PROC) && here != Path::new(PROC) {
                // What is opened through such a link is what it leads to, whatever its text says.
                let Ok(metadata) = fs::metadata(&next) else { return Ok(()) };
                self.object(&next, &metadata)?;
                here = next;
                continue;
            }
            self.owner(&next, &metadata)?;
            links += 1;
            let Some(target) = fs::read_link(&next).ok().filter(|_| links <= LINKS) else { return Ok(()) };
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            let mut way = components(&target);
            way.append(&mut rest);
            rest = way;
        }
        Ok(())
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// What others could write, of the file at `path` and its drop-ins.
pub(super) fn flaws(path: &Path, drop_ins: io::Result<Vec<PathBuf>>) -> Vec<Diagnostic> {
    let trusted = Trusted::here();
    let mut flaws: Vec<Diagnostic> = Vec::new();
    let directory = path.with_extension("d");
    let drop_ins = drop_ins.unwrap_or_default();
    for path in [path, &directory].into_iter().chain(drop_ins.iter().map(PathBuf::as_path)) {
        if let Err(flaw) = trusted.way(path)
            && !flaws.contains(&flaw)
        {
            flaws.push(flaw);
        }
    }
    flaws
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn flaw(path: &Path) -> Option<String> {
        Trusted::here().way(path).err().map(|flaw| flaw.title().to_owned())
    }

    #[test]
    fn who_may_write() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let (directory, file) = (root.join("a"), root.join("a/mptm.toml"));
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "").unwrap();
        mode(&directory, 0o755);
        mode(&file, 0o644);
        assert_eq!(flaw(&file), None);
        assert_eq!(flaw(&root.join("a/../a/./mptm.toml")), None);
        assert_eq!(flaw(&root.join("a/nothing.toml")), None);

        mode(&file, 0o646);
        let expected = format!("others may write to {} (mode 0646)", file.display());
        assert_eq!(flaw(&file), Some(expected.clone()));
        let link = root.join("link.toml");
        symlink("a/mptm.toml", &link).unwrap();
        assert_eq!(flaw(&link), Some(expected));
        mode(&file, 0o600);
        assert_eq!(flaw(&link), None);

        mode(&directory, 0o777);
        let expected = format!("others may write to the directory {} (mode 0777)", directory.display());
        assert_eq!(flaw(&file), Some(expected.clone()));
        assert_eq!(flaw(&link), Some(expected.clone()));
        // The link is where others may write, what it leads to is not.
        symlink("../b.toml", directory.join("link.toml")).unwrap();
        fs::write(root.join("b.toml"), "").unwrap();
        assert_eq!(flaw(&directory.join("link.toml")), Some(expected));
        mode(&directory, 0o1777);
        assert_eq!(flaw(&file), None);

        // Round and round: reading says what is wrong.
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(flaw(&root.join("loop")), None);
        for path in ["/dev/null", "/dev/stdin", "/dev/fd/0"] {
            assert_eq!(flaw(Path::new(path)), None);
        }
    }

    #[test]
    fn whose_it_is() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("mptm.toml");
        fs::write(&file, "").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let others = Trusted(vec![metadata.uid() + 1]);
        let flaw = others.object(&file, &metadata).unwrap_err();
        let expected = format!("belongs to user {}, who may change it", metadata.uid());
        assert!(flaw.title().ends_with(&expected), "{}", flaw.title());
    }
}
