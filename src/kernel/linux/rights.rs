//! What the process may do.

use std::fs;

use super::pins::RIGHTS;
use crate::kernel::KernelError;

/// uapi linux/capability.h: CAP_NET_ADMIN.
const NET_ADMIN: u32 = 12;

/// Says at once that there are no rights to change anything, before the first of many refusals does.
///
/// # Errors
/// The calling thread has no CAP_NET_ADMIN.
pub fn require_rights(to_do: &str) -> Result<(), KernelError> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status) {
        Some(capabilities) if capabilities & 1 << NET_ADMIN == 0 => {
            Err(KernelError::plain(format!("no rights to {to_do}: CAP_NET_ADMIN is missing")).hint(RIGHTS))
        }
        // Where it can't be told, the kernel will.
        _ => Ok(()),
    }
}

/// The effective capabilities in proc_pid_status(5), as bits.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn capabilities() {
        assert_eq!(effective("CapPrm:\t01\nCapEff:\t0000000000001000\nCapBnd:\t02\n"), Some(1 << 12));
        assert_eq!(effective("CapEff:\t\n"), None);
        assert_eq!(effective(""), None);
    }
}
