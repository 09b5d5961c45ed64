//! The bpf(2) calls that libbpf-rs has no safe form of.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

use crate::config::model::Mode;

/// uapi linux/if_link.h: XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE, XDP_FLAGS_HW_MODE.
fn mode_flag(mode: Mode) -> u32 {
    match mode {
        Mode::Generic => 1 << 1,
        Mode::Native => 1 << 2,
        Mode::Offload => 1 << 3,
    }
}

fn check(code: i32) -> io::Result<i32> {
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(code) }
}

/// BPF_LINK_CREATE for XDP. libbpf's own attach takes no mode, and would let the kernel choose one.
pub fn create_xdp_link(program: impl AsFd, ifindex: u32, mode: Mode) -> io::Result<OwnedFd> {
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        flags: mode_flag(mode),
        ..Default::default()
    };
    create_link(program, ifindex, libbpf_sys::BPF_XDP, &opts)
}

/// BPF_LINK_CREATE for tc, before all that is there already.
pub fn create_tcx_link(program: impl AsFd, ifindex: u32) -> io::Result<OwnedFd> {
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        flags: libbpf_sys::BPF_F_BEFORE,
        ..Default::default()
    };
    create_link(program, ifindex, libbpf_sys::BPF_TCX_INGRESS, &opts)
}

fn create_link(
    program: impl AsFd,
    ifindex: u32,
    kind: libbpf_sys::bpf_attach_type,
    opts: &libbpf_sys::bpf_link_create_opts,
) -> io::Result<OwnedFd> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `opts` is initialised, says its size, and outlives the call; the descriptor is open.
    let fd = check(unsafe { libbpf_sys::bpf_link_create(program.as_fd().as_raw_fd(), ifindex, kind, opts) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// BPF_LINK_UPDATE: swaps the program of a link.
pub fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    // SAFETY: both descriptors are open; null options are allowed.
    check(unsafe {
        libbpf_sys::bpf_link_update(link.as_fd().as_raw_fd(), program.as_fd().as_raw_fd(), std::ptr::null())
    })
    .map(drop)
}

/// BPF_OBJ_PIN.
pub fn pin(object: impl AsFd, path: &std::path::Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the descriptor is open and the path is a C string that outlives the call.
    check(unsafe { libbpf_sys::bpf_obj_pin(object.as_fd().as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// Whether the kernel has a helper for XDP programs; None: it can't be told.
pub fn has_xdp_helper(helper: libbpf_sys::bpf_func_id) -> Option<bool> {
    // SAFETY: a plain call; null options are required.
    match unsafe {
        libbpf_sys::libbpf_probe_bpf_helper(libbpf_sys::BPF_PROG_TYPE_XDP, helper, std::ptr::null())
    } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// What BPF_PROG_TEST_RUN gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// enum xdp_action.
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// BPF_PROG_TEST_RUN, once: `frame` comes in by device `ifindex` of the caller's network namespace, receive queue 0.
pub fn test_run(program: impl AsFd, frame: &[u8], ifindex: u32) -> io::Result<TestRun> {
    let context = libbpf_sys::xdp_md {
        data: 0,
        data_end: u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        ingress_ifindex: ifindex,
        ..Default::default()
    };
    let mut out = vec![0; frame.len() + 512];
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: context.data_end,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: size_of_val(&context) as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the pointers are to live buffers of the sizes that stand beside them.
    check(unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut opts) })?;
    out.truncate(opts.data_size_out as usize);
    Ok(TestRun { action: opts.retval, frame: out })
}

/// BPF_MAP_LOOKUP_BATCH: hands over every entry of a hash, a trie or an array. libbpf-rs's own iterator takes a batch that is not
/// full for the last one, which it need not be: the kernel copies a hash bucket by bucket.
pub fn each_entry(
    map: impl AsFd,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut room = BATCH;
    let mut keys = vec![0; room * key_size];
    let mut values = vec![0; room * value_size];
    // Where to go on: a bucket's number for a hash, a key for a trie.
    let mut from: Option<Vec<u8>> = None;
    loop {
        let mut next = vec![0; key_size.max(4)];
        let mut count = u32::try_from(room).unwrap_or(u32::MAX);
        let opts = batch_opts();
        let at = from.as_mut().map_or(std::ptr::null_mut(), Vec::as_mut_ptr);
        // SAFETY: `keys` and `values` have room for `count` entries, `next` and `at` for a key or a bucket's number.
        let result = check(unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                at.cast(),
                next.as_mut_ptr().cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                &raw const opts,
            )
        });
        let last = match result {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::EINTR | libc::EAGAIN) => continue,
                // A bucket has more entries than that.
                Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room * key_size, 0);
                    values.resize(room * value_size, 0);
                    continue;
                }
                _ => return Err(error),
            },
        };
        let filled = count as usize;
        keys.chunks_exact(key_size)
            .zip(values.chunks_exact(value_size))
            .take(filled)
            .for_each(|(key, value)| each(key, value));
        if last {
            return Ok(());
        }
        from = Some(next);
    }
}

