//! Waiting for what takes its time.

use std::thread;
use std::time::{Duration, Instant};

/// Whether `condition` holds within 30 seconds, which only a busy machine takes.
pub fn soon(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
