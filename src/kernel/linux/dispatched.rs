//! mptm's own programs in dispatchers. A link tells which device it is on; a program in a dispatcher has a link that is
//! its dispatcher's, and goes with it. So what is pinned in `dispatched` is the program itself, of type
//! BPF_PROG_TYPE_EXT, by the interface's name, and the dispatchers are asked which of them has it. While one program takes
//! the place of another, both are pinned, the new one as NAME%new: whoever is interrupted leaves nothing unknown.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::skel::Skel;
use libbpf_rs::{ProgramAttachType, ProgramHandle, ProgramType};

use super::bpf::{BpfDataPlane, remove_file};
use super::bpf_calls;
use super::dispatchers::{self, Dispatcher, Present, Session, Source};
use super::libbpf::{cause, explain_part_failure};
use super::load::{Maps, load};
use super::pins::Pins;
use crate::config::model::Mode;
use crate::kernel::KernelError;
use crate::kernel::data_plane::{PinnedLink, Program, Via};
use crate::kernel::dispatcher::{self, HAS_FRAGS, Keeper, Member, SLOTS, Slot};

/// How often a dispatcher is made anew because somebody was faster.
const TRIES: usize = 5;

/// The pinned programs of an interface: the one, and the one that is about to take its place.
struct Own {
    program: Option<ProgramHandle>,
    new: Option<ProgramHandle>,
}

impl Own {
    fn ids(&self) -> Vec<u32> {
        [&self.program, &self.new].into_iter().flatten().map(ProgramHandle::id).collect()
    }

    /// Of a dispatcher's parts, the one that is one of these.
    fn place(&self, dispatcher: &Dispatcher) -> Option<usize> {
        let ids = self.ids();
        dispatcher.parts.iter().position(|part| ids.contains(&part.program.id()))
    }
}

/// What is to run.
pub(super) enum Wanted<'a> {
    /// The pinned program of this build, loaded anew as part of a dispatcher.
    Current(Program),
    /// One that ran before.
    Former(&'a ProgramHandle),
}

impl BpfDataPlane {
    fn own(&self, name: &str) -> Own {
        let open = |path| ProgramHandle::from_pinned_path(path).ok();
        Own { program: open(self.pins.dispatched(name)), new: open(self.pins.dispatched_new(name)) }
    }

