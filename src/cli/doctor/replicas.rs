//! Replicas of tables on other nodes: they hold the same, deletions are forgotten in time, names and scopes are decided.
//! Links, clocks and certificates are left to `mesh`; rows, to `sync repair`.

use cortex_client::{
    Client,
    api::{
        self, PeerReplica, ReplicaState, ScrubReport, ScrubRound, ScrubStatus, TableList,
        TableSync, TablesOptions,
    },
};

use super::super::context::Context;
use super::finding::Finding;
use crate::sys::clock;

const REPLICAS: &str = "replicas";
const DIVERGED: &str = "replicas-equal";
const VERIFIED: &str = "replicas-age";
const DELETIONS: &str = "deletions";
const SCOPE: &str = "scope";
const NAME: &str = "names";
const CONFLICTS: &str = "conflicts";
const BLOCKED: &str = "replicas-blocked";
const DRAINING: &str = "replicas-draining";
const ROWS: &str = "rows";
const ORPHANS: &str = "orphans";

/// A laptop is left alone over a week-end; what nobody has compared for longer, nobody knows to be good.
const UNVERIFIED_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A node that is silent for so long may not come back, and all the others remember every deletion for it.
const SILENT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

#[derive(Debug, Default)]
pub(super) struct ReplicaFacts {
    now_ms: u64,
    uptime_ms: u64,
    /// What the daemon says of each table; none where it says nothing, or runs alone.
    tables: Option<Vec<TableSync>>,
    /// How far the rows were compared with their checksums; none where the daemon does not say.
    scrub: Option<ScrubStatus>,
    /// What reading all of it has come to, where that was asked for.
    deep: Option<Finding>,
    /// Identities of which another has the name: how each is shown, and its id.
    contested: Vec<(String, String)>,
    /// Tables that belong to nobody, and that root of this machine decides about.
    orphans: Vec<String>,
}

pub(super) fn gather(context: &Context, deep: bool) -> ReplicaFacts {
    let mut facts = ReplicaFacts { now_ms: clock::wall_ms(), ..ReplicaFacts::default() };
    let Ok(mut client) = context.connect() else {
        return facts;
    };
    let daemon = client.call(&api::Status {}).unwrap_or_default();
    facts.scrub = daemon.scrub;
    facts.uptime_ms = daemon.uptime_seconds.saturating_mul(1000);
    if deep {
        facts.deep = Some(look_deep(context));
    }
    let Ok(tables) = client.call(&api::SyncStatus {}) else {
        return facts;
    };
    facts.tables = Some(tables);
    facts.contested = contested(&mut client);
    facts.orphans = orphans(&mut client);
    facts
}

/// Only root may ask for them.
fn orphans(client: &mut Client) -> Vec<String> {
    let options = TablesOptions { all: false, details: true };
    let Ok(TableList::Details(tables)) = client.call(&api::Tables { options }) else {
        return Vec::new();
    };
    tables.into_iter().filter(|table| table.orphaned).map(|table| table.table).collect()
}

/// Has the daemon read every row, and its database's structure.
fn look_deep(context: &Context) -> Finding {
    let read = || -> Result<ScrubReport, String> {
        let mut client = context.connect_patiently().map_err(|_| "no daemon answers".to_owned())?;
        client.call(&api::Scrub {}).map_err(|error| error.to_string())
    };
    let found = match read() {
        Ok(found) => found,
        Err(why) if why.contains("access_denied") => {
            return Finding::hidden(ROWS, "this user may not have the rows read");
        }
        Err(why) => return Finding::unchecked(ROWS, format!("the rows were not read: {why}")),
    };
    if let Some(broken) = found.structure {
        return Finding::problem(
            ROWS,
            format!("the structure of the database is damaged: {broken}"),
            "look at the disk: dmesg; then, on a copy of the directory: cortexd restore FILE",
        );
    }
    rows(found.round, true)
}

fn contested(client: &mut Client) -> Vec<(String, String)> {
    let Ok(identities) = client.call(&api::IdentityList {}) else {
        return Vec::new();
    };
    let contested = identities.into_iter().filter(|who| who.metadata.contested);
    contested.map(|who| (who.fed_id, who.fid)).collect()
}

