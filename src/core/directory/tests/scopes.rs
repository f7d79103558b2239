//! Where tables may be, and which epochs of their replicas count, over histories of nodes that hear of
//! each other late, in pieces and in any order. Who had seen what is kept apart from the rows.

use super::{members::presented, *};

fn some(names: &[&str]) -> BTreeSet<NodeName> {
    names.iter().map(|text| node(text)).collect()
}

fn scope(text: &str) -> Scope {
    Scope::parse(text).expect("a scope")
}

fn counts(pairs: &[(&str, u64)]) -> Seen {
    pairs.iter().map(|(text, count)| (node(text), *count)).collect()
}

/// A directory of that node, in which all three have presented themselves.
fn of_three(here: &str) -> Directory {
    let mut directory = Directory::new(Some(node(here)));
    directory.extend((1..).zip(NODES).map(|(n, text)| presented(text, [n; 16])));
    directory
}

fn decide(directory: &mut Directory, here: &str, text: &str, off: &[&str]) {
    let row = directory.decide_scope(&node(here), TABLE, scope(text), &some(off), 0);
    directory.insert(row.expect("room"));
}

fn replica(text: &str, database: u8, up: u64, down: u64) -> Row {
    let database = [database; 16];
    Row::Replica(ReplicaRow { table: TABLE, node: node(text), database, up, down, declines: 0 })
}

fn standings(directory: &Directory) -> [Standing; 3] {
    NODES.map(|text| directory.standing(TABLE, &node(text)))
}

#[test]
fn where_nobody_has_decided_every_node_is_out() {
    assert_eq!(standings(&of_three("a")), [Standing::Out; 3]);
}

#[test]
fn a_decision_that_had_not_seen_another_competes_with_it_and_narrows() {
    let (mut a, mut b) = (of_three("a"), of_three("b"));
    decide(&mut a, "a", "a,b", &[]);
    let heard = a.clone();
    decide(&mut b, "b", "b,c", &[]);
    b.written_by(&node("b")).for_each(|row| a.insert(row));
    assert_eq!(standings(&a), [Standing::Frozen, Standing::In, Standing::Frozen]);
    assert_eq!(a.in_scope(TABLE), some(&["b"]));
    // The same wish of a node that had seen the other replaces it.
    let mut b = seen_from("b", &heard);
    decide(&mut b, "b", "b,c", &[]);
    assert_eq!(standings(&b), [Standing::Out, Standing::In, Standing::In]);
}

#[test]
fn a_local_scope_means_the_node_that_decided_it() {
    let mut a = of_three("a");
    decide(&mut a, "b", "local", &[]);
    assert_eq!(standings(&a), [Standing::Out, Standing::In, Standing::Out]);
}

#[test]
fn all_are_the_members_and_this_node() {
    let mut a = Directory::new(Some(node("a")));
    a.insert(presented("b", [2; 16]));
    decide(&mut a, "b", "all", &[]);
    assert_eq!(standings(&a), [Standing::In, Standing::In, Standing::Out]);
    assert_eq!(a.in_scope(TABLE), some(&["b"]), "this node has not presented itself");
}

#[test]
fn what_a_decision_had_seen_counts_as_known_before_it_is_held() {
    let mut a = of_three("a");
    decide(&mut a, "a", "all", &[]);
    let mut b = seen_from("b", &a);
    decide(&mut b, "b", "b", &[]);
    let mut c = of_three("c");
    b.written_by(&node("b")).for_each(|row| c.insert(row));
    assert_eq!(c.scope_knowledge(TABLE), counts(&[("a", 1), ("b", 1)]));
    assert!(c.decided_by(TABLE, &node("b")) && !c.decided_by(TABLE, &node("a")));
    assert_eq!(c.tables_decided().collect::<Vec<_>>(), [TABLE]);
}

