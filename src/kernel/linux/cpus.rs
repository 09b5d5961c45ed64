//! The CPUs of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::kernel::KernelError;

/// The CPUs in one of the lists of /sys/devices/system/cpu: numbers and ranges with commas between.
pub fn cpus(list: &str) -> Result<BTreeSet<u32>, KernelError> {
    let path = Path::new("/sys/devices/system/cpu").join(list);
    let what = || format!("cannot read the list of CPUs in {}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| KernelError::new(what(), error))?;
    parse_cpus(&text).ok_or_else(|| KernelError::plain(format!("{}: {text:?}", what())))
}

fn parse_cpus(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::parse_cpus;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_cpus("0\n"), Some([0].into()));
        assert_eq!(parse_cpus("0-2,5,7-8\n"), Some([0, 1, 2, 5, 7, 8].into()));
        assert_eq!(parse_cpus("0-x"), None);
    }
}
