//! The BPF half of the fake.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::maps::{self, Maps};
use super::{Fake, World, XdpLink};
use crate::config::model::Mode;
use crate::kernel::dispatcher::Dispatcher;
use crate::kernel::{
    AttachedXdp, Build, DataPlane, Each, KernelError, Map, PinnedLink, Program, Sizes, Table, Via,
};

const META: [u8; 4] = [0; 4];

fn refused(what: impl Into<String>, code: i32) -> KernelError {
    KernelError::new(what, io::Error::from_raw_os_error(code))
}

/// As the real one says it.
fn too_large(map: Map, entries: u32, code: i32) -> KernelError {
    refused(format!("cannot make the map {} for {entries} entries", map.name()), code)
}

impl World {
    fn maps(&self, map: Map) -> Result<&Maps, KernelError> {
        let missing = || refused(format!("cannot open the map {}", map.name()), libc::ENOENT);
        self.maps.as_ref().ok_or_else(missing)
    }

    fn maps_mut(&mut self, map: Map) -> Result<&mut Maps, KernelError> {
        let missing = || refused(format!("cannot open the map {}", map.name()), libc::ENOENT);
        self.maps.as_mut().ok_or_else(missing)
    }

    fn put(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        let what = || format!("cannot write to the map {}", map.name());
        self.change(what)?;
        assert!(!(self.unsettled && map == Map::Saved), "what is not pinned is lost with whoever is killed");
        if map == Map::Devices {
            let ifindex = value.first_chunk().map_or(0, |index| u32::from_ne_bytes(*index));
            if !self.namespaces[0].devices.contains_key(&ifindex) {
                return Err(refused(what(), libc::EINVAL));
            }
        }
        let room = self.room.get(&map).copied();
        let maps = self.maps_mut(map)?;
        maps.put(map, key, value, room).map_err(|error| {
            let full = matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC));
            let error = KernelError::new(what(), error);
            let room = room.unwrap_or(maps.room(map));
            if full { error.hint(format!("it is full: it has room for {room} entries")) } else { error }
        })
    }

    /// Refuses maps that are larger than this kernel has memory for.
    fn allocate(&self, sizes: &Sizes) -> Result<(), KernelError> {
        let most = self.most_entries.unwrap_or(u32::MAX);
        match Table::ALL.into_iter().find(|table| sizes[*table] > most) {
            Some(table) => Err(too_large(table.maps()[0].0, sizes[table], libc::ENOMEM)),
            None => Ok(()),
        }
    }

    /// Puts programs in the place of the pinned ones, there and in the links; the answer is those.
    fn exchange(&mut self, programs: BTreeMap<Program, u32>) -> BTreeMap<Program, u32> {
        let old = std::mem::replace(&mut self.pinned, programs);
        for link in self.flood_links.values_mut().filter(|link| old[&Program::Flood] == link.program_id) {
            link.program_id = self.pinned[&Program::Flood];
        }
        let parts: Vec<_> =
            self.dispatched.iter().map(|(name, part)| (name.clone(), part.made_from)).collect();
        for (name, made_from) in parts {
            let program = old.iter().find(|(_, id)| **id == made_from).map(|(program, _)| *program);
            if let Some(program) = program {
                self.give_part(&name, self.pinned[&program]);
            }
        }
        for link in self.links.values_mut() {
            let Some((program, _)) = old.iter().find(|(_, id)| **id == link.program_id) else { continue };
            link.program_id = self.pinned[program];
            if let Some(xdp) =
                self.namespaces[0].devices.get_mut(&link.ifindex).and_then(|device| device.xdp.as_mut())
            {
                xdp.program_id = link.program_id;
            }
        }
        old
    }

    /// Gives a link another program.
    fn give(&mut self, name: &str, flood: bool, program_id: u32) {
        if !flood && self.give_part(name, program_id) {
            return;
        }
        let links = if flood { &mut self.flood_links } else { &mut self.links };
        let Some(link) = links.get_mut(name) else { return };
        link.program_id = program_id;
        let device = self.namespaces[0].devices.get_mut(&link.ifindex).filter(|_| !flood);
        if let Some(xdp) = device.and_then(|device| device.xdp.as_mut()) {
            xdp.program_id = program_id;
        }
    }

    fn describe(&self, links: &BTreeMap<String, XdpLink>) -> BTreeMap<String, PinnedLink> {
        let program = |id| self.pinned.iter().find(|(_, pinned)| **pinned == id).map(|(program, _)| *program);
        let links = links.iter().map(|(name, XdpLink { ifindex, program_id })| {
            let (ifindex, program_id) = (*ifindex, *program_id);
            (name.clone(), PinnedLink { ifindex, program_id, program: program(program_id), via: Via::Link })
        });
        links.collect()
    }

    fn pinned(&self, program: Program) -> Result<u32, KernelError> {
        let missing = || refused(format!("cannot open the program {}", program.name()), libc::ENOENT);
        self.pinned.get(&program).copied().ok_or_else(missing)
    }
}

