//! Dispatchers of libxdp on the devices of the managed network namespace: what is there, and another one in its place,
//! while no packet goes by. A dispatcher is attached without a link and never changes; a program that joins or leaves
//! makes a new one, which the others are attached to as well before it takes over.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Program, ProgramHandle};
use nix::fcntl::Flock;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::libbpf::{cause, explain_load_failure, take_libbpf_log};
use super::{bpf_calls, lock};
use crate::config::model::Mode;
use crate::kernel::KernelError;
use crate::kernel::dispatcher::{self, Config, Keeper, SLOTS, Slot, Unknown, Version};
use crate::kernel::skeleton::dispatcher2::Dispatcher2SkelBuilder;
use crate::kernel::skeleton::dispatcher3::Dispatcher3SkelBuilder;

/// The name of the directory of the pins.
pub const DIRECTORY: &str = "xdp";
/// How long to wait for whoever else is changing a dispatcher.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Where bpfman keeps its pins.
const BPFMAN: &str = "/run/bpfman/fs/xdp";

/// The directory of the pins, which all of libxdp's users share. It need not be there.
pub fn directory() -> PathBuf {
    let bpffs = std::env::var_os("LIBXDP_BPFFS").unwrap_or_else(|| "/sys/fs/bpf".into());
    Path::new(&bpffs).join(DIRECTORY)
}

/// A program of a dispatcher.
#[derive(Debug)]
pub struct Part {
    /// What the dispatcher knows of it.
    pub slot: Slot,
    /// Itself, of type BPF_PROG_TYPE_EXT.
    pub program: ProgramHandle,
}

/// A dispatcher that can be replaced.
#[derive(Debug)]
pub struct Dispatcher {
    /// The id of its program.
    pub id: u32,
    program: ProgramHandle,
    version: Version,
    /// How it is attached.
    pub mode: Mode,
    /// It takes frames of several buffers.
    pub frags: bool,
    /// In the order in which they run.
    pub parts: Vec<Part>,
}

/// What a device has of XDP.
#[derive(Debug)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A program that is no dispatcher.
    Program,
    /// A dispatcher that follows the protocol.
    Dispatcher(Dispatcher),
    /// One that can't be replaced; what is known of its programs, by their ids.
    Closed(Keeper, Vec<(u32, Slot)>),
}

/// One part of a dispatcher that is to be made.
pub enum Source<'a> {
    /// A program that is loaded.
    There(ProgramHandle),
    /// One that is loaded for this dispatcher: `load` is told its descriptor and the function that it is to replace.
    Fresh(&'a mut dyn FnMut(BorrowedFd<'_>, &str) -> Result<ProgramHandle, KernelError>),
}

/// While this lives, nobody else who follows the protocol makes or removes pins of dispatchers.
#[derive(Debug)]
pub struct Session {
    directory: PathBuf,
    _lock: Flock<File>,
}

/// The directory of a dispatcher's pins.
fn pins_of(directory: &Path, ifindex: u32, id: u32) -> PathBuf {
    directory.join(format!("dispatch-{ifindex}-{id}"))
}

/// The dispatchers that are pinned: device, id, and the directory of the pins.
pub fn pinned(directory: &Path) -> io::Result<Vec<(u32, u32, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| name.strip_prefix("dispatch-")?.split_once('-'));
        if let Some((Ok(ifindex), Ok(id))) = numbers.map(|(ifindex, id)| (ifindex.parse(), id.parse())) {
            all.push((ifindex, id, entry.path()));
        }
    }
    Ok(all)
}

/// The programs that are pinned for a dispatcher, by slot; what vanishes meanwhile is passed over.
pub fn pinned_programs(pins: &Path) -> impl Iterator<Item = (usize, ProgramHandle)> {
    (0..SLOTS).map_while(|slot| {
        Some((slot, ProgramHandle::from_pinned_path(pins.join(format!("prog{slot}-prog"))).ok()?))
    })
}

