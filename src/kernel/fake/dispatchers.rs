//! Dispatchers of the fake: as on the real kernel, each change makes a new one in the place of the old.

use super::{Part, World};
use crate::config::model::Mode;
use crate::kernel::dispatcher::{self, Dispatcher, Keeper, Member, NAME, SLOTS, Slot};
use crate::kernel::{AttachedXdp, KernelError, PinnedLink, Program, Via};

impl World {
    /// Loads a dispatcher of somebody else's with these programs, and attaches it: the answer is its id.
    pub fn attach_dispatcher(
        &mut self,
        device: &str,
        keeper: Keeper,
        programs: &[(&str, Slot)],
        mode: Mode,
    ) -> u32 {
        let members = programs
            .iter()
            .map(|(name, slot)| Member { name: (*name).into(), id: self.load(name), slot: *slot, own: false })
            .collect();
        let id = self.load(NAME);
        self.dispatchers.insert(id, Dispatcher { keeper, frags: false, members });
        self.device(device).xdp = Some(AttachedXdp { program_id: id, mode });
        id
    }

    /// Makes somebody else's program part of a device's dispatcher, as its loader does.
    ///
    /// # Panics
    /// It has none.
    pub fn join_dispatcher(&mut self, device: &str, name: &str, slot: Slot) {
        let (ifindex, mut members) = self.members_on(device);
        let member = Member { name: name.into(), id: self.load(name), slot, own: false };
        members.insert(place(&members, &member), member);
        self.put_dispatcher(ifindex, members, None);
    }

    /// Takes all programs of a name out of a device's dispatcher, as an unloader does.
    ///
    /// # Panics
    /// It has none.
    pub fn leave_dispatcher(&mut self, device: &str, name: &str) {
        let (ifindex, mut members) = self.members_on(device);
        members.retain(|member| member.name != name);
        self.put_dispatcher(ifindex, members, None);
    }

    fn members_on(&self, device: &str) -> (u32, Vec<Member>) {
        let (ifindex, device) = self.namespaces[0]
            .devices
            .iter()
            .find(|(_, one)| &*one.name == device)
            .expect("there is such a device");
        let id = device.xdp.expect("it has a program").program_id;
        (*ifindex, self.dispatchers[&id].members.clone())
    }

    /// Puts a dispatcher with these members in the place of what a device has.
    fn put_dispatcher(&mut self, ifindex: u32, members: Vec<Member>, mode: Option<Mode>) {
        let old = self.namespaces[0].devices.get(&ifindex).and_then(|device| device.xdp);
        if let Some(old) = old {
            self.dispatchers.remove(&old.program_id);
            self.programs.remove(&old.program_id);
        }
        let mode = old.map(|old| old.mode).or(mode).unwrap_or_default();
        let mut xdp = None;
        if !members.is_empty() {
            let id = self.load(NAME);
            let frags = members.iter().all(|member| member.slot.frags);
            self.dispatchers.insert(id, Dispatcher { keeper: Keeper::Libxdp, frags, members });
            xdp = Some(AttachedXdp { program_id: id, mode });
        }
        if let Some(device) = self.namespaces[0].devices.get_mut(&ifindex) {
            device.xdp = xdp;
        }
    }

    /// The device that runs a dispatcher with a program, and the dispatcher's id.
    fn place_of(&self, program_id: u32) -> Option<(u32, u32)> {
        self.namespaces[0].devices.iter().find_map(|(ifindex, device)| {
            let id = device.xdp?.program_id;
            let has = self.dispatchers.get(&id)?.members.iter().any(|member| member.id == program_id);
            has.then_some((*ifindex, id))
        })
    }

    pub(super) fn describe_dispatched(&self) -> impl Iterator<Item = (String, PinnedLink)> {
        self.dispatched.iter().map(|(name, part)| {
            let (ifindex, program_id) = self.place_of(part.program_id).unwrap_or_default();
            let program = self.pinned.iter().find(|(_, pinned)| **pinned == part.made_from);
            let program = program.map(|(program, _)| *program);
            (name.clone(), PinnedLink { ifindex, program_id, program, via: Via::Dispatcher })
        })
    }

    /// A dispatcher as it is told of: some of its members are mptm's own.
    pub(super) fn dispatcher_on(&self, ifindex: u32) -> Option<Dispatcher> {
        let id = self.namespaces[0].devices.get(&ifindex)?.xdp?.program_id;
        let mut dispatcher = self.dispatchers.get(&id)?.clone();
        for member in &mut dispatcher.members {
            member.own = self.dispatched.values().any(|part| part.program_id == member.id);
        }
        Some(dispatcher)
    }

    /// Loads a part of the build of a pinned program.
    fn load_part(&mut self, made_from: u32) -> Part {
        let name = self.programs.get(&made_from).cloned().unwrap_or_default();
        Part { program_id: self.load(&name), made_from }
    }

    /// Whether a program could join what a device has.
    pub(super) fn join(
        &mut self,
        name: &str,
        program: Program,
        ifindex: u32,
        mode: Mode,
    ) -> Result<(), KernelError> {
        let old = self.namespaces[0].devices.get(&ifindex).and_then(|device| device.xdp);
        let mut members = match old {
            None => Vec::new(),
            Some(old) => match self.dispatchers.get(&old.program_id) {
                Some(Dispatcher { keeper: Keeper::Libxdp, members, .. })
                    if old.mode == mode && members.len() < SLOTS =>
                {
                    members.clone()
                }
                _ => return Err(KernelError::plain(format!("{name} has another program of XDP"))),
            },
        };
        let part = self.load_part(self.pinned[&program]);
        let slot = Slot::OWN;
        let member = Member { name: program.name().into(), id: part.program_id, slot, own: false };
        members.insert(place(&members, &member), member);
        self.put_dispatcher(ifindex, members, Some(mode));
        self.dispatched.insert(name.to_owned(), part);
        Ok(())
    }

    /// Puts a part of the build of another pinned program in the place of one. False: it is in no dispatcher.
    pub(super) fn give_part(&mut self, name: &str, made_from: u32) -> bool {
        let Some(old) = self.dispatched.get(name).copied() else { return false };
        let Some((ifindex, id)) = self.place_of(old.program_id) else { return false };
        let mut members = self.dispatchers[&id].members.clone();
        let new = self.load_part(made_from);
        for member in members.iter_mut().filter(|member| member.id == old.program_id) {
            member.id = new.program_id;
        }
        self.put_dispatcher(ifindex, members, None);
        self.programs.remove(&old.program_id);
        self.dispatched.insert(name.to_owned(), new);
        true
    }

    /// Takes a part out of its dispatcher, and forgets it.
    pub(super) fn leave(&mut self, name: &str) {
        let Some(part) = self.dispatched.remove(name) else { return };
        if let Some((ifindex, id)) = self.place_of(part.program_id) {
            let mut members = self.dispatchers[&id].members.clone();
            members.retain(|member| member.id != part.program_id);
            self.put_dispatcher(ifindex, members, None);
        }
        self.programs.remove(&part.program_id);
    }
}

fn place(members: &[Member], new: &Member) -> usize {
    let others = members.iter().map(|member| (member.slot.priority, member.name.as_str()));
    dispatcher::place(others, new.slot.priority, &new.name)
}