#[test]
fn a_replica_that_was_drained_begins_its_next_epoch_and_one_that_was_not_goes_on() {
    let mut a = of_three("a");
    decide(&mut a, "a", "a,b", &[]);
    assert_eq!(a.epochs(TABLE), counts(&[("a", 1), ("b", 1)]));
    a.extend([replica("a", 1, 1, 0), replica("b", 2, 1, 0)]);
    decide(&mut a, "a", "a", &[]);
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1), ("b", 1)]), "b holds rows still");
    let mut back_early = a.clone();
    decide(&mut back_early, "a", "a,b", &[]);
    assert_eq!(back_early.must_confirm(TABLE), counts(&[("a", 1), ("b", 1)]));
    a.insert(replica("b", 2, 1, 1));
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1)]));
    decide(&mut a, "a", "a,b", &[]);
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1), ("b", 2)]));
    assert_eq!(a.replica(TABLE, &node("b")).map(|row| row.down), Some(1));
}

#[test]
fn nobody_waits_for_a_replica_that_was_abandoned() {
    let mut a = of_three("a");
    decide(&mut a, "a", "a,b", &[]);
    a.insert(replica("b", 2, 3, 0));
    decide(&mut a, "a", "a", &["b", "c"]);
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1)]));
    assert_eq!(a.gone(TABLE), counts(&[("b", 3)]), "c had nothing to lose");
    decide(&mut a, "a", "a,b", &["b"]);
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1), ("b", 4)]), "it begins anew");
}

#[test]
fn a_member_that_came_after_the_decision_may_hold_rows_of_which_nothing_is_known() {
    let mut a = of_three("a");
    decide(&mut a, "a", "all", &[]);
    a.insert(presented("d", [4; 16]));
    assert_eq!(a.standing(TABLE, &node("d")), Standing::In);
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1), ("b", 1), ("c", 1), ("d", 0)]));
}

#[test]
fn the_epochs_of_a_removed_database_are_over_and_those_of_its_successor_are_not() {
    let mut a = of_three("a");
    decide(&mut a, "a", "all", &[]);
    a.insert(replica("b", 2, 5, 2));
    let rows = a.remove_node(&node("a"), &node("b"), 0);
    take(&mut a, rows);
    assert_eq!(standings(&a), [Standing::In, Standing::Out, Standing::In]);
    assert_eq!(a.gone(TABLE), counts(&[("b", 5)]));
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1), ("c", 1)]));
    decide(&mut a, "a", "all", &[]);
    assert_eq!(a.epochs(TABLE)[&node("b")], 5, "no epoch is begun for it");
    a.insert(presented("b", [8; 16]));
    assert_eq!(a.standing(TABLE, &node("b")), Standing::In);
    assert_eq!(a.gone(TABLE), counts(&[("b", 5)]), "the replica was in the database that is gone");
    a.insert(replica("b", 8, 6, 5));
    assert_eq!(a.must_confirm(TABLE), counts(&[("a", 1), ("b", 6), ("c", 1)]));
}

#[test]
fn decisions_that_claim_to_replace_each_other_all_count() {
    let mut a = of_three("a");
    for (by, other, text) in [("a", "b", "a,c"), ("b", "a", "b,c")] {
        let (epochs, off) = (Seen::new(), Seen::new());
        let (by, seen) = (node(by), counts(&[(other, u64::MAX)]));
        let scope = scope(text);
        a.insert(Row::Scope(ScopeRow { table: TABLE, by, scope, count: 1, seen, epochs, off }));
    }
    assert_eq!(standings(&a), [Standing::Frozen, Standing::Frozen, Standing::In]);
    decide(&mut a, "b", "all", &[]);
    assert!(a.whereabouts(TABLE).expect("decided").contested, "a had seen every number of b");
}

