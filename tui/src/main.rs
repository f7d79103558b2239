//! `cortex-top`: the place of the live dashboard, which is not built yet.
//! Until it is, it says so and fails, so that nobody takes it for a dashboard with nothing to show.

use std::{
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let message = "error: the dashboard is not there yet\nhint: The figures that it will show: cortex status\n";
    // Nobody to tell is no reason to panic; the exit status says it too.
    let _unread = io::stderr().write_all(message.as_bytes());
    ExitCode::FAILURE
}
