//! Commands about copies on other nodes: `sync status`, `sync wait`, `sync repair`.
//! Leaves comparing and mending to the daemon.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use rmpv::Value;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output;
use crate::client::Params;
use crate::sys::clock;

/// How long copies are waited for, unless the user says so.
const WAIT: Duration = Duration::from_secs(30);

/// What a wait without end is told to the daemon as: a day is what it takes at most.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The daemon's answer comes a moment after its own time is over.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(crate) enum Sync {
    /// Show which nodes hold a copy of each table, and whether it is the same as here
    Status(Status),
    /// Wait until other nodes have all that is here now; how long, --timeout says [default: 30]
    Wait(Wait),
    /// Compare the copies of a table row by row and mend what differs; deletes nothing by itself
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The table; without it, every one that others may have a copy of
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
    let (method, params) = match &args.table {
        Some(table) => ("sync_status_table", Params::new().str(table)),
        None => ("sync_status", Params::new()),
    };
    let about = |failure: Failure| match &args.table {
        Some(table) => failure.about_table(table),
        None => failure,
    };
    if !context.is_for_people() {
        return context.call(method, &params).map_err(about);
    }
    let status = context.connect()?.call(method, &params).map_err(Failure::from).map_err(about)?;
    let tables = if status.is_array() { status } else { Value::Array(vec![status]) };
    output::text(&shown(&tables, clock::wall_ms()))
}

fn wait(args: &Wait, context: &Context) -> Result<(), Failure> {
    let time_limit = match context.chosen_timeout() {
        None => WAIT,
        Some(chosen) => chosen.unwrap_or(FOR_EVER),
    };
    let mut options = vec![(
        "timeout_ms".into(),
        u64::try_from(time_limit.as_millis()).unwrap_or(u64::MAX).into(),
    )];
    match &args.node {
        Some(node) => options.push(("node".into(), node.as_str().into())),
        None => options.push(("all".into(), true.into())),
    }
    let params = Params::new().str(&args.table).value(&Value::Map(options));
    let result = context.connect_for(time_limit + MARGIN)?.call_raw("sync_wait", &params);
    let result =
        result.map_err(Failure::from).map_err(|failure| failure.about_table(&args.table))?;
    context.printer().value(&result)
}

fn repair(args: &Repair, context: &Context) -> Result<(), Failure> {
    let prefer = match (args.prefer_present, args.prefer_absent) {
        (true, _) => "present".into(),
        (false, true) => "absent".into(),
        (false, false) => Value::Nil,
    };
    let options = vec![("dry_run".into(), args.dry_run.into()), ("prefer".into(), prefer)];
    let params = Params::new().str(&args.table).value(&Value::Map(options));
    let mut client = context.connect_patiently()?;
    let result = client.call_raw("sync_repair", &params);
    let result =
        result.map_err(Failure::from).map_err(|failure| failure.about_table(&args.table))?;
    context.printer().value(&result)?;
    let report = rmpv::decode::read_value(&mut &*result)
        .map_err(|error| Failure::while_doing("reading the report", error))?;
    if report["verified"] == Value::from(true) {
        return Ok(());
    }
    let failure = Failure::new(Exit::Failed, "the copies are not known to be equal");
    Err(if args.dry_run {
        failure.hint(format!("To mend what differs: cortex sync repair {}", args.table))
    } else {
        failure.hint("Of each node the report says why. What only one side has and the other may have deleted: --prefer-present writes it again, --prefer-absent deletes it")
    })
}

