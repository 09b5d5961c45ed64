//! What the benches share: how long they run, medians and percentiles, tables.

pub mod stats;
pub mod table;

/// Whether only what is needed to see that a bench runs, and counts right, is asked for: MPTM_BENCH=short.
pub fn is_short() -> bool {
    std::env::var_os("MPTM_BENCH").is_some_and(|value| value == "short")
}

/// Cargo's own arguments aside: only what has one of these words in its name is to be run. None: all of it.
#[allow(dead_code, reason = "not all benches have rows to choose")]
pub fn is_wanted(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    words.peek().is_none() || words.any(|word| name.contains(&word))
}
