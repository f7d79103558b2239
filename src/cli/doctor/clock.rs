//! The clock: not before this program was made, and kept right by somebody.
//! Changes are ordered by it, between machines above all.

use std::path::Path;
use std::process::Command;

use super::finding::Finding;
use super::program::{Answer, ask};
use crate::sys::clock;

const TIME: &str = "clock";
const SYNCHRONISED: &str = "clock-sync";

/// There where the machine was booted with systemd (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// There where systemd was booted in a container, which has no clock of its own to keep.
const CONTAINER: &str = "/run/systemd/container";

/// 2026-11-01T00:00:00Z, before which no version of this program existed. A build that says when its source
/// was committed (SOURCE_DATE_EPOCH) puts a later time in its place.
const FIRST_VERSION: u64 = 1_793_491_200;

#[derive(Debug)]
pub(super) struct ClockFacts {
    now_seconds: u64,
    made_seconds: u64,
    synchronised: Result<bool, String>,
}

pub(super) fn gather() -> ClockFacts {
    let committed = option_env!("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse().ok());
    ClockFacts {
        now_seconds: clock::wall_ms() / 1000,
        made_seconds: committed.unwrap_or(FIRST_VERSION),
        synchronised: ask_timedatectl(),
    }
}

fn ask_timedatectl() -> Result<bool, String> {
    if !Path::new(BOOTED).is_dir() {
        return Err("this machine was not booted with systemd".to_owned());
    }
    if Path::new(CONTAINER).exists() {
        return Err("the clock of a container is its host's to keep".to_owned());
    }
    let show = ["show", "--property=NTPSynchronized", "--value"];
    read(ask(Command::new("timedatectl").args(show)))
}

fn read(answer: Answer) -> Result<bool, String> {
    match answer {
        Answer::Absent => Err("timedatectl is not installed".to_owned()),
        Answer::Failed(why) => Err(why),
        Answer::Ended { success: true, stdout, .. } => match stdout.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => Err(format!("timedatectl says {other:?}")),
        },
        Answer::Ended { stderr, .. } => Err(stderr.trim().to_owned()),
    }
}

pub(super) fn check(facts: &ClockFacts) -> Vec<Finding> {
    vec![time(facts), synchronised(&facts.synchronised)]
}

fn time(facts: &ClockFacts) -> Finding {
    if facts.now_seconds >= facts.made_seconds {
        return Finding::ok(TIME, "the clock is later than this program");
    }
    Finding::problem(
        TIME,
        "the clock shows a time before this program was made",
        "timedatectl set-ntp true, or: timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
    )
}

fn synchronised(synchronised: &Result<bool, String>) -> Finding {
    match synchronised {
        Ok(true) => Finding::ok(SYNCHRONISED, "the clock is synchronised"),
        Ok(false) => Finding::problem(
            SYNCHRONISED,
            "nobody keeps the clock right",
            "timedatectl set-ntp true; timedatectl status",
        ),
        Err(why) => Finding::unchecked(SYNCHRONISED, why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    fn statuses(now_seconds: u64, synchronised: Result<bool, String>) -> [Status; 2] {
        let found = check(&ClockFacts { now_seconds, made_seconds: FIRST_VERSION, synchronised });
        [found[0].status, found[1].status]
    }

    #[test]
    fn a_clock_before_the_program_is_a_problem() {
        assert_eq!(statuses(FIRST_VERSION, Ok(true)), [Status::Ok, Status::Ok]);
        assert_eq!(statuses(FIRST_VERSION - 1, Ok(true)), [Status::Problem, Status::Ok]);
        assert_eq!(statuses(0, Ok(true)), [Status::Problem, Status::Ok]);
    }

    #[test]
    fn a_clock_that_nobody_keeps_is_a_problem_and_one_nobody_knows_of_is_unchecked() {
        assert_eq!(statuses(FIRST_VERSION, Ok(false))[1], Status::Problem);
        assert_eq!(statuses(FIRST_VERSION, Err("no systemd".into()))[1], Status::Unchecked);
    }

    #[test]
    fn what_timedatectl_says_is_read() {
        let said = |success, stdout: &str| {
            read(Answer::Ended { success, stdout: stdout.into(), stderr: "no bus\n".into() })
        };
        assert_eq!(said(true, "yes\n"), Ok(true));
        assert_eq!(said(true, "no\n"), Ok(false));
        assert_eq!(said(true, "\n"), Err("timedatectl says \"\"".into()));
        assert_eq!(said(false, ""), Err("no bus".into()));
    }
}
