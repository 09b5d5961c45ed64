//! One pass of `mptm watch`: what the file and the machine are now, and what the kernel lacks of it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::super::apply::carry_out;
use super::super::error::causes;
use super::super::rejected::{Fingerprint, Rejected};
use super::super::{CliError, Global, Kernel, count};
use crate::apply::ApplyError;
use crate::config::model::Config;
use crate::kernel::Network;
use crate::kernel::linux::{Event, Nsid};
use crate::plan::{Plan, Step, plan};
use crate::render;
use crate::resolve::{Partial, ResolveError, Subject, resolve_what_can_be};
use crate::state::{RemoteMac, State};
use crate::store::Live;
use crate::watch::files::Files;
use crate::watch::interest::Interest;
use crate::watch::log::{Level, Log};

/// How long another mptm may be at work before the pass is put off.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How often the links on the way to the file may change while it is read.
const READS: usize = 5;
/// How many objects are left out of one pass because the kernel refuses them.
const REFUSED: usize = 16;

/// A line to be said.
type Line = (Level, &'static str, String);

/// What is followed, and what of it was seen last.
pub struct Follower<'a> {
    global: &'a Global,
    log: Log,
    /// As of the last file that was right.
    config: Rc<Config>,
    /// What that was read from.
    fingerprint: Fingerprint,
    /// The last one that was in force.
    in_force: Rc<Config>,
    /// An unconfirmed apply has gone back from the file.
    rejected: bool,
    /// It is to be applied all the same.
    insists: bool,
    /// What is wrong with the file since.
    wrong: Option<String>,
    /// The file is another since the last pass that worked.
    is_new: bool,
    /// What the last pass wanted.
    desired: Option<State>,
    interest: Interest,
    own_nsid: Nsid,
    left_out: usize,
}

impl<'a> Follower<'a> {
    /// Reads the file.
    pub fn start(global: &'a Global, files: &mut Files, log: Log) -> Result<Self, CliError> {
        files.follow();
        let (config, fingerprint) = read(global)?;
        log.say(Level::Info, "start", &format!("watching {}: {}", global.config.display(), size(&config)));
        Ok(Self {
            global,
            log,
            config: Rc::new(config),
            fingerprint,
            in_force: Rc::default(),
            rejected: false,
            insists: false,
            wrong: None,
            is_new: true,
            desired: None,
            interest: Interest::default(),
            own_nsid: None,
            left_out: 0,
        })
    }

    /// Reads the file again; while it is wrong, the last one that was right counts. `is_told`: it was touched, so what is
    /// wrong is said even if it was said before.
    pub fn reload(&mut self, files: &mut Files, is_told: bool) {
        let mut loaded = self.load();
        for _ in 0..READS {
            if !files.follow() {
                break;
            }
            loaded = self.load();
        }
        match loaded {
            Ok((config, fingerprint)) => {
                if self.wrong.take().is_some() {
                    let file = self.global.config.display();
                    self.log.say(Level::Notice, "file", &format!("{file} is right again"));
                }
                if config != *self.config {
                    self.is_new = true;
                    self.config = Rc::new(config);
                }
                self.fingerprint = fingerprint;
            }
            Err(error) => {
                let text = error.text();
                if is_told || self.wrong.as_ref() != Some(&text) {
                    self.log.say(Level::Error, "file", &text);
                    self.log.say(Level::Warning, "file", "it is wrong: what was right before stays in force");
                }
                self.wrong = Some(text);
            }
        }
    }

    fn load(&self) -> Result<(Config, Fingerprint), CliError> {
        let (config, fingerprint) = read(self.global)?;
        // Whoever empties a file by accident should not lose the node that way.
        if config.is_empty() && !self.config.is_empty() {
            return Err(CliError::Other {
                what: format!("{} names no interface and no tunnel", self.global.config.display()),
                hint: Some("to take everything down, end watch, and then `mptm down`".into()),
            });
        }
        Ok((config, fingerprint))
    }

    /// Somebody wants the file applied, whatever has become of it before.
    pub fn insist(&mut self) {
        self.insists = true;
    }

    /// For the holder of the lock: from a file that an apply has gone back from, back to what was in force. True: and that
    /// was nothing.
    fn leaves_alone(&mut self, kernel: &Kernel, complaints: &mut Vec<Line>) -> Result<bool, CliError> {
        let rejected = Rejected::at(kernel)?;
        if std::mem::take(&mut self.insists) {
            rejected.clear();
        }
        self.rejected = rejected.exists() && rejected.is(&self.fingerprint);
        if !self.rejected {
            return Ok(false);
        }
        let file = self.global.config.display();
        let message = format!(
            "`mptm apply --confirm` has gone back from what {file} says: what was before stays in force until the file \
             changes, `mptm apply` applies it, or SIGHUP (systemctl reload) insists"
        );
        complaints.push((Level::Warning, "file", message));
        self.config = Rc::clone(&self.in_force);
        self.is_new = false;
        Ok(self.config.is_empty())
    }

    /// Looks at everything, and mends what is to be mended; a `full` pass also has the next hops confirmed. True: some of
    /// it did not work, and may with time.
    pub fn pass(&mut self, full: bool) -> bool {
        let (mut complaints, mut changes) = (Vec::new(), Vec::new());
        if self.config.is_empty() && !self.rejected {
            let file = self.global.config.display();
            let message = format!("{file} names no interface and no tunnel: nothing is done until it does");
            self.log.complain(vec![(Level::Warning, "file", message)]);
            return false;
        }
        let result = self.look_and_mend(full, &mut complaints, &mut changes);
        let is_open = match result {
            Ok(is_open) => is_open || self.left_out > 0,
            Err(error) => {
                complaints.push((Level::Error, "machine", error.text()));
                true
            }
        };
        // What is wrong comes first: it explains what was done.
        self.log.complain(complaints);
        changes.iter().for_each(|(level, topic, line)| self.log.say(*level, topic, line));
        is_open
    }

