//! `cortex-top`: the place of the live dashboard, which is not built yet.
//! Until it is, it says so and fails, so that nobody takes it for a dashboard with nothing to show.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

/// The live dashboard of cortexd. This version has none; the figures: cortex status
#[derive(Debug, Parser)]
#[command(name = "cortex-top", version, about)]
struct Args {}

fn main() -> ExitCode {
    let Args {} = Args::parse();
    let message = "error: this version has no dashboard\nhint: The figures that it will show: cortex status\n";
    // Nobody to tell is no reason to panic; the exit status says it too.
    let _unread = io::stderr().write_all(message.as_bytes());
    ExitCode::FAILURE
}
