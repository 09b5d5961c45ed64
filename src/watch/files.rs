//! Follows a configuration file, its drop-ins, and every symbolic link on the way to them.
//!
//! Editors rename a new file over the old one, and a Kubernetes ConfigMap swaps a link that a directory's name goes
//! through; so what is watched are the directories in which the names are, by inotify itself: the crate `notify` also asks
//! to be woken when anybody opens any file there, which in /etc somebody always does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// How many links there may be on the way to a file, as in the kernel.
const MAX_LINKS: u32 = 40;

/// A name in a directory is a whole new thing, or gone. A file that is being written is told of when it is closed.
const MASK: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// What a change of a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing.
    None,
    /// Something is complete: it can be read now.
    Complete,
    /// The file is another in one go, and there are no others that could belong to it.
    Whole,
    /// Something went away, and may be about to come back.
    Gone,
}

/// Directories, and the names in them that matter.
type Names = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// A subscription to the changes of one configuration.
pub struct Files {
    inotify: Inotify,
    file: PathBuf,
    names: Names,
    has_drop_ins: bool,
    watched: HashMap<WatchDescriptor, PathBuf>,
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Files {
    /// Follows `file` and its drop-ins, wherever the links on the way to them lead now.
    ///
    /// # Errors
    /// The kernel gives no inotify descriptor (fs.inotify.max_user_instances).
    pub fn new(file: &Path) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let mut files =
            Self { inotify, file, names: Names::new(), has_drop_ins: false, watched: HashMap::new() };
        files.follow();
        Ok(files)
    }

    /// Looks again where the links lead. True: there is something new to be followed, so what was read before may be old.
    pub fn follow(&mut self) -> bool {
        let names = names(&self.file);
        let is_new = names != self.names;
        let mut watched = HashMap::new();
        for directory in names.keys() {
            // One that is not there, or may not be watched, is seen by every full pass all the same.
            if let Ok(descriptor) = self.inotify.add_watch(directory, MASK) {
                watched.insert(descriptor, directory.clone());
            }
        }
        let moved = watched.keys().any(|descriptor| !self.watched.contains_key(descriptor));
        for (gone, _) in self.watched.drain().filter(|(descriptor, _)| !watched.contains_key(descriptor)) {
            let _ = self.inotify.rm_watch(gone);
        }
        self.has_drop_ins = drop_ins(&self.file.with_extension("d")).is_some_and(|all| !all.is_empty());
        (self.names, self.watched) = (names, watched);
        is_new || moved
    }

    /// What has changed since it was asked last, without waiting.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self) -> nix::Result<Change> {
        let mut change = Change::None;
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in &events {
                        let new = self.change(event);
                        // The last word counts: what went away and came back is complete.
                        change = if new == Change::None { change } else { new };
                    }
                }
                Err(Errno::EAGAIN) => return Ok(change),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn change(&self, event: &InotifyEvent) -> Change {
        if event.mask.intersects(AddWatchFlags::IN_Q_OVERFLOW) {
            return Change::Complete;
        }
        // The kernel ends a watch that was taken back, or whose directory is gone; the latter it also tells of otherwise.
        let Some(directory) = self.watched.get(&event.wd) else { return Change::None };
        if event.mask.intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF) {
            return Change::Gone;
        }
        let Some(name) = &event.name else { return Change::None };
        let is_followed = self.names.get(directory).is_some_and(|names| names.contains(name));
        let is_drop_in = *directory == self.drop_ins() || self.real_drop_ins().as_ref() == Some(directory);
        let is_ours = is_followed || is_drop_in && is_drop_in_name(name);
        if !is_ours {
            return Change::None;
        }
        if event.mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
            return Change::Gone;
        }
        if event.mask.intersects(AddWatchFlags::IN_CREATE) && is_being_written(&directory.join(name)) {
            return Change::None;
        }
        if event.mask.intersects(AddWatchFlags::IN_MOVED_TO) && !is_drop_in && !self.has_drop_ins {
            return Change::Whole;
        }
        Change::Complete
    }

    fn drop_ins(&self) -> PathBuf {
        self.file.with_extension("d")
    }

    fn real_drop_ins(&self) -> Option<PathBuf> {
        fs::canonicalize(self.drop_ins()).ok()
    }
}

/// Whether a name that has just been made is a file that its maker has open: a link, a directory and a second name of a
/// file are complete at once.
fn is_being_written(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

fn is_drop_in_name(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".") && Path::new(name).extension() == Some(OsStr::new("toml"))
}

/// The names that `file` and its drop-ins hang on.
fn names(file: &Path) -> Names {
    let mut names = Names::new();
    note(file, &mut names);
    let directory = file.with_extension("d");
    note(&directory, &mut names);
    if let Some(drop_ins) = drop_ins(&directory) {
        let real = fs::canonicalize(&directory).unwrap_or(directory);
        names.entry(real.clone()).or_default();
        for name in drop_ins {
            note(&real.join(name), &mut names);
        }
    }
    names
}

