//! The method explain: why a table, or a row of it, is or is not on a node, and what mends it.
//! Nothing is decided here; the chain of reasons is walked in the order in which one rests on the other.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use cortex_core::{
    api::{self, Explanation, RowMark},
    directory::Standing,
    gate,
    model::{Caller, Key, NodeName, Owner, Permissions, Refusal, Scope, Stamp},
    replication::Dot,
    wire::encode,
};

use super::{
    Service,
    conflicts::writer,
    drain::{DrainPath, either, removed},
    obstacle, read,
    replicas::{Link, Other, OwnState, State, TableReplicas},
};
use crate::store::{CommandError, Entry, SYSTEM_TABLE};

/// What is found, and what can be done about it.
#[derive(Debug)]
struct Finding {
    finding: String,
    mend: Option<String>,
}

/// A chain of reasons, each of which holds.
#[derive(Debug, Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn add(&mut self, reason: impl Into<String>) {
        self.0.push(reason.into());
    }
}

impl Finding {
    fn new(finding: impl Into<String>) -> Self {
        Self { finding: finding.into(), mend: None }
    }

    fn mend(finding: impl Into<String>, command: impl Into<String>) -> Self {
        Self { finding: finding.into(), mend: Some(command.into()) }
    }
}

impl Service {
    /// `explain [table]` or `[table, {key, node}]`.
    pub(super) fn explain(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Explanation, CommandError> {
        let api::Explain { table, options } = read(params)?;
        let key = options.key.map(|api::KeyText(key)| key);
        let node = options.node.as_deref().map(NodeName::parse).transpose()?;
        let mut because = Reasons::default();
        let found = match self.open_anywhere(caller, table, Permissions::READ) {
            Err(Refusal::AccessDenied) => self.explain_denial(table, &mut because),
            Err(refusal) => return Err(refusal.into()),
            Ok(entry) => self.explain_table(&entry, key.as_deref(), node.as_ref(), &mut because)?,
        };
        Ok(Explanation {
            table: table.to_owned(),
            node: node.as_ref().map_or(&*self.node, NodeName::as_str).to_owned(),
            key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
            finding: found.finding,
            because: because.0,
            mend: found.mend,
        })
    }

    /// No answer reveals whether a table exists that the caller may not see; but what is not believed of the directory may be
    /// who they are, or what they were granted.
    fn explain_denial(&self, table: &str, because: &mut Reasons) -> Finding {
        let mut mend = None;
        for (node, known) in self.sync.replicas_of(SYSTEM_TABLE) {
            if let Some(unverified) = obstacle::of_quarantined(&known.quarantined) {
                because.add(format!("of what {node} passes on, {}", unverified.why));
                mend = mend.or(unverified.mend);
            }
        }
        Finding::mend(
            format!("there is no table {table} here, or you may not see it"),
            mend.unwrap_or_else(|| "cortex tables".to_owned()),
        )
    }

    fn explain_table(
        &self,
        entry: &Arc<Entry>,
        key: Option<&[u8]>,
        node: Option<&NodeName>,
        because: &mut Reasons,
    ) -> Result<Finding, CommandError> {
        let replicas = self.replicas_of(entry);
        let name = &replicas.name;
        because.add(format!("the table {name} exists, and its scope is {}", entry.table.scope));
        if !entry.replicated {
            because.add("it was never shared: only this node has it");
        }
        if entry.table.contested {
            because.add("decisions about its scope were made without knowing of each other");
            let catalog = self.store.catalog();
            for (by, scope) in catalog.directory().competing(entry.table.uid) {
                because.add(format!("{by} has decided: {scope}"));
            }
        }
        self.explain_owner(entry, because);
        let elsewhere = node.filter(|node| node.as_str() != &*self.node);
        match elsewhere {
            None => self.explain_here(&replicas, key, because),
            Some(node) => self.explain_there(&replicas, key, node, because),
        }
    }

    /// Whose it is, where that is nobody.
    fn explain_owner(&self, entry: &Entry, because: &mut Reasons) {
        let catalog = self.store.catalog();
        if gate::is_orphaned(&entry.table, catalog.directory()) {
            let who = catalog.directory().show_owner(&entry.table.name.owner);
            because.add(format!("nobody is {who} any more: the table belongs to nobody"));
            if gate::root_decides(&entry.table, catalog.directory()) {
                because.add("root of this machine may hand it over: cortex table chown");
            }
        }
    }

    fn explain_here(
        &self,
        replicas: &TableReplicas,
        key: Option<&[u8]>,
        because: &mut Reasons,
    ) -> Result<Finding, CommandError> {
        let name = &replicas.name;
        match replicas.here {
            OwnState::Ready => because.add("the replica here is whole"),
            OwnState::Filling => {
                let sources = replicas.others.iter().filter(|other| other.ready == Some(true));
                let sources: Vec<_> = sources.map(|other| other.node.as_str()).collect();
                if sources.is_empty() {
                    because.add("no node with a whole replica is known yet");
                } else {
                    because.add(format!("rows come from {}", sources.join(", ")));
                }
                return Ok(of_filling(replicas, because));
            }
            OwnState::Frozen => {
                return Ok(Finding::mend(
                    format!(
                        "{name} is frozen here: of the competing decisions about its scope some leave this node out"
                    ),
                    contested(name),
                ));
            }
            OwnState::Draining | OwnState::None if replicas.declined => {
                because.add(self.holders(replicas));
                replicas.describe_drain_path().into_iter().for_each(|reason| because.add(reason));
                return Ok(Finding::mend(
                    format!("{name} is kept away from this node by its root"),
                    format!("as root, on this node: cortex drop {name} --replica --undo"),
                ));
            }
            OwnState::Draining => return Ok(self.explain_drain(replicas, because)),
            OwnState::None => {
                because.add(self.holders(replicas));
                return Ok(Finding::mend(
                    format!("{name} is not on this node: its scope does not contain it"),
                    self.admit(replicas, &self.node),
                ));
            }
        }
        let Some(key) = key else {
            let finding = match &replicas.removed_by {
                Some(node) => {
                    because.add(removed(node));
                    let finding = format!(
                        "{name} is on this node as it was when the node was removed from the mesh"
                    );
                    return Ok(Finding::mend(finding, "on a node of the mesh: cortex mesh invite"));
                }
                None => format!("{name} is on this node, and whole"),
            };
            let lost = |conflicts: u64| match conflicts {
                1 => "a version of a row has lost without anybody having taken note".to_owned(),
                more => {
                    format!("{more} versions of rows have lost without anybody having taken note")
                }
            };
            let mut mend = None;
            if replicas.conflicts() > 0 {
                because.add(format!("{}, on this node", lost(replicas.conflicts())));
                mend = Some(format!("cortex conflicts {name}"));
            }
            for other in &replicas.others {
                if let Some(conflicts @ 1..) = other.conflicts {
                    because.add(format!("{}, on {}", lost(conflicts), other.node));
                    mend = mend.or_else(|| Some(format!("on {}: cortex conflicts", other.node)));
                }
            }
            return Ok(Finding { finding, mend });
        };
        let shown = String::from_utf8_lossy(key);
        Ok(match self.mark_of(replicas, key)? {
            Some(mark) if mark.value.is_some() => {
                because.add(format!("it was written {}", self.written(mark.stamp)));
                Finding::new(format!("{shown} is on this node"))
            }
            Some(mark) => {
                because.add(format!("it was deleted {}", self.written(mark.stamp)));
                Finding::new(format!("{shown} was deleted"))
            }
            None if replicas.others.is_empty() => {
                because.add("no deletion of it is remembered");
                Finding::new(format!(
                    "{shown} is not there: it was never written, or deleted long ago"
                ))
            }
            None => {
                because.add("this node remembers neither the row nor its deletion");
                let lacking = replicas.others.iter().filter(|other| other.state != State::InSync);
                let lacking: Vec<_> = lacking.map(|other| other.node.as_str()).collect();
                if lacking.is_empty() {
                    because.add("every other replica holds the same");
                    Finding::new(format!(
                        "{shown} is on no node: it was never written, or deleted long ago"
                    ))
                } else {
                    because.add(format!("not known to hold the same: {}", lacking.join(", ")));
                    Finding::mend(
                        format!("{shown} is not on this node; another may have it"),
                        format!("cortex sync status {name}"),
                    )
                }
            }
        })
    }

    /// A replica that the scope does not contain any more, and that is still here.
    fn explain_drain(&self, replicas: &TableReplicas, because: &mut Reasons) -> Finding {
        let name = &replicas.name;
        because.add(self.holders(replicas));
        replicas.describe_drain_path().into_iter().for_each(|reason| because.add(reason));
        let cannot = || format!("{name} is to leave this node, and cannot drain");
        match &replicas.drain_path {
            Some(DrainPath::Unreached(nodes)) => {
                let of_link = |node| obstacle::of_link(node, &self.link_to(node), &self.node)?.mend;
                Finding { finding: cannot(), mend: nodes.first().and_then(of_link) }
            }
            Some(DrainPath::Blocked { between }) => {
                let Some(node) = between.first() else {
                    let scope = self.store.catalog().directory().in_scope(replicas.entry.table.uid);
                    let scope: Vec<_> = scope.into_iter().collect();
                    let link = format!(
                        "add {} to mesh.nodes in cortex.toml(5); then: systemctl reload cortexd",
                        either(&scope)
                    );
                    return Finding::mend(cannot(), link);
                };
                let (admit, narrow) =
                    (self.admit(replicas, node.as_str()), self.scope_again(replicas));
                let mend = format!("{admit}; once it has left {}: {narrow}", self.node);
                Finding::mend(cannot(), mend)
            }
            Some(DrainPath::NoScope) => Finding::mend(cannot(), self.admit(replicas, &self.node)),
            Some(DrainPath::Drained | DrainPath::Open(_)) | None => Finding::mend(
                format!("{name} is leaving this node: its scope does not contain it any more"),
                self.admit(replicas, &self.node),
            ),
        }
    }

    fn explain_there(
        &self,
        replicas: &TableReplicas,
        key: Option<&[u8]>,
        node: &NodeName,
        because: &mut Reasons,
    ) -> Result<Finding, CommandError> {
        let name = &replicas.name;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let link = self.link_to(node);
        if directory.is_put_out(node) {
            because.add(format!("{node} was removed from the mesh"));
            return Ok(Finding::mend(
                format!("{name} is not on {node} any more"),
                format!("cortex mesh invite {node}"),
            ));
        }
        if directory.node(node).is_none() {
            because.add(format!("{node} has not presented itself to the mesh"));
            let mend = if link == Link::Unknown {
                "cortex mesh list-nodes".to_owned()
            } else {
                "cortex mesh status".to_owned()
            };
            return Ok(Finding::mend(format!("{node} is no member of this mesh"), mend));
        }
        if directory.is_declined(replicas.entry.table.uid, node) {
            return Ok(Finding::mend(
                format!("{name} is kept away from {node} by its root"),
                format!("as root, on {node}: cortex drop {name} --replica --undo"),
            ));
        }
        match directory.standing(replicas.entry.table.uid, node) {
            Standing::In => because.add(format!("the scope contains {node}")),
            Standing::Frozen => {
                because.add(format!("some of the competing decisions leave {node} out"));
                return Ok(Finding::mend(
                    format!(
                        "{name} is frozen on {node}: it changes nothing until the scope is decided"
                    ),
                    contested(name),
                ));
            }
            Standing::Out if !replicas.entry.replicated => {
                return Ok(Finding::mend(
                    format!("{name} is not on {node}: the table is local to this node"),
                    self.admit(replicas, node.as_str()),
                ));
            }
            Standing::Out => {
                let state = other(replicas, node).map(|other| other.state);
                if state == Some(State::Draining) {
                    let name_there = self.name_elsewhere(replicas);
                    return Ok(explain_drain_there(
                        [name, &name_there],
                        node,
                        &link,
                        &self.node,
                        because,
                    ));
                }
                return Ok(Finding::mend(
                    format!("{name} is not on {node}: the scope does not contain it"),
                    self.admit(replicas, node.as_str()),
                ));
            }
        }
        let Some(found) = other(replicas, node) else {
            return Ok(Finding::mend(
                format!("of the replica of {name} on {node} nothing is known"),
                "cortex mesh status",
            ));
        };
        because.add(match link {
            Link::Up => format!("there is a link to {node}"),
            Link::Silent(seconds) => {
                format!("on the link to {node} nothing has come for {seconds} s")
            }
            Link::Down(_) | Link::Unknown => format!("there is no link to {node}"),
        });
        if let Some(why) = &found.why {
            because.add(why.clone());
        }
        if let Some(ahead) = self.sync.ahead() {
            because.add(ahead.summary());
        }
        match key {
            None => Ok(of_replica(name, node, found, &link)),
            Some(key) => self.explain_row_there(replicas, key, node, because),
        }
    }

    fn explain_row_there(
        &self,
        replicas: &TableReplicas,
        key: &[u8],
        node: &NodeName,
        because: &mut Reasons,
    ) -> Result<Finding, CommandError> {
        let (name, shown) = (&replicas.name, String::from_utf8_lossy(key));
        let Some(mark) = self.mark_of(replicas, key)? else {
            because.add("this node has neither the row nor its deletion to compare with");
            return Ok(Finding::mend(
                format!("whether {node} has {shown} is not known here"),
                format!("on {node}: cortex explain {} {shown}", self.name_elsewhere(replicas)),
            ));
        };
        let what = if mark.value.is_some() { "it was written" } else { "it was deleted" };
        because.add(format!("{what} {}", self.written(mark.stamp)));
        let dot = Dot { actor: mark.stamp.actor, seq: mark.seq };
        let known = self.sync.of(replicas.entry.table.uid, node).and_then(|known| known.status);
        let is_known = known.is_some_and(|word| word.vector.covers(dot));
        if is_known {
            because.add(format!("{node} has said that it has incorporated this write"));
            let now = if mark.value.is_some() { "is on" } else { "was deleted on" };
            let diverged =
                other(replicas, node).is_some_and(|other| other.state == State::Diverged);
            return Ok(if diverged {
                Finding::mend(
                    format!("{shown} should be as here on {node}, but the replicas have diverged"),
                    format!("cortex sync repair {name}"),
                )
            } else {
                Finding::new(format!("{shown} {now} {node}, or something later is"))
            });
        }
        because.add(format!("{node} has not said that it has incorporated this write"));
        let mend = other(replicas, node).and_then(|other| other.mend.clone());
        Ok(Finding::mend(
            format!("{shown} has not reached {node} as far as is known here"),
            mend.unwrap_or_else(|| format!("cortex sync wait {name} --node {node}")),
        ))
    }

    /// The nodes that may hold a table, as text.
    fn holders(&self, replicas: &TableReplicas) -> String {
        let catalog = self.store.catalog();
        let admitted = catalog.directory().in_scope(replicas.entry.table.uid);
        let admitted: Vec<_> = admitted.iter().map(NodeName::as_str).collect();
        match admitted.as_slice() {
            [] => "no node of this mesh is in its scope".into(),
            nodes => format!("by its scope it is on {}", nodes.join(", ")),
        }
    }

    /// What a table is called on other nodes.
    fn name_elsewhere(&self, replicas: &TableReplicas) -> String {
        match &replicas.entry.table.name.owner {
            Owner::Uid(uid) => format!("{uid}@{}:{}", self.node, replicas.entry.table.name.name),
            Owner::Remote(..) | Owner::Identity(_) => replicas.name.clone(),
        }
    }

    /// The command that lets a node hold a table, besides those that may already.
    fn admit(&self, replicas: &TableReplicas, node: &str) -> String {
        let names = self.scope_names(replicas).map(|mut names| {
            names.insert(node.to_owned());
            names
        });
        decide_scope(&replicas.name, names)
    }

    /// The command that decides the scope that there is once more.
    fn scope_again(&self, replicas: &TableReplicas) -> String {
        decide_scope(&replicas.name, self.scope_names(replicas))
    }

    /// The nodes that the scope names; none where it names none, being all of them.
    fn scope_names(&self, replicas: &TableReplicas) -> Option<BTreeSet<String>> {
        let entry = &replicas.entry;
        let names = match &entry.table.scope {
            Scope::All => return None,
            Scope::Nodes(nodes) => nodes.iter().map(|node| node.as_str().into()).collect(),
            Scope::Local if !entry.replicated => [self.node.to_string()].into(),
            Scope::Local => {
                let admitted = self.store.catalog().directory().in_scope(entry.table.uid);
                admitted.iter().map(|node| node.as_str().into()).collect()
            }
        };
        Some(names)
    }

    fn mark_of(
        &self,
        replicas: &TableReplicas,
        key: &[u8],
    ) -> Result<Option<RowMark>, CommandError> {
        let mut encoded = Vec::new();
        encode::str_bytes(&mut encoded, key);
        let Ok(key) = Key::read(&encoded, &self.store.limits()) else {
            return Ok(None);
        };
        Ok(self.store.mark(replicas.entry.table.id, key.as_bytes())?)
    }

    fn written(&self, stamp: Stamp) -> String {
        let catalog = self.store.catalog();
        let by = match writer(catalog.directory(), stamp.actor) {
            Some(node) => format!("by {node}"),
            None if stamp.actor == self.store.actor() => format!("by {}", self.node),
            None => "by a node whose actor id was rotated since".into(),
        };
        let at = shown(stamp.hlc.unix_ms() / 1000);
        format!("at {at} {by}")
    }
}

/// A moment as people read it, in UTC: `2026-11-21T13:30:00Z`.
fn shown(unix_s: u64) -> String {
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(seconds) else {
        return "a time after the year 9999".into();
    };
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date}T{hour:02}:{minute:02}:{second:02}Z")
}

