//! Machines of a mesh whose tables replicate: daemons by name, who knows whom, and lines that can be cut.
//! Leaves what is written and awaited to the tests.

use std::collections::BTreeMap;

use rmpv::Value;

use super::daemon::{Daemon, wait_until};
use super::line::{Line, Way};
use super::mesh::{Authority, free_port, is_connected};
use super::rpc::{field, map};

/// The daemons of a mesh.
pub(crate) struct Cluster {
    pub(crate) ca: Authority,
    ports: BTreeMap<String, u16>,
    daemons: BTreeMap<String, Daemon>,
    lines: BTreeMap<(String, String), Line>,
    links: Vec<(String, String)>,
}

impl Cluster {
    /// Starts daemons of which each pair in `links` know each other.
    pub(crate) fn start(names: &[&str], links: &[(&str, &str)]) -> Self {
        let mut cluster = Self::prepared(names, links);
        for name in names {
            cluster.boot(name);
        }
        cluster.wait_for_links();
        cluster
    }

    /// The same without a daemon yet.
    pub(crate) fn prepared(names: &[&str], links: &[(&str, &str)]) -> Self {
        let ca = Authority::new();
        names.iter().for_each(|name| ca.issue(name));
        let ports = names.iter().map(|name| ((*name).to_owned(), free_port())).collect();
        let links = links.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Self { ca, ports, daemons: BTreeMap::new(), lines: BTreeMap::new(), links }
    }

    /// Every pair.
    pub(crate) fn whole(names: &[&str]) -> Self {
        let pairs = names.iter().enumerate();
        let pairs =
            pairs.flat_map(|(n, a)| names[n + 1..].iter().map(|b| (*a, *b))).collect::<Vec<_>>();
        Self::start(names, &pairs)
    }

    /// Two daemons and a line between them that can be cut.
    pub(crate) fn with_line(a: &str, b: &str) -> Self {
        let mut cluster = Self::prepared(&[a, b], &[(a, b)]);
        for (from, to) in [(a, b), (b, a)] {
            let line = Line::to(cluster.ports[to]);
            cluster.lines.insert((from.to_owned(), to.to_owned()), line);
        }
        for name in [a, b] {
            cluster.boot(name);
        }
        cluster.wait_for_links();
        cluster
    }

    /// Starts a daemon for the first time.
    pub(crate) fn boot(&mut self, name: &str) {
        self.boot_with(name, "");
    }

    /// The same with more settings.
    pub(crate) fn boot_with(&mut self, name: &str, more: &str) {
        let daemon = Daemon::with_config(&format!("{more}{}", self.settings(name)));
        self.daemons.insert(name.to_owned(), daemon);
    }

    fn settings(&self, name: &str) -> String {
        let others = self.links.iter().filter_map(|(a, b)| match name {
            _ if name == a => Some(b),
            _ if name == b => Some(a),
            _ => None,
        });
        let port = |other: &String| {
            let line = self.lines.get(&(name.to_owned(), other.clone()));
            line.map_or(self.ports[other], Line::port)
        };
        let others: Vec<_> = others.map(|other| (other.as_str(), port(other))).collect();
        self.ca.settings(name, self.ports[name], &others)
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    pub(crate) fn node(&self, name: &str) -> &Daemon {
        &self.daemons[name]
    }

    pub(crate) fn node_mut(&mut self, name: &str) -> &mut Daemon {
        self.daemons.get_mut(name).expect("a daemon of that name")
    }

    pub(crate) fn wait_for_links(&self) {
        for (a, b) in &self.links {
            wait_until("the two see each other", || {
                is_connected(self.node(a), b) && is_connected(self.node(b), a)
            });
        }
    }

    /// No byte passes any more, and open connections are gone.
    pub(crate) fn cut(&self) {
        self.lines.values().for_each(Line::cut);
        for (a, b) in &self.links {
            wait_until("the two have lost each other", || {
                !is_connected(self.node(a), b) && !is_connected(self.node(b), a)
            });
        }
    }

    /// What this machine says arrives nowhere, and nobody is told: the line is dead in one direction.
    pub(crate) fn silence(&self, name: &str) {
        for ((from, _), line) in &self.lines {
            line.lose(Some(if from == name { Way::Out } else { Way::Back }));
        }
    }

    /// The end of that. Connections that have lost bytes do not outlive it.
    pub(crate) fn hear_again(&self) {
        self.lines.values().for_each(|line| {
            line.cut();
            line.lose(None);
            line.heal();
        });
        self.wait_for_links();
    }

    pub(crate) fn heal(&self) {
        self.lines.values().for_each(Line::heal);
        self.wait_for_links();
    }

    /// Makes a table on a machine that everybody may read and write, wherever it is.
    pub(crate) fn create(&self, at: &str, table: &str, scope: &str) {
        let mut rpc = self.node(at).connect();
        let attributes = Value::Array(vec!["id".into()]);
        rpc.call("create_table", &[table.into(), attributes, scope.into()]).expect("created");
        rpc.call("acl_grant", &["*".into(), table.into(), "read,write".into()]).expect("granted");
    }

    pub(crate) fn put(&self, at: &str, table: &str, id: impl Into<Value>, text: &str) {
        let record = map([("id", id.into()), ("text", text.into())]);
        let mut stored = Ok(Value::Nil);
        // What grants the right may arrive after the table.
        wait_until(&format!("{at} may write {table}"), || {
            stored = self.node(at).connect().call("put", &[table.into(), record.clone()]);
            stored != Err("access_denied".into())
        });
        assert_eq!(stored, Ok("ok".into()), "put on {at}");
    }

    pub(crate) fn delete(&self, at: &str, table: &str, id: impl Into<Value>) {
        let deleted = self.node(at).connect().call("delete", &[table.into(), id.into()]);
        assert_eq!(deleted, Ok("ok".into()), "delete on {at}");
    }

    /// The text of a record; none where there is none, or no such table.
    pub(crate) fn get(&self, at: &str, table: &str, id: impl Into<Value>) -> Option<String> {
        let found = self.node(at).connect().call("get", &[table.into(), id.into()]).ok()?;
        Some(field(&found, "text")?.as_str().expect("a text").to_owned())
    }

    pub(crate) fn wait_for(&self, at: &str, table: &str, id: impl Into<Value>, text: Option<&str>) {
        let id = id.into();
        wait_until(&format!("{text:?} in {table} on {at}"), || {
            self.get(at, table, id.clone()).as_deref() == text
        });
    }

    /// All records of a table by their keys; none where there is no such table.
    pub(crate) fn all(&self, at: &str, table: &str) -> Option<BTreeMap<String, Value>> {
        let all = self.node(at).connect().call("all", &[table.into()]).ok()?;
        let all = all.as_array().expect("a list").iter();
        Some(all.map(|row| (field(row, "id").expect("an id").to_string(), row.clone())).collect())
    }
}

/// The name that a table of this process's uid on a machine has everywhere but there.
pub(crate) fn there(home: &str, table: &str) -> String {
    format!("{}@{home}:{table}", nix::unistd::geteuid())
}
