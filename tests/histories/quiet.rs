//! What is done between two cycles, while nothing is wrong and nobody asks: a machine is replaced, somebody becomes
//! another, and a table is made twice. What tables hold then is `rest`'s.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use rmpv::Value;

use crate::client::Reply;
use crate::history::NodeId;
use crate::replica;
use crate::rpc::{field, list, map};
use crate::tables::{Kind, Where};
use crate::world::World;

/// Two creations of one table that did not know of each other.
struct Creations {
    /// The table's name without its owner.
    word: String,
    name: String,
    /// Who made it, where it was to be, and what its record begins with.
    sides: [(NodeId, Where, String); 2],
}

impl World {
    /// What needs quiet: nothing is wrong, nobody asks, and all nodes hold the same.
    pub(crate) fn between_cycles(&mut self) {
        if self.chance.percent(35) {
            let last_but_one = self.nodes.len() as u64 - 2;
            let replaced = self.chance.within(1, last_but_one);
            self.replace(usize::try_from(replaced).expect("a node"));
        }
        if self.chance.percent(35) {
            self.make_twice();
        }
        if self.chance.percent(30) {
            self.bob_becomes_another();
        }
    }

    /// A machine is removed, and a fresh one takes its name. The others have all that it had.
    fn replace(&mut self, node: NodeId) {
        let name = self.shared.names[node].clone();
        let (is_lost, revokes, at_once) =
            (self.chance.percent(50), self.chance.percent(50), self.chance.percent(50));
        self.shared.trace(&format!("REPLACE {name} lost {is_lost} revoked {revokes} {at_once}"));
        *self.faults.entry("replace").or_default() += 1;
        if is_lost {
            self.nodes[node].kill();
        }
        if revokes && at_once {
            self.revoke(node);
        }
        self.must(0, "mesh_remove_node", &[name.as_str().into()]);
        if revokes && !at_once {
            self.revoke(node);
        }
        // In a chain nobody beyond it can hear of that before another is in its place.
        let others: BTreeSet<_> = (0..self.nodes.len()).filter(|other| *other != node).collect();
        if !is_lost && self.shared.is_connected(&others) {
            self.nobody_takes_from(node);
        }
        self.nodes[node].terminate();
        self.nodes[node].wipe();
        self.ca.issue(&name);
        self.configure(node, "");
        self.nodes[node].start();
        assert!(self.nodes[node].wait_until_it_answers(), "{name} does not start");
        self.claim(node);
        let own =
            self.shared.tables.iter().find(|t| t.kind == Kind::Own && t.home == node).cloned();
        if let Some(own) = own {
            self.make_table(&own);
            self.contents.retain(|(table, _), _| *table != own.id);
        }
        self.rest_again();
    }

    /// Once a machine that was removed is reached by nobody, what it writes comes to nobody.
    fn nobody_takes_from(&mut self, node: NodeId) {
        let others: Vec<_> = (0..self.nodes.len()).filter(|other| *other != node).collect();
        self.wait("a removed machine is put out", |world| {
            others.iter().all(|other| !world.sees(*other, node))
        });
        let notes = self.shared.tables.iter().find(|table| table.kind == Kind::Notes).cloned();
        let notes = notes.expect("there is such a table");
        let ghost = format!("{}of a removed machine", notes.mark);
        let row = map([("id", "ghost".into()), ("v", ghost.as_str().into())]);
        let name = self.shared.name_on(&notes, node);
        // Where that is refused, all the better.
        self.nodes[node].ask("put", &[name.into(), row]);
        sleep(Duration::from_millis(1500));
        for other in others {
            self.find("notes", &ghost, other, "it was written on a machine that was removed");
        }
    }