    /// The programs that are pinned as parts of dispatchers, where they are, and what they run.
    pub(super) fn dispatched(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError> {
        let names = self.pins.all_dispatched().map_err(|error| {
            KernelError::new("cannot list the programs that are parts of dispatchers", error)
        })?;
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let places = self.places()?;
        let mut links = BTreeMap::new();
        for name in names {
            let own = self.own(&name);
            let all = [own.new, own.program].into_iter().flatten();
            let placed: Vec<_> = all.map(|program| (places.get(&program.id()).copied(), program)).collect();
            let Some((place, program)) = placed
                .iter()
                .find(|(place, _)| place.is_some_and(|place| place.live))
                .or_else(|| placed.iter().find(|(place, _)| place.is_some()))
                .or(placed.last())
            else {
                continue;
            };
            let place = place.unwrap_or_default();
            let link = PinnedLink {
                ifindex: place.ifindex,
                program_id: place.dispatcher,
                program: self.which(program)?,
                via: Via::Dispatcher,
            };
            links.insert(name, link);
        }
        Ok(links)
    }

    /// Where each program of the pinned dispatchers is; where it is in several, in the one that a device runs.
    fn places(&self) -> Result<BTreeMap<u32, Place>, KernelError> {
        let directory = dispatchers::directory();
        let cannot = |error| KernelError::new(format!("cannot look into {}", directory.display()), error);
        let mut places = BTreeMap::new();
        for (ifindex, id, pins) in dispatchers::pinned(&directory).map_err(cannot)? {
            let now = bpf_calls::xdp_on(ifindex).map_err(cannot)?;
            let place = Place { ifindex, dispatcher: id, live: now.is_some_and(|(now, _)| now == id) };
            for (_, program) in dispatchers::pinned_programs(&pins) {
                let known = places.entry(program.id()).or_insert(place);
                if place.live {
                    *known = place;
                }
            }
        }
        Ok(places)
    }

    /// Which of the pinned programs a part of a dispatcher is: one with the same instructions and the same maps.
    fn which(&self, part: &ProgramHandle) -> Result<Option<Program>, KernelError> {
        let failed = |error| KernelError::new("cannot look at a part of a dispatcher", error);
        for program in Program::XDP {
            if part.name() != program.name() {
                continue;
            }
            // A pin that somebody removed shows as drift where its program is needed.
            let Ok(pinned) = self.program(program) else { continue };
            let same_maps =
                bpf_calls::maps_of(&pinned).map_err(failed)? == bpf_calls::maps_of(part).map_err(failed)?;
            if same_maps && pinned.tag() == part.tag() {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }

    /// Makes a program part of the dispatcher of a device, and makes a dispatcher where there is none.
    pub(super) fn attach_dispatched(
        &self,
        name: &str,
        program: Program,
        ifindex: u32,
        mode: Mode,
    ) -> Result<(), KernelError> {
        let session = Session::open()?;
        self.clear_dispatched(&session, name)?;
        let attached = again_if_outrun(|| {
            let old = match dispatchers::look(session.directory(), ifindex)? {
                Present::Nothing => None,
                Present::Dispatcher(old) if old.mode == mode && old.parts.len() < SLOTS => Some(old),
                present => return Err(cannot_join(name, mode, &present)),
            };
            let mut load = |target: BorrowedFd<'_>, function: &str| {
                self.load_part(program, target, function, &self.pins.dispatched(name))
            };
            let names: Vec<_> =
                old.iter().flat_map(|old| &old.parts).map(|part| (part.slot.priority, part.name())).collect();
            let others = names.iter().map(|(priority, name)| (*priority, name.as_str()));
            let place = dispatcher::place(others, Slot::OWN.priority, program.name());
            let mut parts = there(old.as_ref(), |_| true)?;
            parts.insert(place, (Slot::OWN, Source::Fresh(&mut load)));
            session.exchange(ifindex, mode, old.as_ref(), parts).inspect_err(|_| {
                // The error that led here is the one to tell.
                let _ = remove_file(&self.pins.dispatched(name));
            })
        });
        attached.map_err(|error| {
            let what = format!("cannot attach {} to {name} in {} mode", program.name(), mode.name());
            KernelError { what: format!("{what}: {}", error.what), ..error }
        })
    }

    /// Puts another program in the place of the one that a dispatcher has.
    pub(super) fn update_dispatched(&self, name: &str, wanted: &Wanted<'_>) -> Result<(), KernelError> {
        let session = Session::open()?;
        self.settle(name)?;
        let own = self.own(name);
        session.clear(&own.ids())?;
        let pin = self.pins.dispatched_new(name);
        let what = || format!("cannot replace the program of {name} in its dispatcher");
        again_if_outrun(|| {
            let Some((ifindex, old)) = self.find(&session, &own)? else {
                return Err(KernelError::plain(format!("{}: it is in none", what())));
            };
            let place = own.place(&old).unwrap_or(old.parts.len());
            let mut load = |target: BorrowedFd<'_>, function: &str| match wanted {
                Wanted::Current(program) => self.load_part(*program, target, function, &pin),
                Wanted::Former(program) => pin_again(program, &pin),
            };
            let mut parts = there(Some(&old), |_| true)?;
            if let Some(part) = parts.get_mut(place) {
                part.1 = Source::Fresh(&mut load);
            }
            session.exchange(ifindex, old.mode, Some(&old), parts).inspect_err(|_| {
                // The error that led here is the one to tell.
                let _ = remove_file(&pin);
            })
        })
        .map_err(|error| KernelError { what: format!("{}: {}", what(), error.what), ..error })?;
        rename(&pin, &self.pins.dispatched(name))
    }

    /// Takes a program out of its dispatcher, and the dispatcher off if nothing else is in it; and removes what an
    /// interruption may have left.
    pub(super) fn detach_dispatched(&self, name: &str) -> Result<(), KernelError> {
        let own = self.own(name);
        if own.ids().is_empty() {
            return Ok(());
        }
        let session = Session::open()?;
        again_if_outrun(|| {
            let Some((ifindex, old)) = self.find(&session, &own)? else { return Ok(()) };
            let ids = own.ids();
            let parts = there(Some(&old), |id| !ids.contains(&id))?;
            session.exchange(ifindex, old.mode, Some(&old), parts)
        })
        .map_err(|error| {
            let what = format!("cannot detach the program from {name}");
            KernelError { what: format!("{what}: {}", error.what), ..error }
        })?;
        self.clear_dispatched(&session, name)
    }

    /// Brings an interrupted replacement to an end: the program that runs is the one.
    fn settle(&self, name: &str) -> Result<(), KernelError> {
        let Some(new) = self.own(name).new else { return Ok(()) };
        let (pin, path) = (self.pins.dispatched_new(name), self.pins.dispatched(name));
        if !self.places()?.get(&new.id()).is_some_and(|place| place.live) {
            return remove_file(&pin);
        }
        rename(&pin, &path)
    }

    /// Removes the pins of an interface's programs, and the dispatchers that an interruption has left with one of them.
    fn clear_dispatched(&self, session: &Session, name: &str) -> Result<(), KernelError> {
        let own = self.own(name);
        if own.ids().is_empty() {
            return Ok(());
        }
        session.clear(&own.ids())?;
        remove_file(&self.pins.dispatched_new(name))?;
        remove_file(&self.pins.dispatched(name))
    }

    /// The device that runs a dispatcher with one of these programs, and the dispatcher.
    fn find(&self, session: &Session, own: &Own) -> Result<Option<(u32, Dispatcher)>, KernelError> {
        let places = self.places()?;
        let place = own.ids().iter().find_map(|id| places.get(id).filter(|place| place.live));
        let Some(place) = place else { return Ok(None) };
        match dispatchers::look(session.directory(), place.ifindex)? {
            Present::Dispatcher(dispatcher) if own.place(&dispatcher).is_some() => {
                Ok(Some((place.ifindex, dispatcher)))
            }
            _ => Ok(None),
        }
    }

    /// Loads a program to take the place of a function of a dispatcher, with the maps that are there, and pins it.
    fn load_part(
        &self,
        program: Program,
        target: BorrowedFd<'_>,
        function: &str,
        path: &Path,
    ) -> Result<ProgramHandle, KernelError> {
        let maps = self.pins.handles(&Maps::pinned())?;
        let mut object = MaybeUninit::uninit();
        let skel = load(&mut object, &maps, |open| {
            for mut other in open.progs_mut() {
                if other.name() != program.name() {
                    other.set_autoload(false);
                    continue;
                }
                other.set_prog_type(ProgramType::Ext);
                // Zero, as it must be for this type.
                other.set_attach_type(ProgramAttachType::CgroupInetIngress);
                other.set_attach_target(target.as_raw_fd(), Some(function.to_owned()))?;
                // Not for itself: maps that redirect go with programs only that have the flag as the others.
                other.set_flags(HAS_FRAGS);
            }
            Ok(())
        });
        let mut skel = skel.map_err(explain_part_failure)?;
        remove_file(path)?;
        for mut loaded in skel.object_mut().progs_mut().filter(|loaded| loaded.name() == program.name()) {
            loaded
                .pin(path)
                .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), cause(&error)))?;
        }
        open(path)
    }

    /// What a program of XDP on a device is, if it is a dispatcher.
    pub(super) fn describe_dispatcher(
        &self,
        ifindex: u32,
    ) -> Result<Option<dispatcher::Dispatcher>, KernelError> {
        let own: Vec<u32> = match self.pins.all_dispatched() {
            Ok(names) => names.iter().flat_map(|name| self.own(name).ids()).collect(),
            Err(_) => Vec::new(),
        };
        let member = |id: u32, name: String, slot| Member { name, id, slot, own: own.contains(&id) };
        Ok(match dispatchers::look(&dispatchers::directory(), ifindex)? {
            Present::Nothing | Present::Program => None,
            Present::Dispatcher(found) => Some(dispatcher::Dispatcher {
                keeper: Keeper::Libxdp,
                frags: found.frags,
                members: found
                    .parts
                    .iter()
                    .map(|part| member(part.program.id(), part.name(), part.slot))
                    .collect(),
            }),
            Present::Closed(keeper, programs) => {
                let name = |id| match ProgramHandle::from_prog_id(id) {
                    Ok(program) => program.name().to_string_lossy().into_owned(),
                    // It vanished while we looked.
                    Err(_) => "?".into(),
                };
                let members = programs.into_iter().map(|(id, slot)| member(id, name(id), slot)).collect();
                Some(dispatcher::Dispatcher { keeper, frags: false, members })
            }
        })
    }
}

