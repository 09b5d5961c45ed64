//! The command line of mptm: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    mptm::cli::main()
}
