//! What a dispatcher of libxdp is: the program of an interface that several programs share (xdp-tools,
//! lib/libxdp/protocol.org, versions 2 and 3; bpf/dispatcher.bpf.c is mptm's own).

use std::fmt;
use std::mem::offset_of;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::skeleton::dispatcher2;
use super::skeleton::dispatcher3::types::xdp_dispatcher_config;

/// What the dispatcher's function is called, whoever's it is.
pub const NAME: &str = "xdp_dispatcher";
/// How many programs it has room for.
pub const SLOTS: usize = 10;
/// A version of the protocol. Nobody adds to a dispatcher of another version than his own, so mptm speaks both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// xdp-tools 1.3 to 1.5.
    Two = 2,
    /// xdp-tools 1.6: dispatchers can be bound to a device.
    Three = 3,
}

/// Where mptm's programs stand among the others: libxdp's own default, as all its numbers from 0, the first, upwards.
pub const PRIORITY: u32 = 50;
/// `MAGIC` of a configuration.
const MAGIC: u8 = 236;
/// What a slot returns that no program has taken.
const NOBODY: u32 = 1 << 31;
/// uapi linux/bpf.h, as a bit: XDP_PASS. What mptm does not want, the next program gets.
const PASS: u32 = 1 << 2;
/// uapi linux/bpf.h: BPF_F_XDP_HAS_FRAGS.
pub const HAS_FRAGS: u32 = 1 << 5;

/// The only map of a dispatcher, in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    magic: u8,
    version: u8,
    count: u8,
    frags: u8,
    actions: [u32; SLOTS],
    priorities: [u32; SLOTS],
    flags: [u32; SLOTS],
    // From version 3 on.
    bound: u8,
    pad: [u8; 3],
}

const _: () = {
    assert!(size_of::<Config>() == size_of::<xdp_dispatcher_config>());
    assert!(offset_of!(Config, frags) == offset_of!(xdp_dispatcher_config, is_xdp_frags));
    assert!(offset_of!(Config, actions) == offset_of!(xdp_dispatcher_config, chain_call_actions));
    assert!(offset_of!(Config, priorities) == offset_of!(xdp_dispatcher_config, run_prios));
    assert!(offset_of!(Config, flags) == offset_of!(xdp_dispatcher_config, program_flags));
    assert!(offset_of!(Config, bound) == offset_of!(xdp_dispatcher_config, is_xdp_devbound));
    assert!(offset_of!(Config, bound) == size_of::<dispatcher2::types::xdp_dispatcher_config>());
};

/// A program of a dispatcher, as far as the dispatcher knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Lower ones run first.
    pub priority: u32,
    /// The verdicts, as bits, after which the next program runs.
    pub actions: u32,
    /// It takes frames of several buffers.
    pub frags: bool,
}

impl Slot {
    /// That of mptm's own programs.
    pub const OWN: Self = Self { priority: PRIORITY, actions: PASS, frags: true };
}

impl Config {
    /// That of a dispatcher for these programs, in this order, at most `SLOTS`.
    pub fn new(version: Version, slots: &[Slot]) -> Self {
        let mut config = Self {
            magic: MAGIC,
            version: version as u8,
            count: slots.len().min(SLOTS) as u8,
            frags: slots.iter().all(|slot| slot.frags).into(),
            ..Self::new_zeroed()
        };
        for (at, slot) in slots.iter().take(SLOTS).enumerate() {
            config.actions[at] = slot.actions | NOBODY;
            config.priorities[at] = slot.priority;
            config.flags[at] = if slot.frags { HAS_FRAGS } else { 0 };
        }
        config
    }

    /// From the value of the map.
    ///
    /// # Errors
    /// It is of another version of the protocol, or of none.
    pub fn read(bytes: &[u8]) -> Result<Self, Unknown> {
        let mut config = Self::new_zeroed();
        let size = match bytes {
            [MAGIC, 2, ..] => offset_of!(Self, bound),
            [MAGIC, 3, ..] => size_of::<Self>(),
            [MAGIC, version, ..] => return Err(Unknown::Version(*version)),
            // The first version: two arrays, and the count before them.
            _ if bytes.len() == 84 => return Err(Unknown::Version(1)),
            _ => return Err(Unknown::NoDispatcher),
        };
        if bytes.len() != size {
            return Err(Unknown::NoDispatcher);
        }
        config.as_mut_bytes()[..size].copy_from_slice(bytes);
        if usize::from(config.count) > SLOTS {
            return Err(Unknown::NoDispatcher);
        }
        Ok(config)
    }

    /// The value of the map.
    pub fn bytes(&self) -> &[u8] {
        match self.version() {
            Version::Two => &self.as_bytes()[..offset_of!(Self, bound)],
            Version::Three => self.as_bytes(),
        }
    }

