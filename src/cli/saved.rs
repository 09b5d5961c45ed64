//! A plan as a file: what a dry run found, to be carried out later, and only if it still is what would be done.
//!
//! The file holds no steps to carry out, only how they read, and digests of what they came from: the texts of the
//! configuration, and the desired and the actual state. The same states make the same plan; with other ones it is refused.
//! So nobody who can write the file can make mptm do anything but what the configuration says.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CliError, Global, apply::Planned};
use crate::config::Loaded;
use crate::kernel::DataPlane as _;
use crate::kernel::linux::BpfDataPlane;
use crate::render;

/// The version of the format.
const VERSION: u32 = 1;
/// How many steps of a difference a person reads.
const SHOWN: usize = 20;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// Version and programs of the mptm that made it.
    mptm: String,
    config: PathBuf,
    pins: PathBuf,
    digests: Digests,
    /// As the dry run printed them.
    steps: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    config: String,
    desired: String,
    actual: String,
}

/// A plan from a file.
pub struct Saved {
    path: PathBuf,
    file: File,
}

impl Saved {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let cannot = |why: String| CliError::Other {
            what: format!("cannot read the plan {}: {why}", path.display()),
            hint: Some(again(path)),
        };
        let text = fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| cannot(format!("it is none: {error}")))?;
        // First, since another version may look different in everything else.
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(cannot(format!("it is of version {version}, and this mptm knows {VERSION}")));
            }
            None => return Err(cannot("it is none: it has no version".into())),
        }
        let file =
            serde_json::from_value(value).map_err(|error| cannot(format!("it is damaged: {error}")))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Refuses it unless it is what would be done now.
    pub fn check(&self, global: &Global, loaded: &Loaded, planned: &Planned) -> Result<(), CliError> {
        let now = describe(global, loaded, planned);
        let mut why = Vec::new();
        let mut differs = |differs: bool, what: String| {
            if differs {
                why.push(what)
            }
        };
        differs(now.mptm != self.file.mptm, format!("it was made by mptm {}", self.file.mptm));
        differs(now.pins != self.file.pins, format!("it is about the pins in {}", self.file.pins.display()));
        let (old, new) = (&self.file.digests, &now.digests);
        differs(
            new.config != old.config,
            format!("{} is not what {} was then", global.config.display(), self.file.config.display()),
        );
        differs(
            new.config == old.config && new.desired != old.desired,
            "the file means something else now: a device, an address, a route or a neighbour is another"
                .into(),
        );
        differs(new.actual != old.actual, "the kernel is not as it was".into());
        differs(
            why_not_seen(&now, &self.file),
            "its steps are not those that the same file makes now".into(),
        );
        if why.is_empty() {
            return Ok(());
        }
        let mut what = format!("the plan {} is out of date: {}", self.path.display(), why.join("; "));
        let mut lines: Vec<String> = Vec::new();
        let gone = self.file.steps.iter().filter(|step| !now.steps.contains(step));
        lines.extend(gone.map(|step| format!("\n  no longer: {step}")));
        let new = now.steps.iter().filter(|step| !self.file.steps.contains(step));
        lines.extend(new.map(|step| format!("\n  now:       {step}")));
        what.extend(lines.iter().take(SHOWN).map(String::as_str));
        if lines.len() > SHOWN {
            what += &format!("\n  and {} more", lines.len() - SHOWN);
        }
        Err(CliError::Other { what, hint: Some(again(&self.path)) })
    }
}

/// Whether only the steps differ: somebody has written to the file.
fn why_not_seen(now: &File, then: &File) -> bool {
    now.digests == then.digests && now.mptm == then.mptm && now.steps != then.steps
}

/// What to do with a plan that can't be carried out.
fn again(path: &Path) -> String {
    format!("make it again, and look at it: mptm apply --dry-run --out {}", path.display())
}

/// Writes a plan into a file, whole or not at all.
pub fn write(path: &Path, global: &Global, loaded: &Loaded, planned: &Planned) -> Result<(), CliError> {
    let cannot = |error: std::io::Error| CliError::Other {
        what: format!("cannot write the plan {}: {error}", path.display()),
        hint: None,
    };
    let mut text = serde_json::to_string_pretty(&describe(global, loaded, planned))
        .map_err(|error| cannot(error.into()))?;
    text.push('\n');
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let write = || {
        let mut file = fs::File::create_new(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        cannot(error)
    })
}

fn describe(global: &Global, loaded: &Loaded, planned: &Planned) -> File {
    let bpf = BpfDataPlane::new(&global.pin);
    let texts: Vec<&str> = loaded.sources.iter().map(|source| &*source.text).collect();
    File {
        version: VERSION,
        mptm: format!("{}, build {}", env!("CARGO_PKG_VERSION"), bpf.build()),
        config: global.config.clone(),
        pins: bpf.pin_dir().to_owned(),
        digests: Digests {
            config: digest(&texts),
            desired: digest(&planned.desired),
            actual: digest(&planned.live.state),
        },
        steps: planned.plan.steps.iter().map(render::step).collect(),
    }
}

/// Of all that a value says of itself: the same mptm only, which is compared, too, has to understand it.
fn digest(value: &impl std::fmt::Debug) -> String {
    Sha256::digest(format!("{value:?}")).iter().map(|byte| format!("{byte:02x}")).collect()
}
