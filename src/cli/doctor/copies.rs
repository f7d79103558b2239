//! Copies of tables on other nodes: they hold the same, deletions are forgotten in time, names and scopes are decided.
//! Links, clocks and certificates are left to `mesh`; rows, to `sync repair`.

use rmpv::Value;

use super::super::context::Context;
use super::finding::Finding;
use crate::client::{Client, Params};
use crate::sys::clock;

const COPIES: &str = "copies";
const DIVERGED: &str = "copies-equal";
const VERIFIED: &str = "copies-age";
const DELETIONS: &str = "deletions";
const SCOPE: &str = "scope";
const NAME: &str = "names";
const CONFLICTS: &str = "conflicts";
const BLOCKED: &str = "copies-blocked";
const DRAINING: &str = "copies-draining";
const ROWS: &str = "rows";
const ORPHANS: &str = "orphans";

/// A laptop is left alone over a week-end; what nobody has compared for longer, nobody knows to be good.
const UNVERIFIED_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A node that is silent for so long may not come back, and all the others remember every deletion for it.
const SILENT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

#[derive(Debug, Default)]
pub(super) struct Facts {
    now_ms: u64,
    uptime_ms: u64,
    /// What the daemon says of each table; none where it says nothing, or runs alone.
    tables: Option<Vec<Table>>,
    /// How far the rows were compared with their checksums; none where the daemon does not say.
    scrub: Option<Scrub>,
    /// What reading all of it has come to, where that was asked for.
    deep: Option<Finding>,
    /// Identities of which another has the name: how each is shown, and its id.
    contested: Vec<(String, String)>,
    /// Tables that belong to nobody, and that root of this machine decides about.
    orphans: Vec<String>,
}

