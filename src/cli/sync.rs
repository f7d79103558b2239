//! Commands about replicas on other nodes: `sync status`, `sync wait`, `sync repair`.
//! Leaves comparing and mending to the daemon.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use cortex_client::api::{
    self, Prefer, RepairOptions, RepairReport, Response as _, TableSync, WaitOptions,
};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output;
use crate::sys::clock;

/// How long replicas are waited for, unless the user says so.
const WAIT: Duration = Duration::from_secs(30);

/// The timeout that stands for a wait without end: the daemon accepts a day at most.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The daemon's answer comes a moment after its own time is over.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(crate) enum Sync {
    /// Show which nodes hold a replica of each table, and whether it is the same as here
    Status(Status),
    /// Wait until other nodes have all that is here now; how long, --timeout says [default: 30]
    Wait(Wait),
    /// Compare the replicas of a table row by row and mend what differs; deletes nothing by itself
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The table; without it, every one that others may have a replica of
    table: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The table
    table: String,
    /// Wait for that node alone
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Wait for every other node in the table's scope, as without any option
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "node")]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The table
    table: String,
    /// Show what differs and change nothing
    #[arg(long, action = ArgAction::SetTrue)]
    dry_run: bool,
    /// Write again what only one side has, also where the other may have deleted it
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "prefer_absent")]
    prefer_present: bool,
    /// Delete what only one side has
    #[arg(long, action = ArgAction::SetTrue)]
    prefer_absent: bool,
}

pub(crate) fn run(command: &Sync, context: &Context) -> Result<(), Failure> {
    match command {
        Sync::Status(args) => status(args, context),
        Sync::Wait(args) => wait(args, context),
        Sync::Repair(args) => repair(args, context),
    }
}

fn status(args: &Status, context: &Context) -> Result<(), Failure> {
    let about = |failure: Failure| match &args.table {
        Some(table) => failure.about_table(table),
        None => failure,
    };
    let all = api::SyncStatus {};
    let one = args.table.as_deref().map(|table| api::SyncStatusTable { table });
    if !context.is_for_people() {
        return match &one {
            Some(one) => context.call(one),
            None => context.call(&all),
        }
        .map_err(about);
    }
    let mut client = context.connect()?;
    let tables = match &one {
        Some(one) => client.call(one).map(|table| vec![table]),
        None => client.call(&all),
    };
    let tables = tables.map_err(Failure::from).map_err(about)?;
    output::text(&shown(&tables, clock::wall_ms()))
}

fn wait(args: &Wait, context: &Context) -> Result<(), Failure> {
    let time_limit = match context.chosen_timeout() {
        None => WAIT,
        Some(chosen) => chosen.unwrap_or(FOR_EVER),
    };
    let options = WaitOptions {
        node: args.node.clone(),
        all: args.node.is_none(),
        timeout_ms: Some(u64::try_from(time_limit.as_millis()).unwrap_or(u64::MAX)),
    };
    let mut client = context.connect_for(time_limit + MARGIN)?;
    let result = client.call_raw(&api::SyncWait { table: &args.table, options });
    let result =
        result.map_err(Failure::from).map_err(|failure| failure.about_table(&args.table))?;
    context.printer().value(&result)
}

fn repair(args: &Repair, context: &Context) -> Result<(), Failure> {
    let prefer = match (args.prefer_present, args.prefer_absent) {
        (true, _) => Some(Prefer::Present),
        (false, true) => Some(Prefer::Absent),
        (false, false) => None,
    };
    let options = RepairOptions { dry_run: args.dry_run, prefer };
    let mut client = context.connect_patiently()?;
    let result = client.call_raw(&api::SyncRepair { table: &args.table, options });
    let result =
        result.map_err(Failure::from).map_err(|failure| failure.about_table(&args.table))?;
    context.printer().value(&result)?;
    let report = RepairReport::read(&result)
        .map_err(|error| Failure::while_doing("reading the report", error))?;
    if report.verified {
        return Ok(());
    }
    let failure = Failure::new(Exit::Failed, "the replicas are not known to be equal");
    Err(if args.dry_run {
        failure.hint(format!("To mend what differs: cortex sync repair {}", args.table))
    } else {
        failure.hint("Of each node the report says why. What only one side has and the other may have deleted: --prefer-present writes it again, --prefer-absent deletes it")
    })
}