/// How many entries one call asks for at first.
pub const BATCH: usize = 4096;

/// BPF_MAP_UPDATE_BATCH, of any number of entries, whose keys and values lie one after the other. An error comes with the
/// number of entries that were written before it.
pub fn update_batch(
    map: impl AsFd,
    keys: &[u8],
    values: &[u8],
    total: usize,
) -> Result<(), (usize, io::Error)> {
    let (key_size, value_size) = (keys.len() / total.max(1), values.len() / total.max(1));
    in_batches(total, |from, count| {
        let opts = batch_opts();
        // SAFETY: behind both pointers are at least `count` keys and values of the sizes that the map has.
        check(unsafe {
            libbpf_sys::bpf_map_update_batch(
                map.as_fd().as_raw_fd(),
                keys[from * key_size..].as_ptr().cast(),
                values[from * value_size..].as_ptr().cast(),
                count,
                &raw const opts,
            )
        })
    })
}

/// BPF_MAP_DELETE_BATCH, in the same way. Entries that are not there are passed over.
pub fn delete_batch(map: impl AsFd, keys: &[u8], total: usize) -> Result<(), (usize, io::Error)> {
    let key_size = keys.len() / total.max(1);
    let mut from = 0;
    loop {
        let deleted = in_batches(total - from, |at, count| {
            let opts = batch_opts();
            // SAFETY: behind the pointer are at least `count` keys of the size that the map has.
            check(unsafe {
                libbpf_sys::bpf_map_delete_batch(
                    map.as_fd().as_raw_fd(),
                    keys[(from + at) * key_size..].as_ptr().cast(),
                    count,
                    &raw const opts,
                )
            })
        });
        match deleted {
            Ok(()) => return Ok(()),
            Err((done, error)) if error.raw_os_error() == Some(libc::ENOENT) => from += done + 1,
            Err((done, error)) => return Err((from + done, error)),
        }
    }
}

fn batch_opts() -> libbpf_sys::bpf_map_batch_opts {
    libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as _,
        ..Default::default()
    }
}

/// The kernel's answer to a batch that such a map has none of; its own number, ENOTSUPP, which libc does not know.
const NOT_SUPPORTED: i32 = 524;

/// Calls `call` with where to begin and how many to do, which becomes how many were done, until all are.
fn in_batches(
    total: usize,
    mut call: impl FnMut(usize, &mut u32) -> io::Result<i32>,
) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < total {
        let mut count = (total - done).min(BATCH) as u32;
        match call(done, &mut count) {
            Ok(_) => done += count as usize,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // Nothing was counted.
            Err(error) if error.raw_os_error() == Some(NOT_SUPPORTED) => return Err((done, error)),
            Err(error) => return Err((done + count as usize, error)),
        }
    }
    Ok(())
}
