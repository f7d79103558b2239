//! The real `cortex` binary: running it, and what it printed.
//! Leaves whom it talks to to `fake_daemon` and `daemon`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The tool, in an environment in which it finds no daemon by itself.
pub(crate) fn cortex() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
    for variable in ["CORTEX_SOCKET", "CORTEX_DATA_DIR", "XDG_RUNTIME_DIR", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn cortex_at(socket: &Path) -> Command {
    let mut command = cortex();
    command.arg("--socket").arg(socket);
    command
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("cortex runs")
}

pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cortex runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // It may stop reading before the end.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("cortex ends");
    writer.join().expect("the writer ends");
    output
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

pub(crate) fn check_exit(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "stderr: {}", stderr(output));
}
