//! The daemon. Everything is in the library.

fn main() -> std::process::ExitCode {
    cortexd::daemon::main()
}