    /// True: a next hop has not answered yet.
    fn look_and_mend(
        &mut self,
        full: bool,
        complaints: &mut Vec<Line>,
        changes: &mut Vec<Line>,
    ) -> Result<bool, CliError> {
        // Nothing is kept from pass to pass: the pins may be others by now.
        let mut kernel = self.global.kernel()?;
        let _lock = kernel.net.lock(LOCK_WAIT, |_| {})?;
        self.own_nsid = kernel.net.own_nsid().unwrap_or_default();
        if self.leaves_alone(&kernel, complaints)? {
            return Ok(false);
        }
        let mut excluded = BTreeSet::new();
        loop {
            let mut live = kernel.read()?;
            let partial = resolve_what_can_be(&self.config, &kernel.bpf, &kernel.net, &live, &excluded)
                .map_err(CliError::Resolve)?;
            kernel.prepare(&partial.state, &live);
            self.interest = Interest::new(&self.config, &partial.devices, &partial.state);
            let plan = plan(&partial.state, &live.state);
            if full {
                // Only a hint to the kernel: what comes of it, its events tell.
                let _ = kernel.net.solicit(&Interest::next_hops(&partial.state));
            }
            match carry_out(&plan, &partial.state, &mut kernel, &mut live) {
                Err(CliError::Apply(error)) => {
                    let subject = subject(&plan, &error, &live).filter(|_| excluded.len() < REFUSED);
                    let Some(subject) = subject else { return Err(CliError::Apply(error)) };
                    complaints.push((Level::Error, "machine", CliError::Apply(error).text()));
                    excluded.insert(subject);
                }
                result => {
                    result?;
                    let mut tunnels = partial.state.tunnels.values();
                    let is_open = tunnels.any(|tunnel| tunnel.remote_mac == RemoteMac::Unresolved);
                    self.left_out = partial.left_out.len() + excluded.len();
                    self.settle(&plan, partial, complaints, changes);
                    return Ok(is_open);
                }
            }
        }
    }

    /// A pass has worked.
    fn settle(&mut self, plan: &Plan, partial: Partial, complaints: &mut Vec<Line>, changes: &mut Vec<Line>) {
        let (level, topic) = match &self.desired {
            None => (Level::Info, "start"),
            Some(_) if self.is_new => (Level::Info, "file"),
            // What should be is what should have been all the time: somebody else has changed what is.
            Some(before) if *before == partial.state => (Level::Notice, "drift"),
            Some(_) => (Level::Info, "machine"),
        };
        changes.extend(render::lines(plan).into_iter().map(|line| (level, topic, line)));
        complaints.extend(partial.left_out.iter().map(|error| (Level::Warning, "machine", left_out(error))));
        complaints.extend(partial.warnings.into_iter().map(|warning| (Level::Warning, "machine", warning)));
        self.is_new = false;
        self.in_force = Rc::clone(&self.config);
        self.desired = Some(partial.state);
    }

    /// Whether an event calls for a pass.
    pub fn wants(&self, event: &Event) -> bool {
        self.interest.wants(event)
    }

    /// The number that events of the managed namespace may bear.
    pub fn own_nsid(&self) -> Nsid {
        self.own_nsid
    }

    /// In one line, for the service manager.
    pub fn status(&self) -> String {
        let mut status = size(&self.config);
        if self.left_out > 0 {
            status += &format!(", {} left out", self.left_out);
        }
        if self.rejected {
            status += &format!(
                "; an apply has gone back from {}, what was before stays",
                self.global.config.display()
            );
        }
        if self.wrong.is_some() {
            status += &format!("; {} is wrong, what was right before stays", self.global.config.display());
        }
        status
    }

    /// Says that it ends.
    pub fn stop(&self) {
        self.log.say(Level::Info, "stop", "no longer watching; what is there goes on forwarding");
    }
}

fn read(global: &Global) -> Result<(Config, Fingerprint), CliError> {
    let loaded = global.load_trusted()?;
    Ok((loaded.config, Fingerprint::of(&loaded.sources)))
}

fn size(config: &Config) -> String {
    let interfaces = config.interfaces.len() + config.patterns.len();
    format!("{}, {}", count(interfaces, "interface"), count(config.tunnels.len(), "tunnel"))
}

fn left_out(error: &ResolveError) -> String {
    let because = causes(error).iter().fold(String::new(), |text, cause| text + ": " + cause);
    let at = error.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
    format!("{}{because}; left out until that has changed{at}", error.what)
}

/// What the kernel refused, if it is an interface that is not in use yet: the others need not wait for it.
fn subject(plan: &Plan, error: &ApplyError, live: &Live) -> Option<Subject> {
    let name = match plan.steps.get(error.index)? {
        Step::Link(name, _) | Step::Interface(name, _) => name.clone(),
        Step::Setting(key, _) => plan.steps.iter().find_map(|step| {
            let Step::Interface(name, change) = step else { return None };
            let peer = change.after()?.peer.as_ref();
            let is_own = key.netns.is_none() && *name == key.device;
            let is_peer = peer.is_some_and(|peer| peer.netns == key.netns && peer.name == key.device);
            (is_own || is_peer).then(|| name.clone())
        })?,
        _ => return None,
    };
    let is_new = !live.state.interfaces.contains_key(&name);
    (error.stuck.is_empty() && is_new).then_some(Subject::Interface(name))
}
