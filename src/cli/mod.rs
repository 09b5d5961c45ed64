//! The commands: one file each, and what they share.

mod apply;
mod check;
mod confirm;
mod down;
mod dump;
mod error;
mod get;
mod guard;
mod maps;
mod monitor;
mod rejected;
mod saved;
mod status;
mod status_json;
mod table;
mod terminal;
mod watch;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::config::model::NetnsRef;
use crate::config::{self, Loaded};
use crate::kernel::abi::LAYOUT;
use crate::kernel::linux::{BpfDataPlane, LinuxNetwork, NetnsLock, enter_netns, require_rights};
use crate::state::State;
use crate::store::{self, Live};

pub use error::CliError;

/// A declarative reconciler for an XDP tunnel data plane.
///
/// The file names the interfaces and tunnels of a node; `mptm apply` makes the kernel match it. Programs, maps and
/// links are pinned, and go on forwarding when mptm has exited.
#[derive(Debug, Parser)]
#[command(name = "mptm", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, or nothing to do; 1 any error; with --detailed-exitcode, 2 changes are \
                          pending (--dry-run) or were made.";

#[derive(Debug, Args)]
struct Global {
    /// The configuration file; `-` reads standard input. Drop-ins lie beside it: /etc/mptm.d/*.toml
    #[arg(
        short,
        long,
        global = true,
        env = "MPTM_CONFIG",
        default_value = "/etc/mptm.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Where maps, programs and links are pinned, on a bpffs
    #[arg(long, global = true, env = "MPTM_PIN", default_value = "/sys/fs/bpf/mptm", value_name = "DIR")]
    pin: PathBuf,
    /// The network namespace to manage: a name as in `ip netns`, a path, or pid:N
    #[arg(short, long, global = true, value_name = "NETNS")]
    netns: Option<NetnsRef>,
    /// How long to wait for another mptm that is at work in the same network namespace
    #[arg(long, global = true, default_value_t = 60, value_name = "SECONDS")]
    wait: u32,
    /// Apply a file that others than root, you, and the user of sudo may write to
    #[arg(long, global = true)]
    allow_insecure_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the file and say everything that is wrong with it
    Check {
        /// Print it normalised, with the defaults written out
        #[arg(long)]
        print: bool,
    },
    /// Make the kernel match the file
    Apply(ApplyArgs),
    /// Apply the file, then follow it, its drop-ins, and the machine, and apply again whenever one of them changes
    ///
    /// Of the file it applies what can be: what is missing is left out, and comes when it comes. While the file is wrong,
    /// the last one that was right stays in force. SIGHUP applies at once; SIGTERM ends it, and what is there goes on
    /// forwarding.
    Watch(watch::WatchArgs),
    /// Tell an `apply --confirm` that waits that all is well
    Confirm,
    /// Show interfaces, tunnels, counters, and drift from the file
    Status {
        /// As JSON, with routes, settings and all counters
        #[arg(long)]
        json: bool,
    },
    /// Show the way of an inner pair of addresses, with its whole outer header
    Get {
        /// Inner source: the address of a workload of this node
        source: IpAddr,
        /// Inner destination
        destination: IpAddr,
        /// The segment of both
        #[arg(long, default_value = config::model::DEFAULT_SEGMENT)]
        segment: String,
    },
    /// Print the live state as a file that `apply` takes for nothing to do
    Dump,
    /// Print the packets of tunnels with `debug = true` as they happen, one line each, until interrupted
    Monitor {
        /// Stop after this many packets
        #[arg(long, value_name = "PACKETS")]
        count: Option<u64>,
    },
    /// Remove what mptm made, and put back the settings that it changed
    Down {
        /// Say what would be removed, and touch nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct ApplyArgs {
    /// Say what would change, and touch nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 2 when there are changes
    #[arg(long)]
    detailed_exitcode: bool,
    /// Go back to what was before after so many seconds, or when the terminal is gone, unless a key is pressed or `mptm
    /// confirm` is run
    #[arg(long, value_name = "SECONDS", conflicts_with = "dry_run", value_parser = clap::value_parser!(u32).range(1..))]
    confirm: Option<u32>,
    /// With --dry-run: write the plan into a file, for --plan
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    out: Option<PathBuf>,
    /// Carry out a plan that --out has written, and refuse it if anything else would be done now
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    plan: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Rust ignores SIGPIPE, and a print into `head` would then panic. Nothing is printed in the middle of a change.
    // SAFETY: no other thread is there yet, and the default action is no handler of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the terminal is gone, nothing is left to say.
            let _ = error.print();
            // clap's own code for errors, 2, would be that of changes.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            error.print();
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    if let Some(netns) = &cli.global.netns {
        enter_netns(netns)?;
    }
    match &cli.command {
        Command::Apply(ApplyArgs { dry_run: false, .. }) => require_rights("apply")?,
        Command::Watch(_) => require_rights("watch")?,
        Command::Down { dry_run: false } => require_rights("take anything down")?,
        Command::Confirm => require_rights("confirm")?,
        _ => {}
    }
    match &cli.command {
        Command::Check { print } => check::run(&cli.global, *print),
        Command::Apply(args) => apply::run(&cli.global, args),
        Command::Watch(args) => watch::run(&cli.global, args),
        Command::Confirm => confirm::run(&cli.global),
        Command::Status { json } => status::run(&cli.global, *json),
        Command::Get { source, destination, segment } => {
            get::run(&cli.global, *source, *destination, segment)
        }
        Command::Dump => dump::run(&cli.global),
        Command::Monitor { count } => monitor::run(&cli.global, *count),
        Command::Down { dry_run } => down::run(&cli.global, *dry_run),
    }
}

/// `1 tunnel`, `2 tunnels`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Writes to standard output, without colours where they don't belong.
fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| CliError::Other {
        what: format!("cannot write to standard output: {error}"),
        hint: None,
    })
}

