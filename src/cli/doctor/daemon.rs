//! The daemon behind the socket: it answers, it is of this version, and its disk keeps up.
//! What is at fault where it does not run is left to `units` and `configuration`.

use std::time::Duration;

use cortex_client::{Error, api};

use super::super::context::Context;
use super::super::failure::Failure;
use super::DaemonScope;
use super::finding::Finding;

const PING: &str = "ping";
const VERSION: &str = "version";
const COMMIT: &str = "commit";

/// A commit waits for one sync of the disk: a millisecond on flash, some ten on a turning disk. Half a
/// second is a disk that is overloaded or about to fail.
const SLOW_COMMIT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct DaemonFacts {
    whose: DaemonScope,
    own_version: &'static str,
    answer: Result<Status, Failure>,
}

/// What `status` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Status {
    version: String,
    disk_bytes: Option<u64>,
    /// None before the first commit.
    last_commit: Option<Duration>,
}

impl DaemonFacts {
    /// Whether the daemon answers on its socket.
    pub(super) fn answers(&self) -> bool {
        self.answer.is_ok()
    }

    /// Bytes of the database and its log, where the daemon reports them.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        self.answer.as_ref().ok().and_then(|status| status.disk_bytes)
    }
}

pub(super) fn gather(context: &Context, whose: DaemonScope) -> DaemonFacts {
    DaemonFacts { whose, own_version: env!("CARGO_PKG_VERSION"), answer: ask(context) }
}

fn ask(context: &Context) -> Result<Status, Failure> {
    let mut client = context.connect()?;
    let pong = client.call(&api::Ping {})?;
    if pong != "pong" {
        return Err(Error::Protocol(format!("ping is answered {pong}")).into());
    }
    let status = client.call(&api::Status {})?;
    let last_commit = Duration::from_micros(status.last_commit_us);
    Ok(Status {
        version: status.version,
        disk_bytes: Some(status.disk_bytes).filter(|bytes| *bytes > 0),
        last_commit: (status.commits > 0).then_some(last_commit),
    })
}

pub(super) fn check(facts: &DaemonFacts) -> Vec<Finding> {
    let status = match &facts.answer {
        Ok(status) => status,
        Err(Failure { message, hint, .. }) => {
            let hint = hint.as_deref().map(|hint| hint.strip_prefix("Start it: ").unwrap_or(hint));
            let mend = hint.unwrap_or(facts.whose.log_command());
            return vec![Finding::problem(PING, message, mend)];
        }
    };
    vec![
        Finding::ok(PING, "the daemon answers"),
        version(facts, status),
        commit(status.last_commit),
    ]
}

fn version(facts: &DaemonFacts, status: &Status) -> Finding {
    let (own, daemons) = (facts.own_version, &status.version);
    if daemons == own {
        return Finding::ok(VERSION, format!("cortex and cortexd are both {own}"));
    }
    let text = format!("cortex is {own}, the running cortexd is {daemons}");
    Finding::problem(VERSION, text, facts.whose.restart_command())
}

fn commit(last: Option<Duration>) -> Finding {
    match last {
        None => Finding::unchecked(COMMIT, "nothing has been written since the daemon's start"),
        Some(took) if took >= SLOW_COMMIT => Finding::problem(
            COMMIT,
            format!("the last commit took {} ms, the disk is slow", took.as_millis()),
            "journalctl -k -p warning; iostat -x 1",
        ),
        Some(took) => Finding::ok(COMMIT, format!("the last commit took {} us", took.as_micros())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::finding;
    use super::*;

    fn facts(status: Status) -> DaemonFacts {
        DaemonFacts { whose: DaemonScope::System, own_version: "1.2.3", answer: Ok(status) }
    }

    fn healthy() -> Status {
        Status {
            version: "1.2.3".into(),
            disk_bytes: Some(4096),
            last_commit: Some(Duration::from_micros(800)),
        }
    }

    #[test]
    fn a_daemon_of_this_version_on_a_quick_disk_is_well() {
        let found = check(&facts(healthy()));
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|finding| finding.status == finding::Status::Ok), "{found:?}");
    }

    #[test]
    fn no_answer_is_one_problem_with_the_hint_that_every_command_gives() {
        let error = Error::NotRunning { socket: PathBuf::from("/s") };
        let answer = Err(error.into());
        let found =
            check(&DaemonFacts { whose: DaemonScope::System, own_version: "1.2.3", answer });
        let [Finding { status: finding::Status::Problem, check: PING, text, mend: Some(mend) }] =
            found.as_slice()
        else {
            panic!("{found:?}");
        };
        assert!(text.contains("nothing listens on /s"), "{text}");
        assert!(mend.starts_with("systemctl start cortexd.socket"), "{mend}");
    }

    #[test]
    fn another_version_is_a_problem_that_a_restart_of_that_daemon_mends() {
        let another = || facts(Status { version: "1.2.2".into(), ..healthy() });
        let text = "cortex is 1.2.3, the running cortexd is 1.2.2";
        let expected = |mend| Finding::problem(VERSION, text, mend);
        assert_eq!(check(&another())[1], expected("systemctl restart cortexd"));
        let of_user = DaemonFacts { whose: DaemonScope::User, ..another() };
        assert_eq!(check(&of_user)[1], expected("end the running cortexd, and then: cortexd"));
    }

    #[test]
    fn a_commit_of_half_a_second_is_a_problem_and_none_at_all_is_unchecked() {
        let status = |last_commit| {
            check(&facts(Status { last_commit, ..healthy() })).pop().expect("a finding").status
        };
        assert_eq!(status(Some(SLOW_COMMIT)), finding::Status::Problem);
        assert_eq!(status(Some(SLOW_COMMIT - Duration::from_millis(1))), finding::Status::Ok);
        assert_eq!(status(None), finding::Status::Unchecked);
    }
}
