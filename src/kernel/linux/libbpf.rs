//! What libbpf says when it fails, and what that means.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Once;

use libbpf_rs::{PrintLevel, libbpf_sys};

use super::bpf_calls;
use super::pins::RIGHTS;
use crate::kernel::{KernelError, Map, Sizes};

/// The system's error below libbpf-rs's own, which gives it out in its text only.
pub fn cause(error: &libbpf_rs::Error) -> io::Error {
    let text = format!("{error:#}");
    let code = text.rsplit_once("(os error ").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    code.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error)
}

/// Why the kernel would not take the programs, or would not make maps of these sizes for them.
pub fn explain_load_failure(error: &libbpf_rs::Error, sizes: Option<&Sizes>) -> KernelError {
    let log = take_libbpf_log();
    let size = map_that_failed(&log).and_then(|map| Some((map, sizes?.of(map)?)));
    if let Some((map, size)) = size {
        let error =
            KernelError::new(format!("cannot make the map {} for {size} entries", map.name()), cause(error));
        return match error.source.as_ref().and_then(io::Error::raw_os_error) {
            Some(libc::EPERM) => error.hint(RIGHTS),
            Some(libc::EMFILE) => error.hint(OPEN_FILES),
            Some(libc::ENOMEM) => error.hint(NO_MEMORY),
            _ => error
                .hint("no map of this kernel can be so large: spread tunnels and routes over several nodes"),
        };
    }
    let error = KernelError::new("cannot load the BPF programs", cause(error));
    match error.source.as_ref().and_then(io::Error::raw_os_error) {
        Some(libc::EPERM) => return error.hint(RIGHTS),
        Some(libc::EMFILE) => return error.hint(OPEN_FILES),
        _ => {}
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return error
            .hint("this kernel tells nothing of its types (CONFIG_DEBUG_INFO_BTF), which mptm needs");
    }
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| "of unknown release".into(), |name| name.release().to_string_lossy().into_owned());
    // The youngest of what the programs call: Linux 5.18.
    if bpf_calls::has_xdp_helper(libbpf_sys::BPF_FUNC_xdp_store_bytes) == Some(false) {
        return error.hint(format!(
            "this kernel ({release}) has no multi-buffer XDP (bpf_xdp_store_bytes): mptm needs Linux 6.12 or later"
        ));
    }
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(12)..];
    error.hint(format!("kernel {release}; libbpf said:\n{}", tail.join("\n")))
}

/// Why the kernel would not take a program as a part of a dispatcher.
pub fn explain_part_failure(error: KernelError) -> KernelError {
    if bpf_calls::has_extensions() != Some(false) {
        return error;
    }
    error.hint(
        "this kernel takes no programs of type BPF_PROG_TYPE_EXT, which all parts of dispatchers are: leave out \
         `dispatcher = true`",
    )
}

/// What to do about ENOMEM.
pub const NO_MEMORY: &str = "there is not so much memory: see `free`, and memory.max of the cgroup; fewer tunnels or routes take less";
/// What to do about EMFILE.
const OPEN_FILES: &str = "it takes some 150 open files: see `ulimit -n`";

/// The map that libbpf could not make, if that is why it gave up.
fn map_that_failed(log: &str) -> Option<Map> {
    let line = log.lines().rev().find(|line| line.contains("failed to create"))?;
    Map::named(line.split('\'').nth(1)?)
}

thread_local! {
    /// Of each thread for itself: several may be loading.
    static LIBBPF_LOG: RefCell<String> = const { RefCell::new(String::new()) };
}

/// libbpf writes to standard error by itself: keep what it says for when it matters.
pub fn capture_libbpf() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| {
            LIBBPF_LOG.with_borrow_mut(|log| log.push_str(&text));
        })));
    });
}

/// What libbpf has said in this thread since the last time.
pub fn take_libbpf_log() -> String {
    LIBBPF_LOG.take()
}

#[cfg(test)]
mod tests {
    use libbpf_rs::ErrorExt;

    use super::*;

    #[test]
    fn causes_keep_their_numbers() {
        for code in [libc::E2BIG, libc::ENOSPC, libc::EMFILE, libc::EINVAL, libc::EPERM] {
            let error = libbpf_rs::Error::from_raw_os_error(code);
            assert_eq!(cause(&error).raw_os_error(), Some(code));
            assert_eq!(cause(&error.context("while loading (or so)")).raw_os_error(), Some(code));
        }
        let other = libbpf_rs::Error::from(io::Error::other("no number"));
        assert_eq!(cause(&other).to_string(), "no number");
    }
}