fn other<'c>(replicas: &'c TableReplicas, node: &NodeName) -> Option<&'c Other> {
    replicas.others.iter().find(|other| other.node == *node)
}

/// A replica whose rows have not all come: waiting helps as long as somebody can send them.
fn of_filling(replicas: &TableReplicas, because: &mut Reasons) -> Finding {
    let name = &replicas.name;
    let others = replicas.others.iter().filter(|other| other.state != State::Left);
    let others: Vec<&Other> = others.collect();
    match others.first().and_then(|other| other.mend.clone()) {
        Some(mend) if others.iter().all(|other| other.mend.is_some()) => {
            for other in others {
                let why = other.why.as_deref().unwrap_or_default();
                because.add(format!("{}: {why}", other.node));
            }
            let finding = format!("the rows of {name} do not all come through to this node");
            Finding::mend(finding, mend)
        }
        Some(_) | None => Finding::mend(
            format!("the rows of {name} are still on their way to this node"),
            format!("cortex sync wait {name}"),
        ),
    }
}

fn decide_scope(name: &str, nodes: Option<BTreeSet<String>>) -> String {
    let scope = nodes.map(|nodes| nodes.into_iter().collect::<Vec<_>>().join(","));
    format!("cortex scope {name} {}", scope.as_deref().unwrap_or("all"))
}

