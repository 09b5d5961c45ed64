//! What systemd wants to know of a service: sd_notify(3). Without systemd, all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Service {
    watchdog: Option<Duration>,
}

impl Service {
    /// As the environment tells.
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often it wants a sign of life: twice as often as it would lose patience.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 2)
    }

    /// A sign of life.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Started, or done with reloading.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// For `systemctl status`.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// Reloading, as asked to (Type=notify-reload); `ready` has to follow.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// About to end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to end; it will show by itself what it missed.
    let _ = sd_notify::notify(states);
}