/// What the daemon says of its rows.
#[derive(Debug, Clone, Copy, Default)]
struct Scrub {
    records: u64,
    damaged: u64,
    corrected: u64,
    failed: u64,
    ended_ms: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Table {
    name: String,
    contested: bool,
    conflicts: u64,
    nodes: Vec<Node>,
    deletions_kept_by: Option<String>,
    /// Why the replica here cannot drain.
    drain_blocked: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    name: String,
    state: String,
    conflicts: u64,
    verified_ms: Option<u64>,
    heard_ms: Option<u64>,
    why: Option<String>,
}

pub(super) fn gather(context: &Context, deep: bool) -> Facts {
    let mut facts = Facts { now_ms: clock::wall_ms(), ..Facts::default() };
    let Ok(mut client) = context.connect() else {
        return facts;
    };
    let daemon = client.call("status", &Params::new()).ok();
    facts.scrub = daemon.as_ref().and_then(|status| Scrub::read(&status["scrub"]));
    let uptime_s = daemon.and_then(|status| status["uptime_seconds"].as_u64());
    facts.uptime_ms = uptime_s.unwrap_or(0).saturating_mul(1000);
    if deep {
        facts.deep = Some(look_deep(context));
    }
    let Ok(status) = client.call("sync_status", &Params::new()) else {
        return facts;
    };
    facts.tables = Some(status.as_array().into_iter().flatten().map(Table::read).collect());
    facts.contested = contested(&mut client);
    facts.orphans = orphans(&mut client);
    facts
}

/// Only root is told of them.
fn orphans(client: &mut Client) -> Vec<String> {
    let details = Value::Map(vec![("details".into(), true.into())]);
    let Ok(list) = client.call("tables", &Params::new().value(&details)) else {
        return Vec::new();
    };
    let tables = list.as_array().into_iter().flatten();
    let orphans = tables.filter(|table| table["orphaned"] == Value::from(true));
    orphans.map(|table| text(&table["table"])).collect()
}

/// Has the daemon read every row, and its database's structure.
fn look_deep(context: &Context) -> Finding {
    let read = || -> Result<Value, String> {
        let mut client = context.connect_patiently().map_err(|_| "no daemon answers".to_owned())?;
        client.call("scrub", &Params::new()).map_err(|error| error.to_string())
    };
    let found = match read() {
        Ok(found) => found,
        Err(why) if why.contains("access_denied") => {
            return Finding::hidden(ROWS, "this user may not have the rows read");
        }
        Err(why) => return Finding::unchecked(ROWS, format!("the rows were not read: {why}")),
    };
    if let Some(broken) = found["structure"].as_str() {
        return Finding::problem(
            ROWS,
            format!("the structure of the database is damaged: {broken}"),
            "look at the disk: dmesg; then, on a copy of the directory: cortexd restore FILE",
        );
    }
    let scrub = Scrub::read(&found).map(|scrub| Scrub { ended_ms: Some(0), ..scrub });
    scrub.map_or_else(|| Finding::unchecked(ROWS, "the daemon does not say"), rows)
}

fn contested(client: &mut Client) -> Vec<(String, String)> {
    let Ok(list) = client.call("identity_list", &Params::new()) else {
        return Vec::new();
    };
    let identities = list.as_array().into_iter().flatten();
    let contested = identities.filter(|who| who["metadata"]["contested"] == Value::from(true));
    contested.map(|who| (text(&who["fed_id"]), text(&who["fid"]))).collect()
}

impl Scrub {
    fn read(scrub: &Value) -> Option<Self> {
        let figure = |name: &str| scrub[name].as_u64();
        Some(Self {
            records: figure("records")?,
            damaged: figure("damaged")?,
            corrected: figure("corrected")?,
            failed: figure("failed")?,
            ended_ms: figure("ended_ms"),
        })
    }
}

impl Table {
    fn read(table: &Value) -> Self {
        let nodes = table["nodes"].as_array().into_iter().flatten();
        Self {
            name: text(&table["table"]),
            contested: table["contested"].as_bool().unwrap_or(false),
            conflicts: table["here"]["conflicts"].as_u64().unwrap_or(0),
            nodes: nodes.map(Node::read).collect(),
            deletions_kept_by: table["deletions_kept_by"]["node"].as_str().map(str::to_owned),
            drain_blocked: table["here"]["drain_blocked"].as_str().map(str::to_owned),
        }
    }
}

impl Node {
    fn read(node: &Value) -> Self {
        Self {
            name: text(&node["node"]),
            state: text(&node["state"]),
            conflicts: node["conflicts"].as_u64().unwrap_or(0),
            verified_ms: node["verified_ms"].as_u64(),
            heard_ms: node["heard_ms"].as_u64(),
            why: node["why"].as_str().map(str::to_owned),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let rows = facts.deep.clone().or_else(|| facts.scrub.map(rows));
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
            0 => "no table has copies on other nodes".to_owned(),
            1 => "one table has copies, and none that differs is known".to_owned(),
            more => format!("{more} tables have copies, and none that differs is known"),
        };
        findings.push(Finding::ok(COPIES, text));
    }
    findings.extend(rows);
    findings
}

/// Whether the rows are what was stored, as far as they were read.
fn rows(scrub: Scrub) -> Finding {
    let Scrub { records, damaged, corrected, failed, ended_ms } = scrub;
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
            "which: sudo cortex events; then, of a table with copies: cortex sync repair TABLE",
        );
    }
    match ended_ms {
        Some(_) => Finding::ok(ROWS, format!("all {records} records are what was stored")),
        None => Finding::unchecked(ROWS, "the rows are still being compared with their checksums"),
    }
}

