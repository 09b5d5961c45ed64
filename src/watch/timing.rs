//! When to look again.

use std::time::{Duration, Instant};

/// After something went away, nothing may happen for so long: it may be about to come back.
pub const QUIET_GONE: Duration = Duration::from_millis(50);
/// After what is complete by itself, as a device that is there, or one of several files: others may belong to it.
pub const QUIET: Duration = Duration::from_millis(10);
/// After what is all that there is, as the only file, renamed into place: nothing can be missing, so nothing is waited for. If
/// it was but the first of many, what follows lies in the descriptors until the pass is over, and leads to another one.
pub const QUIET_WHOLE: Duration = Duration::ZERO;
/// But after so long it is looked at in any case.
const PATIENCE: Duration = Duration::from_millis(200);
/// When what failed is tried again for the first time; each further time takes twice as long.
const RETRY: Duration = Duration::from_millis(250);

/// The next look at things.
#[derive(Debug)]
pub struct Timing {
    interval: Duration,
    /// Since when an event waits, and until when.
    event: Option<(Instant, Instant)>,
    /// The next full pass, and the next attempt at what failed.
    full: Instant,
    /// So long after a pass as it took: in a storm of events, half of the time goes by in silence.
    rested: Instant,
    retry: Option<(Instant, Duration)>,
}

impl Timing {
    /// With a full pass every `interval`.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, event: None, full: now + interval, rested: now, retry: None }
    }

    /// Something has happened, and `quiet` is how long to wait for more.
    pub fn event(&mut self, now: Instant, quiet: Duration) {
        let first = self.event.map_or(now, |(first, _)| first);
        self.event = Some((first, (now + quiet).max(self.rested).min(first + PATIENCE)));
    }

    /// Don't wait.
    pub fn at_once(&mut self, now: Instant) {
        self.event = Some((now, now));
    }

    /// When to look.
    pub fn next(&self) -> Instant {
        let event = self.event.map(|(_, until)| until);
        let retry = self.retry.map(|(at, _)| at);
        [event, retry].into_iter().flatten().fold(self.full, Instant::min)
    }

    /// Whether it is time for a full pass.
    pub fn is_full(&self, now: Instant) -> bool {
        now >= self.full
    }

    /// A pass has begun at `begin` and ended at `now`, a full one or not; `failed`: it should be tried again.
    pub fn passed(&mut self, begin: Instant, now: Instant, was_full: bool, failed: bool) {
        self.rested = now + now.saturating_duration_since(begin);
        // What happened meanwhile is still to be heard of: it lies in the sockets.
        let by_event = self.event.take().is_some();
        if was_full {
            self.full = now + self.interval;
        }
        self.retry = failed.then(|| {
            let wait = match self.retry {
                Some((_, last)) if !by_event => (last * 2).min(self.interval),
                _ => RETRY.min(self.interval),
            };
            (now + wait, wait)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    #[test]
    fn quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut timing = Timing::new(INTERVAL, start);
        assert_eq!(timing.next(), start + INTERVAL);
        timing.event(start, QUIET_GONE);
        assert_eq!(timing.next(), start + QUIET_GONE);
        let step = Duration::from_millis(40);
        (1..20).for_each(|number| timing.event(start + step * number, QUIET_GONE));
        assert_eq!(timing.next(), start + PATIENCE);
        timing.passed(start + PATIENCE, start + PATIENCE, false, false);
        assert_eq!(timing.next(), start + INTERVAL, "the full pass is not put off");
        timing.passed(start + INTERVAL, start + INTERVAL, true, false);
        assert_eq!(timing.next(), start + 2 * INTERVAL);
        let work = Duration::from_millis(100);
        let now = start + INTERVAL + work;
        timing.passed(start + INTERVAL, now, false, false);
        timing.event(now, QUIET);
        assert_eq!(timing.next(), now + work, "as long as the last pass took");
        let later = start + 3 * work;
        let mut timing = Timing::new(INTERVAL, start);
        timing.passed(start, start + work, false, false);
        timing.event(later, QUIET_WHOLE);
        assert_eq!(timing.next(), later, "that was long ago");
    }

    #[test]
    fn a_burst_ends_in_a_pass_after_its_last_event() {
        let start = Instant::now();
        let mut timing = Timing::new(INTERVAL, start);
        let (mut now, work, step) = (start, Duration::from_millis(30), Duration::from_millis(7));
        let (mut passes, mut last) = (0, start);
        // What happens during a pass is heard of when it is over.
        for number in 0..100 {
            let at = start + step * number;
            now = now.max(at);
            timing.event(now, QUIET_WHOLE);
            if now >= timing.next() {
                timing.passed(now, now + work, false, false);
                (passes, last) = (passes + 1, now);
                now += work;
            }
        }
        assert!((5..30).contains(&passes), "{passes}");
        assert!(
            last >= start + step * 99 || timing.next() < start + INTERVAL,
            "the last one waits for nobody"
        );
    }

    #[test]
    fn what_failed_is_tried_again_and_ever_more_seldom() {
        let mut now = Instant::now();
        let mut timing = Timing::new(INTERVAL, now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            timing.passed(now, now, true, true);
            waits.push((timing.next() - now).as_millis());
            now = timing.next();
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        timing.event(now, QUIET);
        timing.passed(now, now, true, true);
        assert_eq!(timing.next(), now + RETRY, "an event begins anew");
        timing.passed(now, now, true, false);
        assert_eq!(timing.next(), now + INTERVAL);
    }
}
