//! What keeps rows from passing between two replicas of a table, as text, and what mends it.
//! What is known of it is gathered by `replicas`; what a node that is not reached needs is `crate::remedy`'s.

use cortex_core::{
    model::NodeName,
    replication::{InvalidRows, Quarantined, RemoteReplica, SyncProblem},
};

use super::replicas::{Link, ReplicaFacts};
use crate::remedy;

/// Why no rows pass between the replica here and another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// What `sync_status` says of it.
    pub(super) why: String,
    /// What an administrator does about it; none where it passes by itself.
    pub(super) mend: Option<String>,
}

/// What stands between the replica here and that on a node; none where nothing is known to.
pub(super) fn between(node: &NodeName, facts: &ReplicaFacts<'_>) -> Option<Obstacle> {
    of_link(node, &facts.link, facts.own).or_else(|| over_a_link(node, facts))
}

/// What is wrong with the link of the node `own` to another; none where there is one, and it is heard on.
pub(super) fn of_link(node: &NodeName, link: &Link, own: &str) -> Option<Obstacle> {
    let because = |why: String, mend: String| Some(Obstacle { why, mend: Some(mend) });
    match link {
        Link::Down(error) => {
            let why = match error {
                Some(error) => format!("unreachable: {error}"),
                None => "unreachable".into(),
            };
            because(why, remedy::for_node(node.as_str(), own, error.as_deref()))
        }
        Link::Silent(seconds) => because(
            format!("no heartbeat for {seconds} s"),
            format!(
                "if it lasts, see whether {node} runs, and the network to it: there, systemctl status cortexd; here, cortex mesh status"
            ),
        ),
        Link::Unknown => because(
            "unreachable: this node's settings do not name it".into(),
            format!("on {node}: cortex doctor"),
        ),
        Link::Up => None,
    }
}

fn over_a_link(node: &NodeName, facts: &ReplicaFacts<'_>) -> Option<Obstacle> {
    let of_rows = |replica: &RemoteReplica| of_rows(replica, node, facts);
    let own = facts.replica.and_then(of_rows).or_else(|| facts.directory.and_then(of_rows));
    let quarantined = facts.directory.and_then(|replica| of_quarantined(&replica.quarantined));
    let invalid = facts.replica.and_then(|replica| of_invalid(&replica.invalid, node, facts.table));
    join(join(own, quarantined), invalid)
}

/// What each side of a link has against the rows of the other.
fn of_rows(replica: &RemoteReplica, node: &NodeName, facts: &ReplicaFacts<'_>) -> Option<Obstacle> {
    let say = |what: &str, problem: &SyncProblem, since: Option<u64>, at: &str| {
        let of_clocks = matches!(problem, SyncProblem::Clock(_) | SyncProblem::Ahead(_));
        let lasted = since
            .filter(|_| of_clocks)
            .map(|since| format!("; so for {} s", facts.now_ms.saturating_sub(since) / 1000));
        let mend = mend(problem, facts.table, at);
        let shown = mend.as_ref().map(|mend| format!("; {mend}")).unwrap_or_default();
        let why = format!("{what}: {problem}{}{shown}", lasted.unwrap_or_default());
        Obstacle { why, mend }
    };
    let giving = replica.giving.as_ref().map(|problem| {
        say("it does not take rows", problem, replica.giving_since_ms, node.as_str())
    });
    let taking = replica
        .taking
        .as_ref()
        .map(|problem| say("its rows are not taken", problem, replica.taking_since_ms, facts.own));
    join(giving, taking)
}

/// Rows of the directory that are not believed: no waiting makes them so.
pub(super) fn of_quarantined(quarantined: &Quarantined) -> Option<Obstacle> {
    let why = quarantined.summary()?;
    let mend = "for the node that has written them, where the CA is: cortex mesh renew NODE; then on it: cortex mesh reload. Which rows: sudo cortex events";
    Some(Obstacle { why, mend: Some(mend.to_owned()) })
}

/// Rows that no client could have stored: who has them must be looked at, and they can be written or deleted anew.
fn of_invalid(rows: &InvalidRows, node: &NodeName, table: &str) -> Option<Obstacle> {
    let why = format!("left out: {}", rows.summary()?);
    let mend = format!(
        "see what {node} is and who has root there: cortex-mesh(7), A stolen machine; then write or delete the row: cortex put {table}, cortex delete {table}"
    );
    Some(Obstacle { why, mend: Some(mend) })
}

fn join(one: Option<Obstacle>, other: Option<Obstacle>) -> Option<Obstacle> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Obstacle {
            why: format!("{}; {}", one.why, other.why),
            mend: one.mend.or(other.mend),
        }),
        (one, other) => one.or(other),
    }
}

/// What an administrator does about rows that are not taken on a node.
fn mend(problem: &SyncProblem, table: &str, at: &str) -> Option<String> {
    match problem {
        SyncProblem::Quota => Some(format!(
            "the owner of {table} may store no more on {at}: there, cortex usage, and limits.bytes_per_uid in cortex.toml(5)"
        )),
        SyncProblem::Storage => {
            Some(format!("the disk of {at} is full, or fails: there, cortex doctor"))
        }
        SyncProblem::Clock(_) | SyncProblem::Ahead(_) => {
            Some("on both: timedatectl set-ntp true".to_owned())
        }
        SyncProblem::Damaged => {
            Some(format!("where it is damaged: cortex events, cortex sync repair {table}"))
        }
        SyncProblem::Refused(_) => Some(format!(
            "on {at}: journalctl -u cortexd; both nodes should run the same version: cortexd --version"
        )),
        SyncProblem::Unreachable
        | SyncProblem::Scope
        | SyncProblem::Directory
        | SyncProblem::NotReady
        | SyncProblem::Stale => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What does not pass by itself has its command, and what does has none: then waiting is advised.
    #[test]
    fn every_problem_is_either_mended_or_waited_for() {
        for (problem, words, mended_by) in [
            (SyncProblem::Unreachable, "unreachable", None),
            (SyncProblem::Clock(90_000), "clock: its clock is 90 s ahead of", Some("timedatectl")),
            (
                SyncProblem::Ahead(90_000),
                "clock: timestamps of a clock that was",
                Some("timedatectl"),
            ),
            (SyncProblem::Scope, "scope", None),
            (SyncProblem::Directory, "waiting for the directory", None),
            (SyncProblem::NotReady, "not ready", None),
            (SyncProblem::Stale, "stale", None),
            (SyncProblem::Quota, "quota", Some("limits.bytes_per_uid")),
            (SyncProblem::Storage, "storage", Some("the disk of office is full")),
            (
                SyncProblem::Damaged,
                "a row at its source is damaged",
                Some("cortex sync repair notes"),
            ),
            (SyncProblem::Refused("too large".into()), "refused: too large", Some("journalctl")),
        ] {
            assert!(problem.to_string().starts_with(words), "{problem}");
            let mend = mend(&problem, "notes", "office");
            let is_right = match (&mend, mended_by) {
                (Some(mend), Some(wanted)) => mend.contains(wanted),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            assert!(is_right, "{problem}: {mend:?}");
        }
    }
}
