//! The tables of a history: whose they are, where they may be, and the marks that their values carry.

use std::collections::BTreeSet;

use rmpv::Value;

use crate::chance::Chance;
use crate::history::{NodeId, TableId};
use crate::rpc::{field, map};

/// Whose a table is, and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of ann's identity, everywhere.
    Notes,
    /// Of ann's identity; its scope changes.
    Pair,
    /// Of the uid of its home; its scope changes.
    Journal,
    /// Of ann's identity, on two nodes for ever; nobody else has a right on it.
    Secret,
    /// Of ann's identity; dropped and made anew by its home.
    Churn,
    /// Of one node's uid, never shared.
    Own,
}

/// Where a table may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    All,
    On(BTreeSet<NodeId>),
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) kind: Kind,
    pub(crate) home: NodeId,
    pub(crate) first: Where,
    /// Its values begin with it, and nothing else does.
    pub(crate) mark: String,
}

/// The keys of every table. Few, so that writes meet; one is also a number.
pub(crate) const KEYS: [&str; 8] = ["a", "b", "c", "d", "7", "key/with/slashes", "ключ", "long"];

impl Kind {
    /// Its name without an owner.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::Pair => "pair",
            Self::Journal => "journal",
            Self::Secret => "secret",
            Self::Churn => "churn",
            Self::Own => "own",
        }
    }

    pub(crate) fn moves(self) -> bool {
        matches!(self, Self::Pair | Self::Journal)
    }

    /// Whether bob is given rights on it, and loses them.
    pub(crate) fn is_granted(self) -> bool {
        matches!(self, Self::Notes | Self::Pair | Self::Journal)
    }

    pub(crate) fn is_federated(self) -> bool {
        !matches!(self, Self::Journal | Self::Own)
    }
}

impl Where {
    pub(crate) fn of(nodes: &[NodeId]) -> Self {
        Self::On(nodes.iter().copied().collect())
    }

    pub(crate) fn nodes(&self, count: usize) -> BTreeSet<NodeId> {
        match self {
            Self::All => (0..count).collect(),
            Self::On(nodes) => nodes.clone(),
        }
    }
}

/// All tables of a mesh of so many nodes.
pub(crate) fn tables(seed: u64, nodes: usize) -> Vec<Table> {
    let shared = [
        (Kind::Notes, Where::All),
        (Kind::Pair, Where::of(&[0, 1])),
        (Kind::Journal, Where::All),
        (Kind::Secret, Where::of(&[0, 1])),
        (Kind::Churn, Where::All),
    ];
    let own = (0..nodes).map(|home| (Kind::Own, home, Where::of(&[home])));
    let all = shared.into_iter().map(|(kind, first)| (kind, 0, first)).chain(own);
    let table = |(id, (kind, home, first)): (TableId, (Kind, NodeId, Where))| Table {
        id,
        kind,
        home,
        first,
        mark: format!("mark-{seed:x}.{id}."),
    };
    all.enumerate().map(table).collect()
}

/// A record with the version that it is known by, now and then a large one.
pub(crate) fn record(key: &str, version: &str, chance: &mut Chance) -> Value {
    let id = match key.parse::<u64>() {
        Ok(number) if chance.percent(50) => number.into(),
        _ => key.into(),
    };
    let bytes =
        if chance.percent(3) { chance.within(1_000, 20_000) } else { chance.below(40) as u64 };
    let padding = "x".repeat(usize::try_from(bytes).expect("a small number"));
    map([("id", id), ("v", version.into()), ("padding", padding.into())])
}

/// The key and the version of a record.
pub(crate) fn read(record: &Value) -> Option<(String, String)> {
    let id = field(record, "id")?;
    let key = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    Some((key, field(record, "v")?.as_str()?.to_owned()))
}