/// The state of replicas as text: a line for each table, and one for each other node.
fn shown(tables: &[TableSync], now_ms: u64) -> String {
    let mut text = String::new();
    for table in tables {
        let here = &table.here;
        let mut line = format!(
            "{}  scope {}{}  {} here, {} records",
            table.table,
            table.scope,
            if table.contested { " (contested)" } else { "" },
            here.state.as_str(),
            here.records,
        );
        if here.damaged > 0 {
            let _never_fails = write!(line, ", {} damaged", here.damaged);
        }
        if here.conflicts > 0 {
            let _never_fails = write!(line, ", {}", counted(here.conflicts));
        }
        for why in [&here.why, &here.drain_blocked].into_iter().flatten() {
            let _never_fails = write!(line, "  {why}");
        }
        let _never_fails = writeln!(text, "{line}");
        for node in &table.nodes {
            let verified = match node.verified_ms {
                Some(at) => format!("equal {} ago", ago(now_ms.saturating_sub(at))),
                None => "not found equal since this daemon started".to_owned(),
            };
            let conflicts = match node.conflicts {
                Some(conflicts @ 1..) => format!(", {}", counted(conflicts)),
                Some(0) | None => String::new(),
            };
            let why = node.why.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
            let (name, state) = (&node.node, node.state.as_str());
            let _never_fails =
                writeln!(text, "  {name:<16}  {state:<9}  {verified}{conflicts}{why}");
            if !node.differs.is_empty() {
                let _never_fails =
                    writeln!(text, "    rows that differ: {}", node.differs.join(", "));
            }
        }
        if here.conflicts > 0 {
            let _never_fails =
                writeln!(text, "  to see the conflicts here: cortex conflicts {}", table.table);
        }
        if let Some(elsewhere) = conflicts_elsewhere(table) {
            let _never_fails = writeln!(text, "  {elsewhere}");
        }
        if let Some(by) = &table.deletions_kept_by {
            let _never_fails =
                writeln!(text, "  deletions are remembered for {}, {}", by.node, by.why);
        }
    }
    if text.is_empty() { "no table has replicas on other nodes\n".to_owned() } else { text }
}

/// Which other nodes keep conflicts of a table, and where they are seen. A table of a uid has another name there.
pub(crate) fn conflicts_elsewhere(table: &TableSync) -> Option<String> {
    let holders = table.nodes.iter().filter(|node| node.conflicts.is_some_and(|count| count > 0));
    let holders: Vec<_> = holders.map(|node| node.node.as_str()).collect();
    (!holders.is_empty()).then(|| {
        format!("conflicts that {} has met are seen there: cortex conflicts", holders.join(", "))
    })
}

fn counted(conflicts: u64) -> String {
    match conflicts {
        1 => "1 conflict".to_owned(),
        more => format!("{more} conflicts"),
    }
}

fn ago(ms: u64) -> String {
    match ms / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use cortex_client::api::{NodeScope, OwnReplica, PeerReplica, ReplicaState};

    use super::*;

    #[test]
    fn the_state_of_replicas_is_a_line_for_each_node() {
        let office = PeerReplica {
            node: "office".into(),
            state: ReplicaState::Unknown,
            verified_ms: Some(1_000),
            conflicts: Some(1),
            why: Some("unreachable".into()),
            differs: vec!["a".into(), "b".into()],
            ..PeerReplica::default()
        };
        let state = ReplicaState::Ready;
        let table = TableSync {
            table: "@alice:notes".into(),
            scope: NodeScope::Nodes(vec!["home".into(), "office".into()]),
            here: OwnReplica { state, records: 3, conflicts: 2, ..OwnReplica::default() },
            nodes: vec![office],
            ..TableSync::default()
        };
        assert_eq!(
            shown(&[table], 601_000),
            "@alice:notes  scope home,office  ready here, 3 records, 2 conflicts\n  \
             office            unknown    equal 10 min ago, 1 conflict  unreachable\n    \
             rows that differ: a, b\n  \
             to see the conflicts here: cortex conflicts @alice:notes\n  \
             conflicts that office has met are seen there: cortex conflicts\n"
        );
        assert_eq!(shown(&[], 0), "no table has replicas on other nodes\n");
    }
}