#[derive(Clone, Debug)]
enum Step {
    Decide {
        scope: &'static str,
        off: Vec<usize>,
    },
    /// The node's replica begins an epoch where it is in scope, and ends it where it is out.
    React,
    Remove(usize),
    /// Comes back with another database.
    Reinstall(u8),
    /// Hears of some of the rows that another node holds.
    Receive {
        from: usize,
        mask: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let scopes = prop::sample::select(vec!["all", "local", "a", "a,b", "b,c", "a,b,c", "a,c"]);
    let off = prop::collection::vec(0usize..3, 0..2);
    let mask = prop_oneof![Just(u64::MAX), any::<u64>()];
    let step = prop_oneof![
        4 => (scopes, off).prop_map(|(scope, off)| Step::Decide { scope, off }),
        3 => Just(Step::React),
        1 => (0usize..3).prop_map(Step::Remove),
        1 => (10u8..20).prop_map(Step::Reinstall),
        8 => (0usize..3, mask).prop_map(|(from, mask)| Step::Receive { from, mask }),
    ];
    prop::collection::vec((0usize..3, step), 1..40)
}

/// A decision as it came about.
struct Made {
    by: usize,
    scope: Scope,
    past: BTreeSet<usize>,
}

/// A node with what it holds, as the store would: of each key the newest version.
struct Node {
    directory: Directory,
    held: BTreeMap<String, usize>,
    knows: BTreeSet<usize>,
}

#[derive(Default)]
struct World {
    /// Every version of every row, in the order in which they were written.
    written: Vec<Row>,
    made: Vec<Made>,
    /// By the number of the version, the number of the decision in it.
    decisions: BTreeMap<usize, usize>,
    nodes: Vec<Node>,
}

impl World {
    fn new() -> Self {
        let new = |text: &&str| Node {
            directory: Directory::new(Some(node(text))),
            held: BTreeMap::new(),
            knows: BTreeSet::new(),
        };
        let mut world = Self { nodes: NODES.iter().map(new).collect(), ..Self::default() };
        for (at, text) in NODES.iter().enumerate() {
            let database = u8::try_from(at).expect("few") + 1;
            world.write(at, vec![presented(text, [database; 16])]);
        }
        world
    }

    fn write(&mut self, at: usize, rows: Vec<Row>) {
        for row in rows {
            self.written.push(row);
            self.tell(at, self.written.len() - 1);
        }
    }

    /// Tells a node of a version of a row.
    fn tell(&mut self, at: usize, version: usize) {
        let (row, to) = (&self.written[version], &mut self.nodes[at]);
        if to.held.get(&row.key()).is_some_and(|held| *held >= version) {
            return;
        }
        to.held.insert(row.key(), version);
        to.directory.insert(row.clone());
        if let Some(decision) = self.decisions.get(&version) {
            to.knows.insert(*decision);
            to.knows.extend(&self.made[*decision].past);
        }
    }

    fn step(&mut self, at: usize, step: &Step) -> Result<(), TestCaseError> {
        let here = node(NODES[at]);
        match step {
            Step::Decide { scope: text, off } => {
                let off = off.iter().map(|n| node(NODES[*n])).collect();
                let directory = &self.nodes[at].directory;
                let row = directory.decide_scope(&here, TABLE, scope(text), &off, 0);
                let past = self.nodes[at].knows.clone();
                self.made.push(Made { by: at, scope: scope(text), past });
                self.decisions.insert(self.written.len(), self.made.len() - 1);
                self.write(at, vec![row.expect("room")]);
                self.check_decision(at, &scope(text), &off)?;
            }
            Step::React => {
                let directory = &self.nodes[at].directory;
                let (epochs, gone) = (directory.epochs(TABLE), directory.gone(TABLE));
                let of = |seen: &Seen| seen.get(&here).copied().unwrap_or(0);
                let (up, down) = match directory.standing(TABLE, &here) {
                    Standing::In => (of(&epochs).max(of(&gone) + 1), of(&gone)),
                    Standing::Out => (of(&epochs), of(&epochs)),
                    Standing::Frozen => return Ok(()),
                };
                let database = directory.node(&here).expect("presented").database;
                let row = ReplicaRow { table: TABLE, node: here, database, up, down, declines: 0 };
                self.write(at, vec![Row::Replica(row)]);
            }
            Step::Remove(which) => {
                let rows = self.nodes[at].directory.remove_node(&here, &node(NODES[*which]), 0);
                self.write(at, rows.unwrap_or_default());
            }
            Step::Reinstall(database) => {
                self.write(at, vec![presented(NODES[at], [*database; 16])]);
            }
            Step::Receive { from, mask } => {
                let heard: Vec<usize> = self.nodes[*from].held.values().copied().collect();
                let some = heard.into_iter().filter(|version| mask >> (version % 64) & 1 == 1);
                some.rev().for_each(|version| self.tell(at, version));
            }
        }
        Ok(())
    }