/// What a device has of XDP.
pub fn look(directory: &Path, ifindex: u32) -> Result<Present, KernelError> {
    let failed =
        |error| KernelError::new(format!("cannot look at the XDP program on index {ifindex}"), error);
    let Some((id, mode)) = bpf_calls::xdp_on(ifindex).map_err(failed)? else { return Ok(Present::Nothing) };
    look_at(directory, ifindex, id, mode).map_err(failed)
}

fn look_at(directory: &Path, ifindex: u32, id: u32, mode: Mode) -> io::Result<Present> {
    let program = ProgramHandle::from_prog_id(id).map_err(|error| cause(&error))?;
    let config = match read_config(&program)? {
        Ok(config) => config,
        Err(Unknown::NoDispatcher) => return Ok(Present::Program),
        Err(Unknown::Version(version)) => {
            return Ok(Present::Closed(Keeper::Version(version), Vec::new()));
        }
    };
    let slots: Vec<Slot> = config.slots().collect();
    let links: Vec<_> = LinkInfoIter::default().collect();
    let is_linked = links.iter().any(|link| {
        link.prog_id == id && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex)
    });
    let pins = pins_of(directory, ifindex, id);
    let parts: Vec<Part> = pinned_programs(&pins)
        .zip(&slots)
        .map(|((_, program), slot)| Part { slot: *slot, program })
        .collect();
    if !is_linked && !config.is_bound() && parts.len() == slots.len() {
        let (version, frags) = (config.version(), config.frags());
        return Ok(Present::Dispatcher(Dispatcher { id, program, version, mode, frags, parts }));
    }
    let attached = links.iter().filter_map(|link| match &link.info {
        LinkTypeInfo::Tracing(tracing) if tracing.target_obj_id == id => {
            Some((tracing.target_btf_id, link.prog_id))
        }
        _ => None,
    });
    // A function's number in the BTF rises with its slot, as the functions stand in the file.
    let mut attached: Vec<(u32, u32)> = attached.collect();
    attached.sort_unstable();
    let members = attached.into_iter().zip(&slots).map(|((_, program), slot)| (program, *slot)).collect();
    let keeper = if is_linked {
        Keeper::Link { bpfman: Path::new(BPFMAN).exists() }
    } else if config.is_bound() {
        Keeper::Bound
    } else {
        Keeper::Unpinned
    };
    Ok(Present::Closed(keeper, members))
}

/// The configuration of a dispatcher, if a program is one.
fn read_config(program: &ProgramHandle) -> io::Result<Result<Config, Unknown>> {
    if program.name() != dispatcher::NAME {
        return Ok(Err(Unknown::NoDispatcher));
    }
    let [map] = bpf_calls::maps_of(program)?[..] else { return Ok(Err(Unknown::NoDispatcher)) };
    let map = MapHandle::from_map_id(map).map_err(|error| cause(&error))?;
    if map.key_size() != 4 {
        return Ok(Err(Unknown::NoDispatcher));
    }
    let value = map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).map_err(|error| cause(&error))?;
    Ok(Config::read(&value.unwrap_or_default()))
}