/// The state of copies as text: a line for each table, and one for each other node.
fn shown(tables: &Value, now_ms: u64) -> String {
    let mut text = String::new();
    for table in tables.as_array().into_iter().flatten() {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let here = &table["here"];
        let scope = match table["scope"].as_array() {
            Some(nodes) => nodes.iter().map(word).collect::<Vec<_>>().join(","),
            None => word(&table["scope"]),
        };
        let mut line = format!(
            "{}  scope {scope}{}  {} here, {} records",
            word(&table["table"]),
            if table["contested"] == Value::from(true) { " (contested)" } else { "" },
            word(&here["state"]),
            here["records"].as_u64().unwrap_or(0),
        );
        if let Some(damaged @ 1..) = here["damaged"].as_u64() {
            let _never_fails = write!(line, ", {damaged} damaged");
        }
        if let Some(conflicts @ 1..) = here["conflicts"].as_u64() {
            let _never_fails = write!(line, ", {}", counted(conflicts));
        }
        for why in [&here["why"], &here["drain_blocked"]].into_iter().filter_map(Value::as_str) {
            let _never_fails = write!(line, "  {why}");
        }
        let _never_fails = writeln!(text, "{line}");
        for node in table["nodes"].as_array().into_iter().flatten() {
            let verified = match node["verified_ms"].as_u64() {
                Some(at) => format!("equal {} ago", ago(now_ms.saturating_sub(at))),
                None => "not found equal since this daemon started".to_owned(),
            };
            let conflicts = match node["conflicts"].as_u64() {
                Some(conflicts @ 1..) => format!(", {}", counted(conflicts)),
                Some(0) | None => String::new(),
            };
            let why = node["why"].as_str().map(|why| format!("  {why}")).unwrap_or_default();
            let _never_fails = writeln!(
                text,
                "  {:<16}  {:<9}  {verified}{conflicts}{why}",
                word(&node["node"]),
                word(&node["state"])
            );
            let differs: Vec<_> =
                node["differs"].as_array().into_iter().flatten().map(word).collect();
            if !differs.is_empty() {
                let _never_fails = writeln!(text, "    rows that differ: {}", differs.join(", "));
            }
        }
        if here["conflicts"].as_u64().is_some_and(|conflicts| conflicts > 0) {
            let _never_fails = writeln!(
                text,
                "  to see the conflicts here: cortex conflicts {}",
                word(&table["table"])
            );
        }
        if let Some(elsewhere) = conflicts_elsewhere(table) {
            let _never_fails = writeln!(text, "  {elsewhere}");
        }
        if let Some(node) = table["deletions_kept_by"]["node"].as_str() {
            let why = word(&table["deletions_kept_by"]["why"]);
            let _never_fails = writeln!(text, "  deletions are remembered for {node}, {why}");
        }
    }
    if text.is_empty() { "no table has copies on other nodes\n".to_owned() } else { text }
}

/// Which other nodes keep conflicts of a table, and where they are seen. A table of a uid has another name there.
pub(crate) fn conflicts_elsewhere(table: &Value) -> Option<String> {
    let nodes = table["nodes"].as_array().into_iter().flatten();
    let holders = nodes.filter(|node| node["conflicts"].as_u64().is_some_and(|count| count > 0));
    let holders: Vec<_> = holders.filter_map(|node| node["node"].as_str()).collect();
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
    use super::*;

    fn map(fields: &[(&str, Value)]) -> Value {
        let pairs = fields.iter().map(|(name, value)| (Value::from(*name), value.clone()));
        Value::Map(pairs.collect())
    }

    #[test]
    fn the_state_of_copies_is_a_line_for_each_node() {
        let node = map(&[
            ("node", "office".into()),
            ("state", "unknown".into()),
            ("verified_ms", 1_000.into()),
            ("conflicts", 1.into()),
            ("why", "unreachable".into()),
            ("differs", Value::Array(vec!["a".into(), "b".into()])),
        ]);
        let here =
            map(&[("state", "ready".into()), ("records", 3.into()), ("conflicts", 2.into())]);
        let table = map(&[
            ("table", "@alice:notes".into()),
            ("scope", Value::Array(vec!["home".into(), "office".into()])),
            ("contested", false.into()),
            ("here", here),
            ("nodes", Value::Array(vec![node])),
            ("deletions_kept_by", Value::Nil),
        ]);
        assert_eq!(
            shown(&Value::Array(vec![table]), 601_000),
            "@alice:notes  scope home,office  ready here, 3 records, 2 conflicts\n  \
             office            unknown    equal 10 min ago, 1 conflict  unreachable\n    \
             rows that differ: a, b\n  \
             to see the conflicts here: cortex conflicts @alice:notes\n  \
             conflicts that office has met are seen there: cortex conflicts\n"
        );
        assert_eq!(shown(&Value::Array(vec![]), 0), "no table has copies on other nodes\n");
    }
}