    /// Just decided: who is in has an epoch that is not over, and who was abandoned is not waited for.
    fn check_decision(
        &self,
        at: usize,
        scope: &Scope,
        off: &BTreeSet<NodeName>,
    ) -> Result<(), TestCaseError> {
        let directory = &self.nodes[at].directory;
        let asked = directory.must_confirm(TABLE);
        for text in NODES {
            let name = node(text);
            match directory.standing(TABLE, &name) {
                Standing::In => {
                    prop_assert!(asked[&name] > 0, "{} is in {} without an epoch", text, scope);
                }
                Standing::Out => {
                    prop_assert!(!off.contains(&name) || !asked.contains_key(&name), "{}", text);
                }
                Standing::Frozen => {
                    prop_assert!(false, "{} is frozen by a decision that knew all", text);
                }
            }
        }
        Ok(())
    }

    /// What a node says is what follows from the decisions that it knows of, by who had truly seen
    /// what.
    fn check(&self, of: &Node) -> Result<(), TestCaseError> {
        let replaced =
            |id: usize| of.knows.iter().any(|other| self.made[*other].past.contains(&id));
        let standing: Vec<&Made> =
            of.knows.iter().filter(|id| !replaced(**id)).map(|id| &self.made[*id]).collect();
        let (directory, here) = (&of.directory, of.directory.here().expect("named"));
        for text in NODES {
            let name = node(text);
            let removed =
                directory.node(&name).is_some_and(|row| directory.is_removed(&row.database));
            let known = directory.node(&name).is_some() || name == *here;
            let admits = |made: &&&Made| match &made.scope {
                Scope::All => known,
                Scope::Local => NODES[made.by] == text,
                nodes @ Scope::Nodes(_) => nodes.admits(&name),
            };
            let admitting = standing.iter().filter(admits).count();
            let expected = if removed || admitting == 0 {
                Standing::Out
            } else if admitting == standing.len() {
                Standing::In
            } else {
                Standing::Frozen
            };
            prop_assert_eq!(directory.standing(TABLE, &name), expected, "{}", text);
            let is_in = expected == Standing::In;
            let member = directory.node(&name).is_some();
            prop_assert_eq!(directory.in_scope(TABLE).contains(&name), is_in && member, "{}", text);
            if removed {
                prop_assert!(!directory.must_confirm(TABLE).contains_key(&name), "{}", text);
                prop_assert!(directory.members().all(|row| row.node != name), "{}", text);
            }
            if let Some(found) = directory.whereabouts(TABLE).filter(|found| found.contested)
                && known
                && !removed
            {
                prop_assert_eq!(found.scope.admits(&name), is_in, "{} in {}", text, found.scope);
            }
        }
        prop_assert_eq!(directory.whereabouts(TABLE).is_some(), !standing.is_empty());
        Ok(())
    }
}

proptest! {
    /// holds K8: the narrower scope of decisions that had not seen each other, on every node,
    /// whatever part of the rows it has heard of, and a removed database is never in one.
    #[test]
    fn a_standing_follows_from_who_had_seen_what(steps in steps()) {
        let mut world = World::new();
        for (at, step) in &steps {
            world.step(*at, step)?;
            world.check(&world.nodes[*at])?;
        }
        // Once all have heard of all, all say the same.
        for at in 0..NODES.len() {
            (0..world.written.len()).rev().for_each(|version| world.tell(at, version));
            world.check(&world.nodes[at])?;
            let (first, this) = (&world.nodes[0].directory, &world.nodes[at].directory);
            prop_assert_eq!(standings(this), standings(first));
            prop_assert_eq!(this.epochs(TABLE), first.epochs(TABLE));
            prop_assert_eq!(this.gone(TABLE), first.gone(TABLE));
            prop_assert_eq!(this.must_confirm(TABLE), first.must_confirm(TABLE));
            prop_assert_eq!(this.scope_knowledge(TABLE), first.scope_knowledge(TABLE));
        }
        prop_assert_eq!(world.nodes[0].directory.scope_knowledge(TABLE).len(), world.made.iter().map(|made| made.by).collect::<BTreeSet<_>>().len());
    }
}