    /// Of which version of the protocol it is.
    pub fn version(&self) -> Version {
        if self.version == 3 { Version::Three } else { Version::Two }
    }

    /// It works on one device only, and takes only programs that do, too.
    pub fn is_bound(&self) -> bool {
        self.bound != 0
    }

    /// Its programs, in the order in which they run.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        (0..usize::from(self.count)).map(|at| Slot {
            priority: self.priorities[at],
            actions: self.actions[at] & !NOBODY,
            frags: self.flags[at] & HAS_FRAGS != 0,
        })
    }

    /// Whether it takes frames of several buffers: all its programs do.
    pub fn frags(&self) -> bool {
        self.frags != 0
    }
}

/// Why it can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is of another version of the protocol.
    Version(u8),
    /// It is none.
    NoDispatcher,
}

/// Where a program comes among others, which are in order: after all that have its priority and a name that is not
/// greater.
pub fn place<'a>(others: impl Iterator<Item = (u32, &'a str)>, priority: u32, name: &str) -> usize {
    others.take_while(|other| *other <= (priority, name)).count()
}

/// What there is on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatcher {
    /// Whose it is.
    pub keeper: Keeper,
    /// It takes frames of several buffers.
    pub frags: bool,
    /// In the order in which they run.
    pub members: Vec<Member>,
}

impl Dispatcher {
    /// The programs that are not mptm's own.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.own)
    }
}

/// A program of a dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As the kernel has it: at most 15 bytes.
    pub name: String,
    /// Its id.
    pub id: u32,
    /// See `Slot`.
    pub slot: Slot,
    /// It is one of those that this mptm has pinned.
    pub own: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (priority {})", self.name, self.slot.priority)
    }
}

/// Whose a dispatcher is, and so whether others can join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// It is attached and pinned as libxdp's protocol says: whoever follows that can replace it.
    Libxdp,
    /// It is attached by a link, as bpfman does it: only the link's owner can replace it.
    Link {
        /// The link is bpfman's.
        bpfman: bool,
    },
    /// Its pins are gone, or somewhere else: its programs can't be taken over.
    Unpinned,
    /// It follows another version of the protocol.
    Version(u8),
    /// It is bound to its device, as mptm's programs are not.
    Bound,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: Slot = Slot { priority: 10, actions: PASS, frags: false };

    #[test]
    fn a_configuration_as_libxdp_reads_it() {
        let config = Config::new(Version::Two, &[FILTER, Slot::OWN]);
        let bytes = config.bytes();
        // As `bpftool map dump` shows that of xdp-tools 1.3.1.
        assert_eq!(bytes[..4], [236, 2, 2, 0]);
        assert_eq!(bytes[4..8], 0x8000_0004_u32.to_ne_bytes());
        assert_eq!(bytes[44..52], [10_u32.to_ne_bytes(), 50_u32.to_ne_bytes()].concat());
        assert_eq!(bytes[84..92], [0_u32.to_ne_bytes(), 32_u32.to_ne_bytes()].concat());
        assert_eq!(Config::read(bytes), Ok(config));
        assert_eq!(config.slots().collect::<Vec<_>>(), [FILTER, Slot::OWN]);
        assert!(!config.frags());
        let config = Config::new(Version::Three, &[Slot::OWN]);
        assert_eq!((config.bytes().len(), config.bytes()[1]), (128, 3));
        assert_eq!(Config::read(config.bytes()), Ok(config));
        assert!(config.frags() && !config.is_bound());
    }

    #[test]
    fn what_is_no_such_configuration() {
        let config = Config::new(Version::Two, &[FILTER]);
        let mut bytes = config.bytes().to_vec();
        bytes[1] = 4;
        assert_eq!(Config::read(&bytes), Err(Unknown::Version(4)));
        assert_eq!(Config::read(&[0; 84]), Err(Unknown::Version(1)));
        assert_eq!(Config::read(&config.bytes()[..120]), Err(Unknown::NoDispatcher));
        assert_eq!(Config::read(&[]), Err(Unknown::NoDispatcher));
        bytes[1..3].copy_from_slice(&[2, 11]);
        assert_eq!(Config::read(&bytes), Err(Unknown::NoDispatcher));
    }

    #[test]
    fn the_place_among_others() {
        let others = [(10, "xdpfilt_alw_all"), (50, "b"), (50, "x"), (60, "a")];
        let place = |priority, name| place(others.into_iter(), priority, name);
        assert_eq!(place(50, "mptm_encap"), 2);
        assert_eq!(place(50, "x"), 3, "what is there already goes before its like");
        assert_eq!(place(0, "z"), 0);
        assert_eq!(place(99, "z"), 4);
    }
}