/// Programs that are parts of dispatchers, by interface.
pub(super) type Parts = BTreeMap<String, ProgramHandle>;

/// Those that are pinned.
pub(super) fn parts(pins: &Pins) -> Parts {
    let names = pins.all_dispatched().unwrap_or_default();
    let open = |name: String| {
        let program = ProgramHandle::from_pinned_path(pins.dispatched(&name)).ok()?;
        Some((name, program))
    };
    names.into_iter().filter_map(open).collect()
}

/// Where a program is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    ifindex: u32,
    dispatcher: u32,
    /// The device runs this dispatcher.
    live: bool,
}

impl dispatchers::Part {
    fn name(&self) -> String {
        self.program.name().to_string_lossy().into_owned()
    }
}

/// The parts of a dispatcher, for the next one; those only that `keep` says by their ids.
fn there<'a>(
    old: Option<&Dispatcher>,
    keep: impl Fn(u32) -> bool,
) -> Result<Vec<(Slot, Source<'a>)>, KernelError> {
    let parts = old.into_iter().flat_map(|old| &old.parts).filter(|part| keep(part.program.id()));
    parts
        .map(|part| {
            let program = ProgramHandle::from_prog_id(part.program.id()).map_err(|error| {
                KernelError::new(format!("cannot open the program {}", part.name()), cause(&error))
            })?;
            Ok((part.slot, Source::There(program)))
        })
        .collect()
}