impl Session {
    /// Waits for whoever else is changing a dispatcher. Makes the directory, as each user of libxdp does.
    pub fn open() -> Result<Self, KernelError> {
        let directory = directory();
        let bpffs = directory.parent().unwrap_or(Path::new("/"));
        if !statfs(bpffs).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC) {
            return Err(KernelError::plain(format!(
                "there is no bpffs on {}, where dispatchers are pinned",
                bpffs.display()
            ))
            .hint(format!("mount one: mount -t bpf bpf {}", bpffs.display())));
        }
        let cannot = |error| KernelError::new(format!("cannot lock {}", directory.display()), error);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(error)),
            _ => {}
        }
        let mut who = None;
        let lock = lock::exclusive(&directory, LOCK_WAIT, |holder| who = Some(holder.to_string()));
        match lock.map_err(cannot)? {
            Some(lock) => Ok(Self { directory, _lock: lock }),
            None => {
                let who = who.unwrap_or_else(|| "somebody".into());
                let what = format!("{who} has had the lock on {} for too long", directory.display());
                Err(KernelError::plain(what).hint("try again when that is done"))
            }
        }
    }

    /// Where the pins are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a dispatcher of these parts and puts it in the place of `old`, or of nothing. Without parts, `old` goes.
    /// Either all of it or nothing happens. EEXIST or EBUSY below the error: there is something else by now.
    pub fn exchange(
        &self,
        ifindex: u32,
        mode: Mode,
        old: Option<&Dispatcher>,
        parts: Vec<(Slot, Source<'_>)>,
    ) -> Result<(), KernelError> {
        let before = old.map(|old| old.program.as_fd());
        let what = || format!("cannot attach a dispatcher to index {ifindex} in {} mode", mode.name());
        if parts.is_empty() {
            bpf_calls::exchange_xdp(ifindex, None, before, mode).map_err(|error| {
                KernelError::new(format!("cannot take the dispatcher off index {ifindex}"), error)
            })?;
        } else {
            let new = make(old.map_or_else(installed, |old| old.version), parts)?;
            let pins = pins_of(&self.directory, ifindex, new.id);
            let attached = new.pin(&pins).and_then(|()| {
                bpf_calls::exchange_xdp(ifindex, Some(new.program.as_fd()), before, mode)
                    .map_err(|error| explain(KernelError::new(what(), error), new.frags))
            });
            if let Err(error) = attached {
                // The error that led here is the one to tell.
                let _ = fs::remove_dir_all(&pins);
                return Err(error);
            }
        }
        if let Some(old) = old {
            // It is done. What can't be removed now goes with the next change of a part of it.
            let _ = remove(&pins_of(&self.directory, ifindex, old.id));
        }
        Ok(())
    }

    /// Removes what interruptions have left of dispatchers with one of these programs: those that no device runs.
    pub fn clear(&self, own: &[u32]) -> Result<(), KernelError> {
        let cannot = |error| KernelError::new(format!("cannot list {}", self.directory.display()), error);
        for (ifindex, id, pins) in pinned(&self.directory).map_err(cannot)? {
            let programs: Vec<(usize, u32)> =
                pinned_programs(&pins).map(|(slot, program)| (slot, program.id())).collect();
            if !programs.iter().any(|(_, program)| own.contains(program)) {
                continue;
            }
            let now = bpf_calls::xdp_on(ifindex).map_err(cannot)?;
            if now.is_some_and(|(now, _)| now == id) {
                continue;
            }
            if nix::net::if_::if_indextoname(ifindex).is_ok() {
                remove(&pins)?;
                continue;
            }
            // The device may live on in another namespace, and the others' programs with it.
            for (slot, _) in programs.iter().filter(|(_, program)| own.contains(program)) {
                for kind in ["link", "prog"] {
                    let _ = fs::remove_file(pins.join(format!("prog{slot}-{kind}")));
                }
            }
            let _ = fs::remove_dir(&pins);
        }
        Ok(())
    }
}

fn remove(pins: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(pins) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::new(format!("cannot remove the pins in {}", pins.display()), error))
        }
        _ => Ok(()),
    }
}

fn explain(error: KernelError, frags: bool) -> KernelError {
    let code = error.source.as_ref().and_then(io::Error::raw_os_error);
    match code {
        Some(libc::ERANGE | libc::EOPNOTSUPP | libc::EINVAL) if !frags => error.hint(
            "another of its programs takes no frames of several buffers, so the dispatcher does not either: such an \
             MTU needs that; take the other program off, or lower the MTU",
        ),
        Some(libc::ERANGE | libc::EOPNOTSUPP | libc::EINVAL) => {
            error.hint("the driver may have no native XDP: mode = \"generic\" works with every driver, slowly")
        }
        Some(libc::EBUSY | libc::EEXIST) => error.hint("another XDP program is there: see `ip link show`"),
        _ => error,
    }
}

/// A dispatcher that is loaded, and not attached yet.
struct Made {
    id: u32,
    program: ProgramHandle,
    frags: bool,
    parts: Vec<(ProgramHandle, OwnedFd)>,
}

