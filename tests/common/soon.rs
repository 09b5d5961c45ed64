//! Waiting for what takes its time.

use std::thread;
use std::time::{Duration, Instant};

/// Whether `condition` holds within 5 seconds.
pub fn soon(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
