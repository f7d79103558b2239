//! The command `completions`: a script that teaches a shell the commands and options.
//! Leaves its contents to `clap_complete`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failure::Failure;
use super::{Cli, output};

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    // Into memory first: the generator panics where the reader is gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cortex", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
