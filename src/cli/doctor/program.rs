//! Runs another program and waits for what it says, with a bound on the wait.
//! Leaves the meaning of its words to the areas.

use std::io;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than any of these programs takes on a healthy machine: one that asks a message bus which
/// does not answer waits 25 s.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is not installed.
    Absent,
    /// It could not be run, or did not end in time.
    Failed(String),
    Ended {
        success: bool,
        stdout: String,
        stderr: String,
    },
}

/// Runs `command` to its end.
pub(super) fn ask(command: &mut Command) -> Answer {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Answer::Absent,
        Err(error) => return Answer::Failed(format!("{name}: {error}")),
    };
    // Its number stays its own until the thread has waited for it.
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let (ended, outcome) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let _nobody_waits = ended.send(child.wait_with_output());
    });
    match outcome.recv_timeout(TIME_LIMIT) {
        Ok(output) => {
            let _ended = waiting.join();
            match output {
                Ok(output) => ended_with(&output),
                Err(error) => Answer::Failed(format!("{name}: {error}")),
            }
        }
        Err(_) => {
            let _ended_by_itself = pid.map(|pid| kill(pid, Signal::SIGKILL));
            Answer::Failed(format!("{name} gave no answer within {} s", TIME_LIMIT.as_secs()))
        }
    }
}

fn ended_with(output: &Output) -> Answer {
    Answer::Ended {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_absent_or_says_something() {
        assert_eq!(ask(&mut Command::new("no-such-program-of-cortex")), Answer::Absent);
        let answer = ask(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let Answer::Ended { success: false, stdout, stderr } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
    }
}
