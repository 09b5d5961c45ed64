//! What runs the pinned programs: links, and parts of dispatchers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use libbpf_rs::Link;
use libbpf_rs::query::LinkTypeInfo;

use super::bpf::{BpfDataPlane, remove_file};
use super::bpf_calls;
use super::dispatched::{Parts, Wanted};
use super::libbpf::cause;
use super::pins::RIGHTS;
use crate::config::model::Mode;
use crate::kernel::KernelError;
use crate::kernel::data_plane::{DataPlane, PinnedLink, Program, Via};

/// What runs a pinned program.
pub(super) enum User {
    /// A link, by its pin.
    Link(PathBuf),
    /// A part of a dispatcher, by its interface.
    Part(String),
}

impl BpfDataPlane {
    /// What is attached and runs one of the pinned programs, and which.
    pub(super) fn users(&self) -> Result<Vec<(User, Program)>, KernelError> {
        let xdp = self.links()?.into_iter().map(|(name, link)| match link.via {
            Via::Link => (User::Link(self.pins.link(&name)), link),
            Via::Dispatcher => (User::Part(name), link),
        });
        let flood = self.flood_links()?.into_iter();
        let flood = flood.map(|(name, link)| (User::Link(self.pins.flood_link(&name)), link));
        let links = xdp.chain(flood).filter(|(_, link)| link.ifindex != 0);
        Ok(links.filter_map(|(user, link)| Some((user, link.program?))).collect())
    }

    /// Puts a pinned program in the place of the one that somebody has; `former` has the parts of dispatchers, if it is an
    /// older one.
    pub(super) fn give(
        &self,
        user: &User,
        program: Program,
        former: Option<&Parts>,
    ) -> Result<(), KernelError> {
        let name = match user {
            User::Link(path) => return self.update(path, program),
            User::Part(name) => name,
        };
        let Some(former) = former else {
            return self.update_dispatched(name, &Wanted::Current(program));
        };
        let former = former.get(name).ok_or_else(|| {
            KernelError::plain(format!("the earlier program of {name} is no longer at hand"))
        })?;
        self.update_dispatched(name, &Wanted::Former(former))
    }

    /// Puts a pinned program in the place of the one that a pinned link has.
    pub(super) fn update(&self, path: &Path, program: Program) -> Result<(), KernelError> {
        let what = || format!("cannot replace the program of {} by {}", path.display(), program.name());
        let link = Link::open(path).map_err(|error| KernelError::new(what(), cause(&error)))?;
        bpf_calls::update_link(&link, self.program(program)?).map_err(|error| KernelError::new(what(), error))
    }

    /// Of pinned links: where they are attached, as `ifindex` knows, and what they run.
    pub(super) fn describe(
        &self,
        pins: io::Result<Vec<(String, PathBuf)>>,
        ifindex: fn(&LinkTypeInfo) -> Option<u32>,
    ) -> Result<BTreeMap<String, PinnedLink>, KernelError> {
        if !self.pins.exists() {
            return Ok(BTreeMap::new());
        }
        let mut programs = BTreeMap::new();
        for program in Program::ALL {
            // A pin that somebody removed shows as drift where its program is needed.
            if let Ok(handle) = self.program(program) {
                programs.insert(handle.id(), program);
            }
        }
        let links = pins.map_err(|error| KernelError::new("cannot list the pinned links", error))?;
        links
            .into_iter()
            .map(|(name, path)| {
                let wrong =
                    |error| KernelError::new(format!("cannot open the link {}", path.display()), error);
                let info =
                    Link::open(&path).and_then(|link| link.info()).map_err(|error| wrong(cause(&error)))?;
                let ifindex =
                    ifindex(&info.info).ok_or_else(|| wrong(io::Error::from(io::ErrorKind::InvalidData)))?;
                let program = programs.get(&info.prog_id).copied();
                Ok((name, PinnedLink { ifindex, program_id: info.prog_id, program, via: Via::Link }))
            })
            .collect()
    }

    /// Detaches a link and removes its pin; a dead one, too.
    pub(super) fn remove_link(name: &str, path: &Path) -> Result<(), KernelError> {
        let what = || format!("cannot detach the program from {name}");
        if !path.exists() {
            return Ok(());
        }
        let link = Link::open(path).map_err(|error| KernelError::new(what(), cause(&error)))?;
        match link.detach() {
            // The device is gone, and took the program with it.
            Err(error) if !matches!(cause(&error).raw_os_error(), Some(libc::EINVAL | libc::ENOLINK)) => {
                return Err(KernelError::new(what(), cause(&error)));
            }
            _ => {}
        }
        remove_file(path)
    }

    pub(super) fn attach_xdp(
        &self,
        name: &str,
        program: Program,
        ifindex: u32,
        mode: Mode,
        via: Via,
    ) -> Result<(), KernelError> {
        if via == Via::Dispatcher {
            return self.attach_dispatched(name, program, ifindex, mode);
        }
        let what = || format!("cannot attach {} to {name} in {} mode", program.name(), mode.name());
        let link = bpf_calls::create_xdp_link(self.program(program)?, ifindex, mode).map_err(|error| {
            let hint = match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::EINVAL) if mode == Mode::Native => Some(
                    "the driver may have no native XDP, or not with this MTU: see `ip -d link show`; \
                          mode = \"generic\" works with every driver, slowly",
                ),
                Some(libc::EOPNOTSUPP | libc::EINVAL) => {
                    Some("the device does not support this mode: see `mode`")
                }
                Some(libc::EBUSY | libc::EEXIST) => Some("another XDP program is there: see `ip link show`"),
                Some(libc::EPERM) => Some(RIGHTS),
                _ => None,
            };
            let error = KernelError::new(what(), error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        let path = self.pins.link(name);
        bpf_calls::pin(&link, &path)
            .map_err(|error| KernelError::new(format!("cannot pin the link {}", path.display()), error))
    }

    pub(super) fn update_xdp(&self, name: &str, program: Program) -> Result<(), KernelError> {
        if self.pins.dispatched(name).exists() {
            return self.update_dispatched(name, &Wanted::Current(program));
        }
        let path = self.pins.link(name);
        let what = || format!("cannot replace the program of {name} by {}", program.name());
        let link = Link::open(&path).map_err(|error| KernelError::new(what(), cause(&error)))?;
        bpf_calls::update_link(&link, self.program(program)?).map_err(|error| KernelError::new(what(), error))
    }

    pub(super) fn attach_tcx(&self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        let link = bpf_calls::create_tcx_link(self.program(Program::Flood)?, ifindex).map_err(|error| {
            let hint = match error.raw_os_error() {
                Some(libc::EINVAL) => Some("tc programs have links since Linux 6.6: flood = true needs that"),
                Some(libc::EPERM) => Some(RIGHTS),
                _ => None,
            };
            let error = KernelError::new(format!("cannot attach mptm_flood to {name}"), error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        let path = self.pins.flood_link(name);
        bpf_calls::pin(&link, &path)
            .map_err(|error| KernelError::new(format!("cannot pin the link {}", path.display()), error))
    }
}
