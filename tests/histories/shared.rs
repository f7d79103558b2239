//! What the clients of all nodes and the one that makes faults share: the record of what has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::chance::Chance;
use crate::check::rights::Decision;
use crate::history::{Event, Micros, NodeId, TableId};
use crate::stopwatch::Clock;
use crate::tables::{Table, Where};

/// A change of a table's scope.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) table: TableId,
    pub(crate) to: Where,
    pub(crate) acked: Option<Micros>,
}

/// One stay of the table that is dropped and made anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stay {
    pub(crate) since: Micros,
    pub(crate) until: Option<Micros>,
}

/// What was recorded.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) events: Vec<Event>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) moves: Vec<Move>,
    /// Where a table may ever have been.
    pub(crate) ever: BTreeMap<TableId, BTreeSet<NodeId>>,
    pub(crate) stays: Vec<Stay>,
    pub(crate) broken: Vec<String>,
    pub(crate) operations: BTreeMap<&'static str, u64>,
    pub(crate) acknowledged: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    /// Names of the nodes, by their numbers.
    pub(crate) names: Vec<String>,
    /// Pairs of nodes that reach each other.
    pub(crate) links: Vec<(NodeId, NodeId)>,
    pub(crate) tables: Vec<Table>,
    pub(crate) people: People,
    /// A client holds it for reading while it asks; for writing, it keeps all of them still.
    pub(crate) gate: RwLock<()>,
    pub(crate) is_over: AtomicBool,
    /// Numbers for the versions that are written.
    pub(crate) versions: AtomicU64,
    book: Mutex<Book>,
    trace: Mutex<BufWriter<File>>,
}

/// Who owns and who is granted: one uid is one of them on each node.
#[derive(Clone, Debug)]
pub(crate) struct People {
    pub(crate) ann: String,
    pub(crate) bob: String,
    pub(crate) uid: u32,
    /// The nodes on which the uid is bob.
    pub(crate) of_bob: BTreeSet<NodeId>,
}

impl Shared {
    pub(crate) fn new(
        seed: u64,
        names: Vec<String>,
        links: Vec<(NodeId, NodeId)>,
        people: People,
        trace: &Path,
    ) -> Self {
        let tables = crate::tables::tables(seed, names.len());
        let ever = tables.iter().map(|table| (table.id, table.first.nodes(names.len()))).collect();
        let trace = File::create(trace).expect("make the trace");
        Self {
            clock: Clock::start(),
            names,
            links,
            tables,
            people,
            gate: RwLock::new(()),
            is_over: AtomicBool::new(false),
            versions: AtomicU64::new(0),
            book: Mutex::new(Book { ever, ..Book::default() }),
            trace: Mutex::new(BufWriter::new(trace)),
        }
    }

    /// Locked for one entry.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, event: Event) {
        self.book().events.push(event);
    }

    /// Something that must not have happened.
    pub(crate) fn break_off(&self, what: String) {
        self.trace(&format!("VIOLATION {what}"));
        self.book().broken.push(what);
    }

    pub(crate) fn trace(&self, line: &str) {
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(trace, "{:>10} {line}", self.clock.now()).expect("write the trace");
    }

    pub(crate) fn flush(&self) {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).flush().expect("write the trace");
    }

    /// A version that no other write has.
    pub(crate) fn version(&self, table: &Table, node: NodeId) -> String {
        format!("{}{node}.{}", table.mark, self.versions.fetch_add(1, Relaxed))
    }

    /// A table's name as programs on a node write it.
    pub(crate) fn name_on(&self, table: &Table, node: NodeId) -> String {
        let word = table.kind.word();
        let People { ann, uid, .. } = &self.people;
        if table.kind.is_federated() {
            format!("@{ann}:{word}")
        } else if node == table.home {
            word.to_owned()
        } else {
            format!("{uid}@{}:{word}", self.names[table.home])
        }
    }

    pub(crate) fn is_ann(&self, node: NodeId) -> bool {
        !self.people.of_bob.contains(&node)
    }

    /// A scope as requests write it.
    pub(crate) fn scope_text(&self, place: &Where) -> String {
        match place {
            Where::All => "all".into(),
            Where::On(nodes) => {
                let names: Vec<_> = nodes.iter().map(|node| self.names[*node].as_str()).collect();
                names.join(",")
            }
        }
    }

    /// Where a table may be as somebody may decide at random. What is left out gives what only it has to a node
    /// that it reaches.
    pub(crate) fn draw_scope(&self, chance: &mut Chance, always: Option<NodeId>) -> Where {
        let count = self.names.len();
        loop {
            if chance.percent(25) {
                return Where::All;
            }
            let mut nodes = chance.some(&(0..count).collect::<Vec<_>>());
            nodes.extend(always);
            let reaches = |out: &NodeId| nodes.iter().any(|node| self.are_linked(*out, *node));
            let all_reach =
                (0..count).filter(|node| !nodes.contains(node)).all(|out| reaches(&out));
            if nodes.len() > 1 && self.is_connected(&nodes) && all_reach {
                return Where::On(nodes);
            }
        }
    }

    pub(crate) fn are_linked(&self, a: NodeId, b: NodeId) -> bool {
        self.links.contains(&(a.min(b), a.max(b)))
    }

    /// Whether rows can reach each of these nodes from each other by these nodes alone.
    pub(crate) fn is_connected(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let Some(first) = nodes.first() else { return false };
        let mut reached = BTreeSet::from([*first]);
        loop {
            let crosses = |(a, b): &(NodeId, NodeId)| {
                let both = nodes.contains(a) && nodes.contains(b);
                both && reached.contains(a) != reached.contains(b)
            };
            let Some((a, b)) = self.links.iter().find(|link| crosses(link)) else { break };
            reached.extend([*a, *b]);
        }
        reached == *nodes
    }
}
