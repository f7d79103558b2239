//! Copies of tables on other nodes: they hold the same, deletions are forgotten in time, names and scopes are decided.
//! Links, clocks and certificates are left to `mesh`; rows, to `sync repair`.

use rmpv::Value;

use super::super::context::Context;
use super::finding::Finding;
use crate::ambient;
use crate::client::{Client, Params};

const COPIES: &str = "copies";
const DIVERGED: &str = "copies-equal";
const VERIFIED: &str = "copies-age";
const DELETIONS: &str = "deletions";
const SCOPE: &str = "scope";
const NAME: &str = "names";
const CONFLICTS: &str = "conflicts";

/// A laptop is left alone over a week-end; what nobody has compared for longer, nobody knows to be good.
const UNVERIFIED_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A node that is silent for so long may not come back, and all the others remember every deletion for it.
const SILENT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

#[derive(Debug)]
pub(super) struct Facts {
    now_ms: u64,
    uptime_ms: u64,
    /// What the daemon says of each table; none where it says nothing, or runs alone.
    tables: Option<Vec<Table>>,
    /// Identities of which another has the name: how each is shown, and its id.
    contested: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default)]
struct Table {
    name: String,
    contested: bool,
    conflicts: u64,
    nodes: Vec<Node>,
    deletions_kept_by: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    name: String,
    state: String,
    conflicts: u64,
    verified_ms: Option<u64>,
    heard_ms: Option<u64>,
}

pub(super) fn gather(context: &Context) -> Facts {
    let mut facts =
        Facts { now_ms: ambient::wall_ms(), uptime_ms: 0, tables: None, contested: Vec::new() };
    let Ok(mut client) = context.connect() else {
        return facts;
    };
    let Ok(status) = client.call("sync_status", &Params::new()) else {
        return facts;
    };
    facts.tables = Some(status.as_array().into_iter().flatten().map(Table::read).collect());
    let daemon = client.call("status", &Params::new());
    let uptime_s = daemon.ok().and_then(|status| status["uptime_seconds"].as_u64());
    facts.uptime_ms = uptime_s.unwrap_or(0).saturating_mul(1000);
    facts.contested = contested(&mut client);
    facts
}

fn contested(client: &mut Client) -> Vec<(String, String)> {
    let Ok(list) = client.call("identity_list", &Params::new()) else {
        return Vec::new();
    };
    let identities = list.as_array().into_iter().flatten();
    let contested = identities.filter(|who| who["metadata"]["contested"] == Value::from(true));
    contested.map(|who| (text(&who["fed_id"]), text(&who["fid"]))).collect()
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
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(tables) = &facts.tables else {
        return Vec::new(); // `daemon` and `mesh` say why
    };
    let mut findings: Vec<Finding> =
        tables.iter().flat_map(|table| of_table(table, facts)).collect();
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
    findings
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
        }
    }

    fn notes(node: Node) -> Table {
        Table { name: "@alice:notes".into(), nodes: vec![node], ..Table::default() }
    }

    fn of(table: Table) -> Vec<Finding> {
        let tables = Some(vec![table]);
        check(&Facts { now_ms: NOW, uptime_ms: DAY, tables, contested: Vec::new() })
    }

    fn only(findings: &[Finding]) -> (&'static str, Status) {
        assert_eq!(findings.len(), 1, "{findings:?}");
        (findings[0].check, findings[0].status)
    }

    #[test]
    fn copies_that_were_equal_lately_are_well() {
        assert_eq!(only(&of(notes(office("in_sync")))), (COPIES, Status::Ok));
        assert_eq!(only(&of(notes(office("behind")))), (COPIES, Status::Ok));
        let none = Facts { now_ms: NOW, uptime_ms: 0, tables: None, contested: Vec::new() };
        assert_eq!(check(&none), []);
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
        let named = Facts { now_ms: NOW, uptime_ms: 0, tables: Some(Vec::new()), contested };
        let found = check(&named);
        assert_eq!(only(&found), (NAME, Status::Warning));
        let mend = found[0].mend.as_deref().expect("it can be mended");
        assert!(mend.ends_with("cortex identity resolve alice --keep 3f2a00"), "{mend}");
    }
}