/// The names of the drop-ins in a directory; None: there is no such directory.
fn drop_ins(directory: &Path) -> Option<Vec<OsString>> {
    let names = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.file_name());
    Some(names.filter(|name| is_drop_in_name(name)).collect())
}

/// Notes each link on the way of `path`, and what is at its end: the directory without links that has it, and its name. Where
/// the way ends early, the name that is missing.
fn note(path: &Path, names: &mut Names) {
    let mut todo: Vec<OsString> = parts(path).collect();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        let target = fs::read_link(&next).ok();
        let is_missing = target.is_none() && fs::symlink_metadata(&next).is_err();
        if target.is_some() || todo.is_empty() || is_missing {
            names.entry(here.clone()).or_default().insert(part);
        }
        match target {
            _ if is_missing => return,
            Some(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return;
                }
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                todo.extend(parts(&target));
            }
            None => here = next,
        }
    }
}

/// The components of a path, last first.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    let parts: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.into_iter().rev()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A new directory, without links on its way, and its file.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("mptm.toml");
        (dir, file)
    }

    fn follow(file: &Path) -> Files {
        let mut files = Files::new(file).unwrap();
        assert_eq!(files.read().unwrap(), Change::None);
        files
    }

    #[test]
    fn a_file_that_is_written_renamed_over_and_removed() {
        let (dir, file) = place();
        let mut files = follow(&file);
        fs::write(&file, "").unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
        let open = fs::File::create(&file).unwrap();
        assert_eq!(files.read().unwrap(), Change::None, "it is being written");
        drop(open);
        assert_eq!(files.read().unwrap(), Change::Complete);
        fs::write(dir.path().join(".mptm.toml.swp"), "").unwrap();
        fs::write(dir.path().join("other.toml"), "").unwrap();
        fs::read(&file).unwrap();
        assert_eq!(files.read().unwrap(), Change::None, "nothing of it is the file's");
        fs::rename(dir.path().join("other.toml"), &file).unwrap();
        assert_eq!(files.read().unwrap(), Change::Whole);
        fs::remove_file(&file).unwrap();
        assert_eq!(files.read().unwrap(), Change::Gone);
    }

    #[test]
    fn drop_ins_that_come_with_their_directory() {
        let (dir, file) = place();
        let mut files = follow(&file);
        fs::create_dir(dir.path().join("mptm.d")).unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
        assert!(files.follow());
        fs::write(dir.path().join("mptm.d/a.toml"), "").unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
        assert!(files.follow());
        assert!(!files.follow());
        fs::write(dir.path().join("mptm.d/a.toml~"), "").unwrap();
        fs::write(dir.path().join("mptm.d/.b.toml"), "").unwrap();
        assert_eq!(files.read().unwrap(), Change::None);
        fs::write(dir.path().join("new"), "").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete, "a drop-in may be about to change, too");
        fs::remove_file(dir.path().join("mptm.d/a.toml")).unwrap();
        assert_eq!(files.read().unwrap(), Change::Gone);
    }

    #[test]
    fn a_config_map_swaps_its_data() {
        let (dir, _) = place();
        let root = dir.path().canonicalize().unwrap();
        let map = root.join("map");
        for version in ["v1", "v2"] {
            fs::create_dir_all(map.join(version)).unwrap();
            fs::write(map.join(version).join("mptm.toml"), version).unwrap();
        }
        symlink("v1", map.join("..data")).unwrap();
        symlink("..data/mptm.toml", map.join("mptm.toml")).unwrap();
        symlink("map/mptm.toml", root.join("mptm.toml")).unwrap();
        let mut files = follow(&root.join("mptm.toml"));
        symlink("v2", map.join("..data_tmp")).unwrap();
        assert_eq!(files.read().unwrap(), Change::None);
        fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
        assert_eq!(files.read().unwrap(), Change::Whole);
        assert!(files.follow());
        fs::write(map.join("v1/mptm.toml"), "old").unwrap();
        assert_eq!(files.read().unwrap(), Change::None);
        fs::write(map.join("v2/mptm.toml"), "new").unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
    }

    #[test]
    fn links_that_lead_in_circles_and_directories_that_come_later() {
        let (dir, file) = place();
        symlink("mptm.toml", &file).unwrap();
        follow(&file);
        let later = dir.path().canonicalize().unwrap().join("a/b/mptm.toml");
        let mut files = follow(&later);
        fs::create_dir(dir.path().join("a")).unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
        assert!(files.follow());
        fs::create_dir(dir.path().join("a/b")).unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
        assert!(files.follow());
        fs::write(&later, "").unwrap();
        assert_eq!(files.read().unwrap(), Change::Complete);
    }
}