/// Which of the competing decisions shall hold is for somebody to say.
fn contested(name: &str) -> String {
    format!("cortex scope {name} SCOPE")
}

/// A replica that has not said yet that it has left.
fn explain_drain_there(
    [name, name_there]: [&str; 2],
    node: &NodeName,
    link: &Link,
    own: &str,
    because: &mut Reasons,
) -> Finding {
    because.add(format!("{node} has not said yet that it has handed over what it held"));
    let mend = if *link == Link::Unknown {
        because.add(format!(
            "this node is not linked to {node}: whether any node of the scope is, is known there"
        ));
        format!("on {node}: cortex explain {name_there}")
    } else if let Some(obstacle) = obstacle::of_link(node, link, own) {
        because.add(format!("{node} is {}", obstacle.why));
        obstacle.mend.unwrap_or_else(|| "cortex mesh status".to_owned())
    } else {
        format!("cortex scope {name}")
    };
    Finding::mend(format!("{name} is leaving {node}"), mend)
}

fn of_replica(name: &str, node: &NodeName, found: &Other, link: &Link) -> Finding {
    // Where something stands in the way, no waiting helps.
    let mend =
        found.mend.clone().unwrap_or_else(|| format!("cortex sync wait {name} --node {node}"));
    let finding = match found.state {
        State::InSync => {
            return Finding::new(format!("{name} is on {node}, and holds the same as here"));
        }
        State::Diverged => {
            return Finding::mend(
                format!("{name} is on {node}, and holds other rows than here"),
                format!("cortex sync repair {name}"),
            );
        }
        State::Draining | State::Left => {
            return Finding::mend(
                format!("{name} is leaving {node}"),
                format!("cortex scope {name}"),
            );
        }
        State::Behind if *link != Link::Up => {
            format!("{name} is on {node}, and behind: it is not reached")
        }
        State::Behind if found.mend.is_some() => {
            format!("{name} is on {node}, and rows do not pass between the two replicas")
        }
        State::Behind => {
            format!("{name} is on {node}, and the two replicas are catching up with each other")
        }
        State::Unknown if *link == Link::Up => {
            format!("how the replica of {name} on {node} is, is not known yet")
        }
        State::Unknown => format!("how the replica of {name} on {node} is, is not known now"),
    };
    Finding::mend(finding, mend)
}