pub(super) fn check(facts: &ReplicaFacts) -> Vec<Finding> {
    let rows = facts
        .deep
        .clone()
        .or_else(|| facts.scrub.map(|scrub| rows(scrub.round, scrub.ended_ms.is_some())));
    let Some(tables) = &facts.tables else {
        return rows.into_iter().collect(); // of the rest, `daemon` and `mesh` say why
    };
    let mut findings: Vec<Finding> =
        tables.iter().flat_map(|table| of_table(table, facts)).collect();
    findings.extend(facts.orphans.iter().map(|name| {
        Finding::warning(
            ORPHANS,
            format!("{name} belongs to nobody: nobody is its owner any more"),
            format!(
                "as root, to hand it over: cortex table chown {name} OWNER; or to clear it away: cortex drop {name}"
            ),
        )
    }));
    findings.extend(facts.contested.iter().map(|(shown, id)| {
        let name = shown.split('~').next().unwrap_or_default();
        Finding::warning(
            NAME,
            format!("another identity has the name of @{shown}: the bare name means neither"),
            format!(
                "as root, for the one that keeps it: cortex identity resolve {name} --keep {id}"
            ),
        )
    }));
    if findings.is_empty() {
        let text = match tables.len() {
            0 => "no table has replicas on other nodes".to_owned(),
            1 => "one table has replicas, and none that differs is known".to_owned(),
            more => format!("{more} tables have replicas, and none that differs is known"),
        };
        findings.push(Finding::ok(REPLICAS, text));
    }
    findings.extend(rows);
    findings
}

/// Whether the rows are what was stored, as far as they were read.
fn rows(round: ScrubRound, has_ended: bool) -> Finding {
    let ScrubRound { records, damaged, corrected, failed, .. } = round;
    if damaged > 0 {
        let are = if damaged == 1 { "row is" } else { "rows are" };
        return Finding::problem(
            ROWS,
            format!("{damaged} {are} damaged: not what was stored"),
            "which: sudo cortex events; where another node has them they are replaced, otherwise store them again, delete them, or restore a backup; and look at the disk: dmesg",
        );
    }
    if failed > 0 {
        return Finding::problem(
            ROWS,
            format!("{failed} tables could not be read"),
            "journalctl -u cortexd, dmesg; then restore a backup",
        );
    }
    if corrected > 0 {
        return Finding::warning(
            ROWS,
            format!("of {corrected} tables the rows were changed or lost outside of cortexd"),
            "which: sudo cortex events; then, of a table with replicas: cortex sync repair TABLE",
        );
    }
    if has_ended {
        Finding::ok(ROWS, format!("all {records} records are what was stored"))
    } else {
        Finding::unchecked(ROWS, "the rows are still being compared with their checksums")
    }
}

fn of_table(table: &TableSync, facts: &ReplicaFacts) -> Vec<Finding> {
    let name = &table.table;
    let mut findings = Vec::new();
    for node in table.nodes.iter().filter(|node| node.state == ReplicaState::Diverged) {
        findings.push(Finding::problem(
            DIVERGED,
            format!("{name} holds other rows on {} than here", node.node),
            format!("cortex sync repair {name}"),
        ));
    }
    let blocked = |node: &&PeerReplica| node.why.as_deref().is_some_and(is_blocked);
    for node in table.nodes.iter().filter(blocked) {
        let why = node.why.as_deref().unwrap_or_default();
        findings.push(Finding::problem(
            BLOCKED,
            format!("rows of {name} do not pass between this node and {}: {why}", node.node),
            format!("cortex explain {name} --node {}", node.node),
        ));
    }
    if let Some(why) = &table.here.drain_blocked {
        findings.push(Finding::warning(
            DRAINING,
            format!("{name} is to leave this machine, and cannot drain: {why}"),
            format!("cortex explain {name}"),
        ));
    }
    if table.contested {
        findings.push(Finding::problem(
            SCOPE,
            format!("decisions about the scope of {name} compete, and some nodes are frozen"),
            format!("cortex scope {name} SCOPE"),
        ));
    }
    findings.extend(unverified(table, facts));
    findings.extend(deletions(table, facts));
    if table.here.conflicts > 0 {
        findings.push(Finding::note(
            CONFLICTS,
            format!(
                "{} versions of records of {name} have lost against others",
                table.here.conflicts
            ),
            format!("cortex conflicts {name}"),
        ));
    }
    for node in &table.nodes {
        let (Some(count @ 1..), node) = (node.conflicts, &node.node) else {
            continue;
        };
        findings.push(Finding::note(
            CONFLICTS,
            format!("{count} versions of records of {name} have lost against others on {node}"),
            format!("on {node}: cortex conflicts"),
        ));
    }
    findings
}