    /// Puts a node's certificate onto the list that all of them read.
    fn revoke(&mut self, node: NodeId) {
        self.ca.revoke(&self.shared.names[node]);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.must(other, "reload", &[]);
        }
    }

    /// Two nodes that do not reach each other make a table of one name. Once they meet, the narrower scope holds,
    /// all say that decisions compete, and no byte is where one of the two did not let it be. Then somebody
    /// decides, and nothing of what was written is lost.
    fn make_twice(&mut self) {
        let made = self.draw_creations();
        self.shared.trace(&format!("TWICE {} {:?}", made.word, made.sides));
        let other = made.sides[1].0;
        self.cut_off(other, true);
        for (node, place, mark) in &made.sides {
            let (name, scope) = (made.name.as_str(), self.shared.scope_text(place));
            let attributes = list(["id".into(), "v".into()]);
            let answer = self.must(*node, "create_table", &[name.into(), attributes, scope.into()]);
            assert_eq!(answer, "created".into(), "{name} on {node}, which nobody knows of");
            let row = map([("id", mark.as_str().into()), ("v", mark.as_str().into())]);
            self.must(*node, "put", &[name.into(), row]);
        }
        self.cut_off(other, false);
        self.the_narrower_holds(&made);
        self.somebody_decides(&made);
    }

    fn draw_creations(&mut self) -> Creations {
        let number = *self.faults.entry("twice").and_modify(|n| *n += 1).or_insert(1);
        let of_ann: Vec<_> = (1..self.nodes.len()).filter(|n| self.shared.is_ann(*n)).collect();
        let nodes = [0, self.chance.of(&of_ann)];
        let places = loop {
            let places = nodes.map(|node| self.shared.draw_scope(&mut self.chance, Some(node)));
            if places[0] != places[1] {
                break places;
            }
        };
        let word = format!("twice_{number}");
        let mark = |node: NodeId| format!("mark-{:x}.{word}.{node}.", self.frame.seed);
        let [first, second] = places;
        let sides = [(nodes[0], first, mark(nodes[0])), (nodes[1], second, mark(nodes[1]))];
        Creations { name: format!("@{}:{word}", self.shared.people.ann), word, sides }
    }

    /// Closes all links of a node, or lets them be again, and waits until everybody has noticed.
    fn cut_off(&mut self, node: NodeId, is_cut: bool) {
        let links = self.ability.links.clone();
        let own: Vec<_> = links.into_iter().filter(|(a, b)| *a == node || *b == node).collect();
        own.iter().for_each(|(a, b)| self.wires.refuse(*a, *b, is_cut));
        self.wait("all have noticed who is reached", |world| {
            own.iter().all(|(a, b)| world.sees(*a, *b) != is_cut && world.sees(*b, *a) != is_cut)
        });
    }

    fn the_narrower_holds(&mut self, made: &Creations) {
        let count = self.nodes.len();
        let [first, second] = [0, 1].map(|side: usize| made.sides[side].1.nodes(count));
        let narrower: BTreeSet<NodeId> = &first & &second;
        self.wait(
            "the narrower scope of two creations holds, and they are said to compete",
            |world| world.all_say(made, &narrower, true),
        );
        for (_, place, mark) in &made.sides {
            let nodes = place.nodes(count);
            for node in (0..count).filter(|node| !nodes.contains(node)) {
                self.find(&made.word, mark, node, "its creation left this node out");
            }
        }
    }

    fn somebody_decides(&mut self, made: &Creations) {
        let count = self.nodes.len();
        let (decides, to) = (
            self.chance.of(&made.sides.each_ref().map(|(node, ..)| *node)),
            self.shared.draw_scope(&mut self.chance, None),
        );
        let scope = self.shared.scope_text(&to);
        self.shared.trace(&format!("TWICE {} is decided on {decides}: {scope}", made.word));
        let name = made.name.as_str();
        self.must(decides, "set_scope", &[name.into(), scope.into()]);
        let uid = replica::table_uid(&self.nodes[made.sides[0].0].database(), &made.word);
        let to = to.nodes(count);
        self.wait("the decision holds, and all have both records", |world| {
            let uid = uid.clone().or_else(|| {
                let holders = to.iter().map(|node| world.nodes[*node].database());
                holders.into_iter().find_map(|path| replica::table_uid(&path, &made.word))
            });
            let Some(uid) = uid else { return false };
            let holds = |node: NodeId| {
                let rows = replica::rows(&world.nodes[node].database(), &uid).unwrap_or_default();
                if to.contains(&node) { rows.len() == 2 } else { rows.is_empty() }
            };
            world.all_say(made, &to, false) && (0..count).all(holds)
        });
        self.must(decides, "drop_table", &[name.into()]);
        self.wait("a dropped table is gone", |world| {
            let knows = |node: NodeId| {
                matches!(world.nodes[node].ask("get_scope", &[name.into()]), Reply::Done(_))
            };
            !(0..count).any(|node| world.shared.is_ann(node) && knows(node))
        });
    }

    /// Whether each node of the owner says that a table may be on these, and whether decisions compete.
    fn all_say(&self, made: &Creations, nodes: &BTreeSet<NodeId>, competes: bool) -> bool {
        let says = |node: NodeId| {
            let told = self.nodes[node].ask("get_scope", &[made.name.as_str().into()]).done()?;
            let is_named = |name: &str| match field(&told, "node_scope") {
                Some(Value::Array(names)) => names.iter().any(|one| one.as_str() == Some(name)),
                Some(Value::String(scope)) => scope.as_str() == Some("all"),
                _ => false,
            };
            let named = (0..self.nodes.len()).filter(|one| is_named(&self.shared.names[*one]));
            let is_contested = field(&told, "contested")?.as_bool()?;
            Some(named.collect::<BTreeSet<_>>() == *nodes && is_contested == competes)
        };
        (0..self.nodes.len())
            .filter(|node| self.shared.is_ann(*node))
            .all(|n| says(n) == Some(true))
    }

    /// Bob's identity is revoked, and his uid becomes another one of the same name: it has none of the rights.
    fn bob_becomes_another(&mut self) {
        self.shared.trace("BOB becomes another");
        *self.faults.entry("identity").or_default() += 1;
        let (bob, node) = (self.shared.people.bob.clone(), self.nodes.len() - 1);
        let before = self.must(node, "identity_lookup", &[bob.as_str().into()]);
        self.must(node, "identity_revoke", &[bob.as_str().into()]);
        for table in self.shared.tables.clone().iter().filter(|table| table.kind != Kind::Own) {
            let name = self.shared.name_on(table, node);
            if let Reply::Done(rows) = self.nodes[node].ask("all", &[name.as_str().into()]) {
                self.shared.break_off(format!("rights: a revoked identity reads {name}: {rows}"));
            }
        }
        self.must(node, "identity_register", &[bob.as_str().into()]);
        self.wait("all know the other bob", |world| {
            let known =
                world.nodes.iter().map(|at| at.ask("identity_lookup", &[bob.as_str().into()]));
            let is_other = |now: Option<Value>| {
                now.is_some_and(|now| field(&now, "fid") != field(&before, "fid"))
            };
            known.map(Reply::done).all(is_other)
        });
        self.shared.book().decisions.clear();
        self.rights_hold();
    }
}