impl DataPlane for Fake {
    fn pin_dir(&self) -> &Path {
        Path::new("/sys/fs/bpf/mptm")
    }

    fn build(&self) -> Build {
        self.world().build
    }

    fn possible_cpus(&self) -> Result<u32, KernelError> {
        Ok(maps::CPUS as u32)
    }

    fn online_cpus(&self) -> Result<BTreeSet<u32>, KernelError> {
        Ok((0..maps::CPUS as u32).collect())
    }

    fn meta(&self) -> Result<Option<Vec<u8>>, KernelError> {
        let is_pinned = {
            let world = self.world();
            world.maps.is_some() && !world.unsettled
        };
        if is_pinned { self.get(Map::Meta, &META) } else { Ok(None) }
    }

    fn sizes(&self) -> Result<Sizes, KernelError> {
        Ok(self.world().maps(Map::Meta)?.sizes())
    }

    fn create(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| "cannot make the maps".into())?;
        world.allocate(sizes)?;
        if world.maps.is_some() {
            return Err(refused(format!("cannot replace {}", self.pin_dir().display()), libc::ENOTEMPTY));
        }
        let mut maps = Maps::new(*sizes);
        maps.poke(Map::Meta, &META, meta);
        world.maps = Some(maps);
        world.unsettled = true;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), KernelError> {
        let mut world = self.world();
        if !std::mem::take(&mut world.unsettled) {
            return Ok(());
        }
        if let Err(error) = world.change(|| "cannot load the BPF programs".into()) {
            world.maps = None;
            return Err(error);
        }
        for program in Program::ALL {
            let id = world.load(program.name());
            world.pinned.insert(program, id);
        }
        Ok(())
    }

    fn resize(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| "cannot load the BPF programs".into())?;
        world.allocate(sizes)?;
        let mut maps = world
            .maps(Map::Meta)?
            .resized(sizes)
            .map_err(|error| KernelError::new("cannot copy what is there into maps of other sizes", error))?;
        maps.poke(Map::Meta, &META, meta);
        let new = Program::ALL.map(|program| (program, world.load(program.name()))).into();
        let programs = world.exchange(new);
        world.replaced.clear();
        world.former = world.maps.replace(maps).map(|old| (old, programs));
        Ok(())
    }

    fn migrate(&mut self, meta: &[u8], sizes: &Sizes) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| "cannot load the BPF programs".into())?;
        world.allocate(sizes)?;
        let mut maps = Maps::new(*sizes);
        let old = world.maps.take().ok_or_else(|| refused("cannot migrate", libc::ENOENT))?;
        for map in [Map::Saved, Map::TunnelState, Map::TunnelStats, Map::Actions, Map::Drops] {
            for (key, value) in old.entries(map) {
                maps.poke(map, &key, &value);
            }
        }
        maps.poke(Map::Meta, &META, meta);
        world.maps = Some(maps);
        let new = Program::ALL.map(|program| (program, world.load(program.name()))).into();
        let programs = std::mem::replace(&mut world.pinned, new);
        world.former = Some((old, programs));
        Ok(())
    }

    fn restore_link(&mut self, name: &str, program: Program) -> Result<bool, KernelError> {
        let mut world = self.world();
        let Some(program_id) = world.former.as_ref().map(|(_, programs)| programs[&program]) else {
            return Ok(false);
        };
        world.change(|| format!("cannot give {name} its old program back"))?;
        world.give(name, program == Program::Flood, program_id);
        Ok(true)
    }

    fn update_flood(&mut self, name: &str) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| format!("cannot replace the program of {name}"))?;
        let program_id = world.pinned(Program::Flood)?;
        world.give(name, true, program_id);
        Ok(())
    }

    fn replace_programs(&mut self, meta: &[u8]) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| "cannot load the BPF programs".into())?;
        let new = Program::ALL.map(|program| (program, world.load(program.name()))).into();
        world.replaced = world.exchange(new);
        world.former = None;
        world.maps_mut(Map::Meta)?.poke(Map::Meta, &META, meta);
        Ok(())
    }

    fn can_restore(&self) -> bool {
        !self.world().replaced.is_empty()
    }

    fn restore_programs(&mut self, meta: &[u8]) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| "cannot load the BPF programs".into())?;
        if let Some((maps, programs)) = world.former.take() {
            world.maps = Some(maps);
            let new = world.exchange(programs);
            new.values().for_each(|id| drop(world.programs.remove(id)));
            return Ok(());
        }
        let old = std::mem::take(&mut world.replaced);
        if old.is_empty() {
            return Err(KernelError::plain("the programs of the earlier build are no longer at hand"));
        }
        for id in world.exchange(old).values() {
            world.programs.remove(id);
        }
        world.maps_mut(Map::Meta)?.poke(Map::Meta, &META, meta);
        Ok(())
    }

    fn destroy(&mut self) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| "cannot remove the pin directory".into())?;
        let is_used = !world.links.is_empty() || !world.dispatched.is_empty();
        assert!(!is_used && world.flood_links.is_empty(), "the links must be gone");
        world.maps = None;
        world.unsettled = false;
        let former = world.former.take().map(|(_, programs)| programs).unwrap_or_default();
        let World { pinned, replaced, programs, .. } = &mut *world;
        for id in pinned.values().chain(replaced.values()).chain(former.values()) {
            programs.remove(id);
        }
        pinned.clear();
        replaced.clear();
        Ok(())
    }

    fn each_entry(&self, map: Map, each: Each<'_>) -> Result<(), KernelError> {
        // `each` may ask for more of the world.
        let entries = self.world().maps(map)?.entries(map);
        entries.iter().try_for_each(|(key, value)| each(key, value))
    }

    fn get(&self, map: Map, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let read = self.world().maps(map)?.get(map, key);
        read.map_err(|error| KernelError::new(format!("cannot read the map {}", map.name()), error))
    }

    fn get_per_cpu(&self, map: Map, key: &[u8]) -> Result<Vec<Vec<u8>>, KernelError> {
        assert!(maps::is_per_cpu(map), "{} has one value for all CPUs", map.name());
        self.get(map, key).map(maps::per_cpu)
    }

    fn put(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        assert!(!maps::is_per_cpu(map), "{} has a value for each CPU", map.name());
        self.world().put(map, key, value)
    }

    fn put_per_cpu(&mut self, map: Map, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        assert!(maps::is_per_cpu(map), "{} has one value for all CPUs", map.name());
        self.world().put(map, key, value)
    }

    fn delete(&mut self, map: Map, key: &[u8]) -> Result<(), KernelError> {
        let what = || format!("cannot delete from the map {}", map.name());
        let mut world = self.world();
        world.change(what)?;
        world.maps_mut(map)?.delete(map, key).map_err(|error| KernelError::new(what(), error))
    }

    fn links(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError> {
        let world = self.world();
        let mut links = world.describe(&world.links);
        links.extend(world.describe_dispatched());
        Ok(links)
    }

    fn dispatcher(&self, ifindex: u32) -> Result<Option<Dispatcher>, KernelError> {
        Ok(self.world().dispatcher_on(ifindex))
    }

    fn attach(
        &mut self,
        name: &str,
        program: Program,
        ifindex: u32,
        mode: Mode,
        via: Via,
    ) -> Result<(), KernelError> {
        let what = || format!("cannot attach {} to {name} in {} mode", program.name(), mode.name());
        let mut world = self.world();
        world.change(what)?;
        let program_id = world.pinned(program)?;
        let has_link = world.links.contains_key(name);
        let device = world.namespaces[0].devices.get_mut(&ifindex);
        let device = device.ok_or_else(|| refused(what(), libc::ENODEV))?;
        if !device.modes.contains(&mode) {
            return Err(refused(what(), libc::EOPNOTSUPP));
        }
        if via == Via::Dispatcher {
            return world.join(name, program, ifindex, mode);
        }
        if device.xdp.is_some() {
            return Err(refused(what(), libc::EBUSY).hint("another XDP program is there: see `ip link show`"));
        }
        if has_link {
            return Err(refused(format!("cannot pin the link {name}"), libc::EEXIST));
        }
        device.xdp = Some(AttachedXdp { program_id, mode });
        world.links.insert(name.to_owned(), XdpLink { ifindex, program_id });
        Ok(())
    }

    fn update_link(&mut self, name: &str, program: Program) -> Result<(), KernelError> {
        let what = || format!("cannot replace the program of {name} by {}", program.name());
        let mut world = self.world();
        world.change(what)?;
        let program_id = world.pinned(program)?;
        if world.dispatched.contains_key(name) {
            return if world.give_part(name, program_id) {
                Ok(())
            } else {
                Err(refused(what(), libc::ENOENT))
            };
        }
        let World { links, namespaces, .. } = &mut *world;
        let link = links.get_mut(name).ok_or_else(|| refused(what(), libc::ENOENT))?;
        let device = namespaces[0].devices.get_mut(&link.ifindex);
        let xdp = device.and_then(|device| device.xdp.as_mut());
        let xdp = xdp.filter(|xdp| xdp.program_id == link.program_id);
        xdp.ok_or_else(|| refused(what(), libc::ENOLINK))?.program_id = program_id;
        link.program_id = program_id;
        Ok(())
    }

    fn detach(&mut self, name: &str) -> Result<(), KernelError> {
        let mut world = self.world();
        world.change(|| format!("cannot detach the program from {name}"))?;
        world.leave(name);
        if let Some(link) = world.links.remove(name)
            && let Some(device) = world.namespaces[0].devices.get_mut(&link.ifindex)
        {
            device.xdp.take_if(|xdp| xdp.program_id == link.program_id);
        }
        Ok(())
    }

    fn flood_links(&self) -> Result<BTreeMap<String, PinnedLink>, KernelError> {
        let world = self.world();
        Ok(world.describe(&world.flood_links))
    }

    fn attach_flood(&mut self, name: &str, ifindex: u32) -> Result<(), KernelError> {
        let what = || format!("cannot attach mptm_flood to {name}");
        let mut world = self.world();
        world.change(what)?;
        let program_id = world.pinned(Program::Flood)?;
        if !world.has_tcx {
            return Err(refused(what(), libc::EINVAL));
        }
        if !world.namespaces[0].devices.contains_key(&ifindex) {
            return Err(refused(what(), libc::ENODEV));
        }
        let link = XdpLink { ifindex, program_id };
        if world.flood_links.contains_key(name) || world.flood_links.values().any(|other| *other == link) {
            return Err(refused(what(), libc::EEXIST));
        }
        world.flood_links.insert(name.to_owned(), link);
        Ok(())
    }

    fn detach_flood(&mut self, name: &str) -> Result<(), KernelError> {
        let mut world = self.world();
        if world.flood_links.contains_key(name) {
            world.change(|| format!("cannot detach mptm_flood from {name}"))?;
            world.flood_links.remove(name);
        }
        Ok(())
    }

    fn program_name(&self, id: u32) -> Result<String, KernelError> {
        let missing = || refused(format!("cannot look at BPF program {id}"), libc::ENOENT);
        self.world().programs.get(&id).cloned().ok_or_else(missing)
    }
}