fn of_table(table: &Table, facts: &Facts) -> Vec<Finding> {
    let name = &table.name;
    let mut findings = Vec::new();
    for node in table.nodes.iter().filter(|node| node.state == "diverged") {
        findings.push(Finding::problem(
            DIVERGED,
            format!("{name} holds other rows on {} than here", node.name),
            format!("cortex sync repair {name}"),
        ));
    }
    let blocked = |node: &&Node| node.why.as_deref().is_some_and(is_blocked);
    for node in table.nodes.iter().filter(blocked) {
        let why = node.why.as_deref().unwrap_or_default();
        findings.push(Finding::problem(
            BLOCKED,
            format!("rows of {name} do not pass between this node and {}: {why}", node.name),
            format!("cortex explain {name} --node {}", node.name),
        ));
    }
    if let Some(why) = &table.drain_blocked {
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
    if table.conflicts > 0 {
        findings.push(Finding::note(
            CONFLICTS,
            format!("{} versions of records of {name} have lost against others", table.conflicts),
            format!("cortex conflicts {name}"),
        ));
    }
    for node in table.nodes.iter().filter(|node| node.conflicts > 0) {
        let (count, node) = (node.conflicts, &node.name);
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
    let told = ["it does not take rows: ", "its rows are not taken: "];
    let reasons = ["quota", "storage", "clock", "refused", "a row at its source"];
    let parts = why.split("; ");
    parts
        .filter_map(|part| told.iter().find_map(|told| part.strip_prefix(told)))
        .any(|reason| reasons.iter().any(|known| reason.starts_with(known)))
}

/// A table that others should have, and of which nobody has had the same for long.
fn unverified(table: &Table, facts: &Facts) -> Option<Finding> {
    let holders = || table.nodes.iter().filter(|node| node.state != "left");
    let newest = holders().filter_map(|node| node.verified_ms).max();
    let age = match newest {
        Some(at) => facts.now_ms.saturating_sub(at),
        // What was found before the daemon started is not remembered.
        None => facts.uptime_ms,
    };
    let (name, days) = (&table.name, age / 86_400_000);
    (holders().next().is_some() && age > UNVERIFIED_MS).then(|| {
        Finding::warning(
            VERIFIED,
            format!("no other node was found to hold the same of {name} for {days} days"),
            format!("cortex sync status {name} --pretty"),
        )
    })
}

fn deletions(table: &Table, facts: &Facts) -> Option<Finding> {
    let (name, by) = (&table.name, table.deletions_kept_by.as_ref()?);
    let node = table.nodes.iter().find(|node| node.name == *by);
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
                "start it; if it will not come back: cortex mesh remove-node {by}, or for this table: cortex scope {name} SCOPE --write-off {by}"
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

    fn office(state: &str) -> Node {
        Node {
            name: "office".into(),
            state: state.into(),
            conflicts: 0,
            verified_ms: Some(NOW - DAY),
            heard_ms: Some(NOW - DAY),
            why: None,
        }
    }

    fn notes(node: Node) -> Table {
        Table { name: "@alice:notes".into(), nodes: vec![node], ..Table::default() }
    }

    fn of(table: Table) -> Vec<Finding> {
        let tables = Some(vec![table]);
        check(&Facts { now_ms: NOW, uptime_ms: DAY, tables, ..Facts::default() })
    }

    fn only(findings: &[Finding]) -> (&'static str, Status) {
        assert_eq!(findings.len(), 1, "{findings:?}");
        (findings[0].check, findings[0].status)
    }

    #[test]
    fn copies_that_were_equal_lately_are_well() {
        assert_eq!(only(&of(notes(office("in_sync")))), (COPIES, Status::Ok));
        assert_eq!(only(&of(notes(office("behind")))), (COPIES, Status::Ok));
        let none = Facts { now_ms: NOW, ..Facts::default() };
        assert_eq!(check(&none), []);
    }

    #[test]
    fn rows_that_are_not_what_was_stored_are_a_problem() {
        let well = Scrub { records: 7, ended_ms: Some(NOW), ..Scrub::default() };
        assert_eq!(rows(well).status, Status::Ok);
        assert_eq!(rows(Scrub { ended_ms: None, ..well }).status, Status::Unchecked);
        assert_eq!(rows(Scrub { damaged: 1, ..well }).status, Status::Problem);
        assert_eq!(rows(Scrub { failed: 1, ..well }).status, Status::Problem);
        assert_eq!(rows(Scrub { corrected: 1, ..well }).status, Status::Warning);
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
            ("it does not take rows: not ready", COPIES),
            ("rows are on their way", COPIES),
        ] {
            let node = Node { why: Some(why.into()), ..office("behind") };
            assert_eq!(only(&of(notes(node))).0, expected, "{why}");
        }
    }

    #[test]
    fn a_table_that_belongs_to_nobody_is_worth_a_warning_that_says_how_to_hand_it_over() {
        let orphans = vec!["@alice~3f2a:notes".to_owned()];
        let facts = Facts { now_ms: NOW, tables: Some(Vec::new()), orphans, ..Facts::default() };
        let found = check(&facts);
        let orphan = found.iter().find(|found| found.check == ORPHANS).expect("a finding");
        assert_eq!(orphan.status, Status::Warning);
        let hint = format!("{orphan:?}");
        assert!(hint.contains("cortex table chown @alice~3f2a:notes OWNER"), "{hint}");
    }

    #[test]
    fn a_replica_that_cannot_drain_is_worth_a_warning_that_says_where_it_is_explained() {
        let why = "no node of its scope is linked to this one: cortex explain @alice:notes";
        let found = of(Table { drain_blocked: Some(why.into()), ..notes(office("in_sync")) });
        assert_eq!(only(&found), (DRAINING, Status::Warning));
        assert_eq!(found[0].mend.as_deref(), Some("cortex explain @alice:notes"));
    }

    /// holds R5
    #[test]
    fn a_copy_that_has_diverged_is_a_problem_that_a_repair_mends() {
        let (check, mend) = the_problem(of(notes(office("diverged"))));
        assert_eq!((check, mend.as_str()), (DIVERGED, "cortex sync repair @alice:notes"));
    }

    #[test]
    fn what_nobody_has_compared_for_a_week_is_worth_a_warning() {
        let old = Node { verified_ms: Some(NOW - 8 * DAY), ..office("unknown") };
        assert_eq!(only(&of(notes(old.clone()))), (VERIFIED, Status::Warning));
        let left = Node { state: "left".into(), ..old };
        assert_eq!(only(&of(notes(left))), (COPIES, Status::Ok));
    }

    #[test]
    fn a_node_for_which_deletions_are_remembered_for_a_week_is_named() {
        let silent = Node { heard_ms: Some(NOW - 8 * DAY), ..office("unknown") };
        let table = |node| Table { deletions_kept_by: Some("office".into()), ..notes(node) };
        let found = of(table(silent));
        assert_eq!(only(&found), (DELETIONS, Status::Warning));
        let mend = found[0].mend.as_deref().expect("it can be mended");
        assert!(mend.contains("cortex mesh remove-node office"), "{mend}");
        assert_eq!(only(&of(table(office("unknown")))), (COPIES, Status::Ok));
    }

    #[test]
    fn what_is_contested_is_for_somebody_to_decide_and_conflicts_are_worth_a_note() {
        let contested = Table { contested: true, ..notes(office("in_sync")) };
        assert_eq!(the_problem(of(contested)).0, SCOPE);
        let conflicts = Table { conflicts: 2, ..notes(office("in_sync")) };
        assert_eq!(only(&of(conflicts)), (CONFLICTS, Status::Note));
        let elsewhere = of(notes(Node { conflicts: 2, ..office("in_sync") }));
        assert_eq!(only(&elsewhere), (CONFLICTS, Status::Note));
        assert_eq!(elsewhere[0].mend.as_deref(), Some("on office: cortex conflicts"));
        let contested = vec![("alice~3f2a".into(), "3f2a00".into())];
        let named = Facts { now_ms: NOW, tables: Some(Vec::new()), contested, ..Facts::default() };
        let found = check(&named);
        assert_eq!(only(&found), (NAME, Status::Warning));
        let mend = found[0].mend.as_deref().expect("it can be mended");
        assert!(mend.ends_with("cortex identity resolve alice --keep 3f2a00"), "{mend}");
    }
}