fn rename(from: &Path, to: &Path) -> Result<(), KernelError> {
    fs::rename(from, to)
        .map_err(|error| KernelError::new(format!("cannot replace the pin {}", to.display()), error))
}

fn open(path: &Path) -> Result<ProgramHandle, KernelError> {
    ProgramHandle::from_pinned_path(path).map_err(|error| {
        KernelError::new(format!("cannot open the program {}", path.display()), cause(&error))
    })
}

/// Pins a program that has been loaded before.
fn pin_again(program: &ProgramHandle, path: &Path) -> Result<ProgramHandle, KernelError> {
    remove_file(path)?;
    bpf_calls::pin(program, path)
        .map_err(|error| KernelError::new(format!("cannot pin {}", path.display()), error))?;
    open(path)
}

/// Does it again if somebody else has put another program on the device meanwhile.
fn again_if_outrun(mut work: impl FnMut() -> Result<(), KernelError>) -> Result<(), KernelError> {
    for _ in 1..TRIES {
        match work() {
            Err(error) if is_outrun(&error) => {}
            result => return result,
        }
    }
    work()
}

fn is_outrun(error: &KernelError) -> bool {
    let code = error.source.as_ref().and_then(io::Error::raw_os_error);
    matches!(code, Some(libc::EEXIST | libc::EBUSY))
}

fn cannot_join(name: &str, mode: Mode, present: &Present) -> KernelError {
    match present {
        Present::Dispatcher(old) if old.mode != mode => {
            KernelError::plain(format!("the dispatcher of {name} is attached in {} mode", old.mode.name()))
                .hint(format!("write mode = \"{}\", or unload its programs first", old.mode.name()))
        }
        Present::Dispatcher(_) => KernelError::plain(format!(
            "the dispatcher of {name} has {SLOTS} programs, which is all it can have"
        ))
        .hint("unload one of them: see `xdp-loader status`"),
        _ => KernelError::plain(format!("{name} has another program of XDP")).hint("see `ip link show`"),
    }
}