impl Global {
    fn load(&self) -> Result<Loaded, CliError> {
        config::load(&self.config).map_err(CliError::Config)
    }

    /// For commands that do what the file says.
    fn load_trusted(&self) -> Result<Loaded, CliError> {
        if !self.allow_insecure_config {
            config::require_trusted(&self.config).map_err(CliError::Config)?;
        }
        self.load()
    }

    fn reads_stdin(&self) -> bool {
        self.config.as_os_str() == "-"
    }

    fn kernel(&self) -> Result<Kernel, CliError> {
        Ok(Kernel { bpf: BpfDataPlane::new(&self.pin), net: LinuxNetwork::new()? })
    }
}

/// Both halves of the real kernel.
struct Kernel {
    bpf: BpfDataPlane,
    net: LinuxNetwork,
}

impl Kernel {
    /// For commands that change something, before they read what is there.
    fn lock(&self, wait: u32) -> Result<NetnsLock, CliError> {
        let lock = self.net.lock(Duration::from_secs(wait.into()), |holder| {
            anstream::eprintln!("Waiting for {holder}, {wait} s at most.");
        });
        Ok(lock?)
    }

    /// For commands that will carry out a plan from one to the other: what takes long begins before there is one.
    fn prepare(&mut self, desired: &State, live: &Live) {
        if let (Some(data_plane), None) = (&desired.data_plane, &live.state.data_plane) {
            self.bpf.prepare(&data_plane.sizes);
        }
    }

    fn read(&self) -> Result<Live, CliError> {
        Ok(store::read(&self.bpf, &self.net)?)
    }

    /// What is there, for commands that say what there is: with an older mptm's maps, little would be known of it.
    fn read_current(&self, pin: &std::path::Path) -> Result<Live, CliError> {
        Self::current(self.read()?, pin)
    }

    fn current(live: Live, pin: &std::path::Path) -> Result<Live, CliError> {
        match live.state.data_plane {
            Some(data_plane) if data_plane.layout != LAYOUT => Err(CliError::Other {
                what: format!("the pins in {} are those of an older mptm", pin.display()),
                hint: Some(
                    "`mptm apply` takes them over, with the programs that run; `mptm down` removes them"
                        .into(),
                ),
            }),
            _ => Ok(live),
        }
    }

    /// What is there, for commands that make no sense without a data plane.
    fn read_existing(&self, pin: &std::path::Path) -> Result<Live, CliError> {
        let live = self.read_current(pin)?;
        if live.state.data_plane.is_none() {
            return Err(CliError::Other {
                what: format!("there is no data plane in {}", pin.display()),
                hint: Some("`mptm apply` makes one; --pin names another directory".into()),
            });
        }
        Ok(live)
    }
}
