//! Status: a node that says of another that it is in sync holds the same as that one, as of a few seconds ago.
//!
//! Nothing is written while it is looked: if both hold for as long as news are good for what they held before, and
//! these differ, then whoever still says in_sync says what is not so.

use crate::history::{NodeId, TableId, Version};
use std::collections::BTreeMap;

/// What a node holds of a table, by keys.
pub(crate) type Rows = BTreeMap<String, Version>;

/// Two looks at two nodes, a time apart, and what one said of the other after the second.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) table: TableId,
    pub(crate) here: NodeId,
    pub(crate) there: NodeId,
    pub(crate) says: String,
    pub(crate) first: [Option<Rows>; 2],
    pub(crate) second: [Option<Rows>; 2],
}

/// The lie in a sample, if there is one.
pub(crate) fn check(sample: &Sample) -> Option<String> {
    let Sample { table, here, there, says, first, second } = sample;
    let differ = second[0] != second[1];
    (says == "in_sync" && differ && first == second).then(|| {
        format!("table {table}: node {here} says in_sync of {there}: {}", difference(second))
    })
}

/// How two differ, in words.
pub(crate) fn difference([here, there]: &[Option<Rows>; 2]) -> String {
    let (Some(here), Some(there)) = (here, there) else {
        let has = |rows: &Option<Rows>| rows.as_ref().map(BTreeMap::len);
        return format!("{:?} rows here, {:?} there", has(here), has(there));
    };
    let keys = here.keys().chain(there.keys().filter(|key| !here.contains_key(*key)));
    let differing = keys.filter(|key| here.get(*key) != there.get(*key));
    let told =
        differing.map(|key| format!("{key}: {:?} here, {:?} there", here.get(key), there.get(key)));
    told.take(5).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Option<Rows> {
        Some([("k".to_owned(), Some(text.to_owned()))].into())
    }

    fn sample(says: &str, first: [&str; 2], second: [&str; 2]) -> Sample {
        let (first, second) = (first.map(rows), second.map(rows));
        Sample { table: 0, here: 0, there: 1, says: says.into(), first, second }
    }

    #[test]
    fn who_says_in_sync_of_what_differs_is_found() {
        assert!(check(&sample("in_sync", ["a", "b"], ["a", "b"])).is_some());
        assert!(check(&sample("behind", ["a", "b"], ["a", "b"])).is_none());
        assert!(check(&sample("in_sync", ["a", "a"], ["a", "a"])).is_none());
    }

    /// What changed between the looks may be too new for anybody to have heard of it.
    #[test]
    fn what_has_just_changed_is_not_judged() {
        assert!(check(&sample("in_sync", ["a", "a"], ["a", "b"])).is_none());
    }

    #[test]
    fn a_replica_that_is_absent_differs_from_one_with_rows() {
        let mut absent = sample("in_sync", ["a", "b"], ["a", "b"]);
        (absent.first[1], absent.second[1]) = (None, None);
        assert!(check(&absent).is_some());
    }
}