/// True where it does not pass by itself: see what `cortex sync status` says.
fn is_blocked(why: &str) -> bool {
    let prefixes = ["it does not take rows: ", "its rows are not taken: "];
    let reasons = ["quota", "storage", "clock", "refused", "a row at its source"];
    let parts = why.split("; ");
    parts
        .filter_map(|part| prefixes.iter().find_map(|prefixes| part.strip_prefix(prefixes)))
        .any(|reason| reasons.iter().any(|known| reason.starts_with(known)))
}

/// A table that others should have, and of which nobody has had the same for long.
fn unverified(table: &TableSync, facts: &ReplicaFacts) -> Option<Finding> {
    let holders = || table.nodes.iter().filter(|node| node.state != ReplicaState::Left);
    let newest = holders().filter_map(|node| node.verified_ms).max();
    let age = match newest {
        Some(at) => facts.now_ms.saturating_sub(at),
        // What was found before the daemon started is not remembered.
        None => facts.uptime_ms,
    };
    let (name, days) = (&table.table, age / 86_400_000);
    (holders().next().is_some() && age > UNVERIFIED_MS).then(|| {
        Finding::warning(
            VERIFIED,
            format!("no other node was found to hold the same of {name} for {days} days"),
            format!("cortex sync status {name} --pretty"),
        )
    })
}

