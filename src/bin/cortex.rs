//! The command line tool.
//! Leaves everything to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cortexd::cli::main()
}
