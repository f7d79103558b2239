//! What keeps rows from passing between two replicas of a table, as text, and what mends it.
//! What is known of it is gathered by `replicas`; what a node that is not reached needs is `crate::remedy`'s.

use cortex_core::{
    model::NodeName,
    replication::{Quarantined, RemoteReplica, Trouble},
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
    let because = |why: String, mend: String| Some(Obstacle { why, mend: Some(mend) });
    match &facts.link {
        Link::Down(error) => {
            let why = match error {
                Some(error) => format!("unreachable: {error}"),
                None => "unreachable".into(),
            };
            because(why, remedy::for_node(node.as_str(), facts.own, error.as_deref()))
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
        Link::Up => over_a_link(node, facts),
    }
}

fn over_a_link(node: &NodeName, facts: &ReplicaFacts<'_>) -> Option<Obstacle> {
    let of_rows = |replica: &RemoteReplica| of_rows(replica, node, facts);
    let own = facts.replica.and_then(of_rows).or_else(|| facts.directory.and_then(of_rows));
    let quarantined = facts.directory.and_then(|replica| of_quarantined(&replica.quarantined));
    join(own, quarantined)
}

/// What each side of a link has against the rows of the other.
fn of_rows(replica: &RemoteReplica, node: &NodeName, facts: &ReplicaFacts<'_>) -> Option<Obstacle> {
    let say = |what: &str, trouble: &Trouble, since: Option<u64>, at: &str| {
        let of_clocks = matches!(trouble, Trouble::Clock(_) | Trouble::Ahead(_));
        let lasted = since
            .filter(|_| of_clocks)
            .map(|since| format!("; so for {} s", facts.now_ms.saturating_sub(since) / 1000));
        let mend = mend(trouble, facts.table, at);
        let shown = mend.as_ref().map(|mend| format!("; {mend}")).unwrap_or_default();
        let why = format!("{what}: {trouble}{}{shown}", lasted.unwrap_or_default());
        Obstacle { why, mend }
    };
    let giving = replica.giving.as_ref().map(|trouble| {
        say("it does not take rows", trouble, replica.giving_since_ms, node.as_str())
    });
    let taking = replica
        .taking
        .as_ref()
        .map(|trouble| say("its rows are not taken", trouble, replica.taking_since_ms, facts.own));
    join(giving, taking)
}

/// Rows of the directory that are not believed: no waiting makes them so.
pub(super) fn of_quarantined(quarantined: &Quarantined) -> Option<Obstacle> {
    let why = quarantined.summary()?;
    let mend = "for the node that has written them, where the CA is: cortex mesh renew NODE; then on it: cortex mesh reload. Which rows: sudo cortex events";
    Some(Obstacle { why, mend: Some(mend.to_owned()) })
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
fn mend(trouble: &Trouble, table: &str, at: &str) -> Option<String> {
    match trouble {
        Trouble::Quota => Some(format!(
            "the owner of {table} may store no more on {at}: there, cortex usage, and limits.bytes_per_uid in cortex.toml(5)"
        )),
        Trouble::Storage => {
            Some(format!("the disk of {at} is full, or fails: there, cortex doctor"))
        }
        Trouble::Clock(_) | Trouble::Ahead(_) => {
            Some("on both: timedatectl set-ntp true".to_owned())
        }
        Trouble::Damaged => {
            Some(format!("where it is damaged: cortex events, cortex sync repair {table}"))
        }
        Trouble::Refused(_) => Some(format!(
            "on {at}: journalctl -u cortexd; both nodes should run the same version: cortexd --version"
        )),
        Trouble::Unreachable
        | Trouble::Scope
        | Trouble::Directory
        | Trouble::NotReady
        | Trouble::Stale => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What does not pass by itself has its command, and what does has none: then waiting is advised.
    #[test]
    fn every_trouble_is_either_mended_or_waited_for() {
        for (trouble, words, mended_by) in [
            (Trouble::Unreachable, "unreachable", None),
            (Trouble::Clock(90_000), "clock: its clock is 90 s ahead of", Some("timedatectl")),
            (Trouble::Ahead(90_000), "clock: timestamps of a clock that was", Some("timedatectl")),
            (Trouble::Scope, "scope", None),
            (Trouble::Directory, "waiting for the directory", None),
            (Trouble::NotReady, "not ready", None),
            (Trouble::Stale, "stale", None),
            (Trouble::Quota, "quota", Some("limits.bytes_per_uid")),
            (Trouble::Storage, "storage", Some("the disk of office is full")),
            (Trouble::Damaged, "a row at its source is damaged", Some("cortex sync repair notes")),
            (Trouble::Refused("too large".into()), "refused: too large", Some("journalctl")),
        ] {
            assert!(trouble.to_string().starts_with(words), "{trouble}");
            let mend = mend(&trouble, "notes", "office");
            let is_right = match (&mend, mended_by) {
                (Some(mend), Some(wanted)) => mend.contains(wanted),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            assert!(is_right, "{trouble}: {mend:?}");
        }
    }
}
