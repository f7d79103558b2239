//! Object manager synchronisation: which objects come, change and go with what they stand for.
//! What is followed, and what is announced of a step, is each kind's of object.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use zbus::{
    Connection, OwnedObjectPath, Variant,
    fdo::Properties,
    object_server::{Interface, SignalEmitter},
};

use super::values::Dict;

/// Between two looks: what comes and goes faster is not worth a signal.
const PAUSE: Duration = Duration::from_millis(100);

/// A step from the objects that there are to those that there should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<K, V> {
    Gone(K),
    New(K, V),
    Changed { key: K, before: V, now: V },
}

/// Every step. What goes, goes first: it makes room.
pub(super) fn changes<K, V>(shown: &BTreeMap<K, V>, mut wanted: BTreeMap<K, V>) -> Vec<Change<K, V>>
where
    K: Ord + Clone,
    V: Clone + PartialEq,
{
    let (mut changes, mut changed) = (Vec::new(), Vec::new());
    for (key, before) in shown {
        match wanted.remove(key) {
            None => changes.push(Change::Gone(key.clone())),
            Some(now) if now != *before => {
                changed.push(Change::Changed { key: key.clone(), before: before.clone(), now });
            }
            Some(_) => {}
        }
    }
    let new = wanted.into_iter().map(|(key, value)| Change::New(key, value));
    changes.into_iter().chain(changed).chain(new).collect()
}

/// The properties that are no longer what they were, but for those whose changes are not signalled.
pub(super) fn changed_properties(before: &Dict, now: Dict, unsignalled: &[&str]) -> Dict {
    let is_news = |(name, value): &(String, _)| {
        !unsignalled.contains(&name.as_str()) && before.get(name) != Some(value)
    };
    now.into_iter().filter(is_news).collect()
}

/// Tells everybody what the properties of an object have become.
pub(super) async fn announce<I: Interface>(
    connection: &Connection,
    path: OwnedObjectPath,
    news: &Dict,
) -> zbus::Result<()> {
    if news.is_empty() {
        return Ok(());
    }
    let emitter = SignalEmitter::new(connection, path)?;
    let changed: HashMap<&str, Variant<'_>> = news
        .iter()
        .map(|(name, value)| Ok((name.as_str(), Variant::try_from(value)?)))
        .collect::<zbus::Result<_>>()?;
    Properties::properties_changed(&emitter, I::name(), changed, Cow::Borrowed(&[])).await
}

/// Updates at each change, until that fails.
pub(super) async fn follow(
    mut changes: watch::Receiver<()>,
    mut update: impl AsyncFnMut() -> zbus::Result<()>,
) -> zbus::Result<()> {
    loop {
        update().await?;
        sleep(PAUSE).await;
        if changes.changed().await.is_err() {
            return std::future::pending().await; // what is followed is gone, and the daemon ends
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_one_change() {
        let shown = BTreeMap::from([(1, "goes"), (2, "stays"), (3, "was")]);
        let wanted = BTreeMap::from([(2, "stays"), (3, "is"), (4, "comes")]);
        assert_eq!(
            changes(&shown, wanted),
            [
                Change::Gone(1),
                Change::Changed { key: 3, before: "was", now: "is" },
                Change::New(4, "comes"),
            ]
        );
    }

    #[test]
    fn a_counter_that_runs_is_no_news() {
        let properties = |port: u16, count: u64| {
            Dict::from([("Port".to_owned(), port.into()), ("Count".to_owned(), count.into())])
        };
        let news = |port, count| {
            changed_properties(&properties(1, 1), properties(port, count), &["Count"])
        };
        assert_eq!(news(1, 2), Dict::new());
        assert_eq!(news(2, 2).into_keys().collect::<Vec<_>>(), ["Port"]);
    }
}