fn deletions(table: &TableSync, facts: &ReplicaFacts) -> Option<Finding> {
    let (name, by) = (&table.table, &table.deletions_kept_by.as_ref()?.node);
    let node = table.nodes.iter().find(|node| node.node == *by);
    let silent_ms = match node.and_then(|node| node.heard_ms) {
        Some(at) => facts.now_ms.saturating_sub(at),
        None => facts.uptime_ms,
    };
    (silent_ms > SILENT_MS).then(|| {
        let days = silent_ms / 86_400_000;
        Finding::warning(
            DELETIONS,
            format!("{by} is silent for {days} days, and every deletion in {name} is remembered for it"),
            format!(
                "start it; if it will not come back: cortex mesh remove-node {by}, or for this table: cortex scope {name} SCOPE --abandon {by}"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Status, the_problem};
    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;
    const NOW: u64 = 1000 * DAY;

    fn office(state: ReplicaState) -> PeerReplica {
        PeerReplica {
            node: "office".into(),
            state,
            conflicts: Some(0),
            verified_ms: Some(NOW - DAY),
            heard_ms: Some(NOW - DAY),
            ..PeerReplica::default()
        }
    }

    fn notes(node: PeerReplica) -> TableSync {
        TableSync { table: "@alice:notes".into(), nodes: vec![node], ..TableSync::default() }
    }

    fn of(table: TableSync) -> Vec<Finding> {
        let tables = Some(vec![table]);
        check(&ReplicaFacts { now_ms: NOW, uptime_ms: DAY, tables, ..ReplicaFacts::default() })
    }

    /// Of a table whose replicas are equal, but for this.
    fn with(change: impl FnOnce(&mut TableSync)) -> Vec<Finding> {
        let mut table = notes(office(ReplicaState::InSync));
        change(&mut table);
        of(table)
    }

    fn only(findings: &[Finding]) -> (&'static str, Status) {
        assert_eq!(findings.len(), 1, "{findings:?}");
        (findings[0].check, findings[0].status)
    }

    #[test]
    fn replicas_that_were_equal_lately_are_well() {
        assert_eq!(only(&of(notes(office(ReplicaState::InSync)))), (REPLICAS, Status::Ok));
        assert_eq!(only(&of(notes(office(ReplicaState::Behind)))), (REPLICAS, Status::Ok));
        let none = ReplicaFacts { now_ms: NOW, ..ReplicaFacts::default() };
        assert_eq!(check(&none), []);
    }

    #[test]
    fn rows_that_are_not_what_was_stored_are_a_problem() {
        let well = ScrubRound { records: 7, ..ScrubRound::default() };
        let status = |round| rows(round, true).status;
        assert_eq!(status(well), Status::Ok);
        assert_eq!(rows(well, false).status, Status::Unchecked);
        assert_eq!(status(ScrubRound { damaged: 1, ..well }), Status::Problem);
        assert_eq!(status(ScrubRound { failed: 1, ..well }), Status::Problem);
        assert_eq!(status(ScrubRound { corrected: 1, ..well }), Status::Warning);
    }

    #[test]
    fn a_node_that_rows_do_not_reach_until_somebody_acts_is_a_problem() {
        for (why, expected) in [
            (
                "its rows are not taken: clock: its clock is 90 s ahead of this machine's; so for 7 s; on both: x",
                BLOCKED,
            ),
            (
                "it does not take rows: quota; the owner of t may store no more on office: x",
                BLOCKED,
            ),
            ("it does not take rows: not ready", REPLICAS),
            ("rows are on their way", REPLICAS),
        ] {
            let node = PeerReplica { why: Some(why.into()), ..office(ReplicaState::Behind) };
            assert_eq!(only(&of(notes(node))).0, expected, "{why}");
        }
    }

    #[test]
    fn a_table_that_belongs_to_nobody_is_worth_a_warning_that_says_how_to_hand_it_over() {
        let orphans = vec!["@alice~3f2a:notes".to_owned()];
        let facts = ReplicaFacts {
            now_ms: NOW,
            tables: Some(Vec::new()),
            orphans,
            ..ReplicaFacts::default()
        };
        let found = check(&facts);
        let orphan = found.iter().find(|found| found.check == ORPHANS).expect("a finding");
        assert_eq!(orphan.status, Status::Warning);
        let hint = format!("{orphan:?}");
        assert!(hint.contains("cortex table chown @alice~3f2a:notes OWNER"), "{hint}");
    }

    #[test]
    fn a_replica_that_cannot_drain_is_worth_a_warning_that_says_where_it_is_explained() {
        let why = "no node of its scope is linked to this one: cortex explain @alice:notes";
        let found = with(|table| table.here.drain_blocked = Some(why.into()));
        assert_eq!(only(&found), (DRAINING, Status::Warning));
        assert_eq!(found[0].mend.as_deref(), Some("cortex explain @alice:notes"));
    }

    /// holds R5
    #[test]
    fn a_replica_that_has_diverged_is_a_problem_that_a_repair_mends() {
        let (check, mend) = the_problem(of(notes(office(ReplicaState::Diverged))));
        assert_eq!((check, mend.as_str()), (DIVERGED, "cortex sync repair @alice:notes"));
    }

    #[test]
    fn what_nobody_has_compared_for_a_week_is_worth_a_warning() {
        let old = PeerReplica { verified_ms: Some(NOW - 8 * DAY), ..office(ReplicaState::Unknown) };
        assert_eq!(only(&of(notes(old.clone()))), (VERIFIED, Status::Warning));
        let left = PeerReplica { state: ReplicaState::Left, ..old };
        assert_eq!(only(&of(notes(left))), (REPLICAS, Status::Ok));
    }

    #[test]
    fn a_node_for_which_deletions_are_remembered_for_a_week_is_named() {
        let silent = PeerReplica { heard_ms: Some(NOW - 8 * DAY), ..office(ReplicaState::Unknown) };
        let kept_by = || Some(api::GcBlockedBy { node: "office".into(), why: "silent".into() });
        let table = |node| TableSync { deletions_kept_by: kept_by(), ..notes(node) };
        let found = of(table(silent));
        assert_eq!(only(&found), (DELETIONS, Status::Warning));
        let mend = found[0].mend.as_deref().expect("it can be mended");
        assert!(mend.contains("cortex mesh remove-node office"), "{mend}");
        assert_eq!(only(&of(table(office(ReplicaState::Unknown)))), (REPLICAS, Status::Ok));
    }

    #[test]
    fn what_is_contested_is_for_somebody_to_decide_and_conflicts_are_worth_a_note() {
        let contested = with(|table| table.contested = true);
        assert_eq!(the_problem(contested).0, SCOPE);
        let conflicts = with(|table| table.here.conflicts = 2);
        assert_eq!(only(&conflicts), (CONFLICTS, Status::Note));
        let elsewhere =
            of(notes(PeerReplica { conflicts: Some(2), ..office(ReplicaState::InSync) }));
        assert_eq!(only(&elsewhere), (CONFLICTS, Status::Note));
        assert_eq!(elsewhere[0].mend.as_deref(), Some("on office: cortex conflicts"));
        let contested = vec![("alice~3f2a".into(), "3f2a00".into())];
        let named = ReplicaFacts {
            now_ms: NOW,
            tables: Some(Vec::new()),
            contested,
            ..ReplicaFacts::default()
        };
        let found = check(&named);
        assert_eq!(only(&found), (NAME, Status::Warning));
        let mend = found[0].mend.as_deref().expect("it can be mended");
        assert!(mend.ends_with("cortex identity resolve alice --keep 3f2a00"), "{mend}");
    }
}
