//! The examples of cortex(1): their commands exist, and the first transcript is what really happens.
//! Examples of settings are checked with the settings.

use std::path::Path;
use std::process::Command;

use super::daemon::{Daemon, bare, in_dir};
use super::page::Page;

/// The uid that the transcript was made with.
const ITS_UID: &str = "1000";

/// One command of a transcript, and what it printed.
struct Step {
    command: String,
    output: String,
}

fn transcript(display: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in display.lines() {
        if let Some(command) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) {
            steps.push(Step { command: command.to_owned(), output: String::new() });
        } else if let Some(step) = steps.last_mut() {
            step.output.push_str(line);
            step.output.push('\n');
        }
    }
    steps
}

/// Splits as the shell does, up to the end of the first simple command.
fn shell_words(command: &str) -> Vec<String> {
    let simple = command.split(" | ").find(|part| part.contains("cortex ")).expect("one of cortex");
    let simple = &simple[simple.find("cortex ").expect("it is there")..];
    let script = format!("printf '%s\\n' {simple}");
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn every_command_in_the_examples_exists() {
    let mut count = 0;
    for display in Page::read("cortex.1").displays("EXAMPLES") {
        for step in transcript(&display).iter().filter(|step| step.command.contains("cortex ")) {
            let parsed = cortexd::cli::command().try_get_matches_from(shell_words(&step.command));
            assert!(parsed.is_ok(), "{}: {}", step.command, parsed.expect_err("it failed"));
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} commands were found");
}

/// holds V5
#[test]
fn the_first_transcript_is_what_really_happens() {
    let daemon = Daemon::start();
    let binaries = Path::new(env!("CARGO_BIN_EXE_cortex")).parent().expect("a directory");
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let own_uid = nix::unistd::geteuid().to_string();
    let display = Page::read("cortex.1").displays("EXAMPLES").into_iter().next().expect("one");
    for Step { command, output } in transcript(&display) {
        let mut shell = in_dir(bare("sh"), daemon.directory());
        let ran = shell.args(["-c", &command]).env("PATH", &path).output().expect("sh runs");
        let printed = String::from_utf8([ran.stdout, ran.stderr].concat()).expect("UTF-8");
        assert_eq!(printed, output.replace(ITS_UID, &own_uid), "{command}");
    }
}
