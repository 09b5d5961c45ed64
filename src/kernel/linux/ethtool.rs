//! ethtool features by ioctl (uapi linux/ethtool.h), by their names.

use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use crate::kernel::Feature;

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// Far more than any kernel has.
const MOST_FEATURES: u32 = 4096;

/// Everything that a device's driver and the stack may do for it, by name.
pub(super) fn features(socket: &impl AsFd, device: &str) -> io::Result<BTreeMap<String, Feature>> {
    let names = names(socket, device)?;
    let blocks = blocks(socket, device, names.len())?;
    let mut features = BTreeMap::new();
    for (bit, name) in names.into_iter().enumerate() {
        if let Some(name) = name {
            features.insert(name, blocks[bit / 32].feature(bit));
        }
    }
    Ok(features)
}

/// One feature of a device.
pub(super) fn feature(socket: &impl AsFd, device: &str, name: &str) -> io::Result<Feature> {
    let (bit, count) = find(socket, device, name)?;
    Ok(blocks(socket, device, count)?[bit / 32].feature(bit))
}

/// Turns a feature on or off, and looks whether the device did it.
pub(super) fn set_feature(socket: &impl AsFd, device: &str, name: &str, on: bool) -> io::Result<()> {
    let (bit, count) = find(socket, device, name)?;
    let wished = blocks(socket, device, count)?[bit / 32].is_requested(bit);
    request(socket, device, (bit, count), on)?;
    let feature = blocks(socket, device, count)?[bit / 32].feature(bit);
    if feature.active == on {
        return Ok(());
    }
    // The wish would come true by itself later, when nobody counts on it any more.
    request(socket, device, (bit, count), wished)?;
    let kept = if feature.active { "on" } else { "off" };
    let why = if feature.changeable { "another feature or device needs it so" } else { "it is fixed" };
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("the device keeps it {kept}: {why}")))
}

/// 32 features: `struct ethtool_get_features_block`.
#[derive(Clone, Copy)]
struct Block {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

impl Block {
    fn feature(self, bit: usize) -> Feature {
        let mask = 1 << (bit % 32);
        Feature {
            active: self.active & mask != 0,
            changeable: self.available & !self.never_changed & mask != 0,
        }
    }

    fn is_requested(self, bit: usize) -> bool {
        self.requested & (1 << (bit % 32)) != 0
    }
}

/// ETHTOOL_GSSET_INFO and ETHTOOL_GSTRINGS: the name of each bit; some bits have none.
fn names(socket: &impl AsFd, device: &str) -> io::Result<Vec<Option<String>>> {
    // cmd, reserved, the mask of the sets asked for (64 bits in two words), the number of strings.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
    let mask = (1u64 << ETH_SS_FEATURES).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = mask;
    (info[2], info[3]) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    ioctl(socket, device, &mut info)?;
    let count = info[4];
    if count > MOST_FEATURES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{count} features")));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    // cmd, set, length, the strings. The kernel heeds no length given here, and writes as many as it has just said.
    let words = ETH_GSTRING_LEN / size_of::<u32>();
    let mut strings = vec![0; 3 + count as usize * words];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
    ioctl(socket, device, &mut strings)?;
    let name = |words: &[u32]| {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
    };
    Ok(strings[3..].chunks(words).map(name).collect())
}

/// The bit of a feature, and how many there are.
fn find(socket: &impl AsFd, device: &str, name: &str) -> io::Result<(usize, usize)> {
    let names = names(socket, device)?;
    match names.iter().position(|known| known.as_deref() == Some(name)) {
        Some(bit) => Ok((bit, names.len())),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no feature is called {name}"))),
    }
}

/// ETHTOOL_GFEATURES.
fn blocks(socket: &impl AsFd, device: &str, count: usize) -> io::Result<Vec<Block>> {
    let size = count.div_ceil(32);
    // cmd, the number of blocks, the blocks.
    let mut words = vec![0; 2 + size * 4];
    words[0] = ETHTOOL_GFEATURES;
    words[1] = size as u32;
    ioctl(socket, device, &mut words)?;
    let block = |words: &[u32]| Block {
        available: words[0],
        requested: words[1],
        active: words[2],
        never_changed: words[3],
    };
    Ok(words[2..].chunks_exact(4).map(block).collect())
}

/// ETHTOOL_SFEATURES. Success means that the kernel noted the wish, not that the device follows it.
fn request(socket: &impl AsFd, device: &str, (bit, count): (usize, usize), on: bool) -> io::Result<()> {
    let size = count.div_ceil(32);
    // cmd, the number of blocks, and for each which bits are meant and what they shall be.
    let mut words = vec![0; 2 + size * 2];
    words[0] = ETHTOOL_SFEATURES;
    words[1] = size as u32;
    let mask = 1 << (bit % 32);
    let block = 2 + bit / 32 * 2;
    words[block] = mask;
    words[block + 1] = if on { mask } else { 0 };
    ioctl(socket, device, &mut words)
}

/// SIOCETHTOOL. `words` holds a whole command, with room for all that its counts promise.
fn ioctl(socket: &impl AsFd, device: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: all zeros is a valid ifreq: it has an array of characters and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte of the name stays zero.
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the descriptor is open; `request` and the words it points to live beyond the call, and the kernel
    // writes no further than the counts inside, for which the callers made room.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