/// Loads a dispatcher, and attaches the parts to it.
fn make(version: Version, parts: Vec<(Slot, Source<'_>)>) -> Result<Made, KernelError> {
    let slots: Vec<Slot> = parts.iter().map(|(slot, _)| *slot).collect();
    let config = Config::new(version, &slots);
    let program = load(&config)?;
    let id = program.id();
    let btf = Btf::from_prog_id(id)
        .map_err(|error| KernelError::new("cannot read the dispatcher's types", cause(&error)))?;
    let mut made = Made { id, program, frags: config.frags(), parts: Vec::new() };
    let alone = parts.len() == 1;
    for (at, (_, source)) in parts.into_iter().enumerate() {
        // A program that is alone takes the place of all of it: nothing has to be called.
        let function = if alone { dispatcher::NAME.to_owned() } else { format!("prog{at}") };
        let part = match source {
            Source::There(program) => program,
            Source::Fresh(load) => load(made.program.as_fd(), &function)?,
        };
        let number = btf.type_by_name::<Func<'_>>(&function).map(|function| function.type_id());
        let number = number.map_or(0, u32::from);
        let link = bpf_calls::create_extension_link(&part, &made.program, number).map_err(|error| {
            let name = part.name().to_string_lossy().into_owned();
            KernelError::new(format!("cannot attach {name} to a dispatcher"), error)
        })?;
        made.parts.push((part, link));
    }
    Ok(made)
}

/// Loads mptm's own dispatcher.
fn load(config: &Config) -> Result<ProgramHandle, KernelError> {
    take_libbpf_log();
    let mut object = MaybeUninit::uninit();
    let flags = if config.frags() { dispatcher::HAS_FRAGS } else { 0 };
    // The handle is a descriptor of its own: it outlives the object.
    let handle = |program: BorrowedFd<'_>| ProgramHandle::from_prog_id(Program::id_from_fd(program)?);
    let loaded = match config.version() {
        Version::Two => Dispatcher2SkelBuilder::default().open(&mut object).and_then(|mut open| {
            open.maps.rodata.set_initial_value(config.bytes())?;
            open.progs.xdp_dispatcher.set_flags(flags);
            handle(open.load()?.progs.xdp_dispatcher.as_fd())
        }),
        Version::Three => Dispatcher3SkelBuilder::default().open(&mut object).and_then(|mut open| {
            open.maps.rodata.set_initial_value(config.bytes())?;
            open.progs.xdp_dispatcher.set_flags(flags);
            handle(open.load()?.progs.xdp_dispatcher.as_fd())
        }),
    };
    loaded.map_err(|error| explain_load_failure(&error, None))
}

/// The version of the protocol that the libxdp of this machine speaks; where there is none, the newest.
fn installed() -> Version {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let directories = ["/usr/local/lib", "/usr/lib64", "/usr/lib", &multiarch];
    let files = directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let minor = files.filter_map(|file| minor_of(file.file_name().to_str()?)).min();
    if minor.is_some_and(|minor| minor < 6) { Version::Two } else { Version::Three }
}

/// `libxdp.so.1.5.4`: 5.
fn minor_of(file: &str) -> Option<u32> {
    file.strip_prefix("libxdp.so.1.")?.split('.').next()?.parse().ok()
}

impl Made {
    fn pin(&self, pins: &Path) -> Result<(), KernelError> {
        let cannot = |path: &Path, error| KernelError::new(format!("cannot pin {}", path.display()), error);
        DirBuilder::new().mode(0o700).create(pins).map_err(|error| cannot(pins, error))?;
        for (slot, (program, link)) in self.parts.iter().enumerate() {
            let path = |kind| pins.join(format!("prog{slot}-{kind}"));
            bpf_calls::pin(link, &path("link")).map_err(|error| cannot(&path("link"), error))?;
            bpf_calls::pin(program, &path("prog")).map_err(|error| cannot(&path("prog"), error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::minor_of;

    #[test]
    fn versions_of_libxdp() {
        assert_eq!(minor_of("libxdp.so.1.3.1"), Some(3));
        assert_eq!(minor_of("libxdp.so.1.10.0"), Some(10));
        assert_eq!(minor_of("libxdp.so.1"), None);
        assert_eq!(minor_of("libxdp.a"), None);
    }
}
