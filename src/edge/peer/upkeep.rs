//! What copies need not keep for ever: deletions that every copy knows, and the beginning of their feeds.
//! Which those are is decided by `cortex_core::sync`; removing them is the store's, a little at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cortex_core::{
    directory::Directory,
    model::{Hlc, NodeName, TableUid},
    sync::{Blocker, TableDigest, Vector, Words},
};
use tokio::time::sleep;
use tracing::warn;

use super::{Shared, sync::MAX_SKEW_MS};
use crate::{
    ambient,
    pki::Credentials,
    service::sync::SyncView,
    store::{Catalog, Collection, Command, Done, Failure, Replica, Restamp, SYSTEM_TABLE, Store},
};

/// Between two rounds, and how much later one may come: machines that were started together need not all be
/// busy at the same moment.
const ROUND: Duration = Duration::from_secs(5);
const JITTER_MS: u32 = 1000;

/// Between two steps of removing something: leaves most of the disk to clients.
const PAUSE: Duration = Duration::from_millis(2);

/// A deletion is kept for as long at least: much longer than clocks may differ.
const LEAST_AGE_MS: u64 = 24 * 3600 * 1000;

/// Feeds are looked at in each so many rounds: finding where one is too long reads its end.
const FEED_ROUNDS: u32 = 12;

/// The signatures of the directory are looked at anew in each so many rounds, for certificates that have ended.
const SIGNER_ROUNDS: u32 = 720;

/// Rows that are signed in their writers' place in one transaction.
const ADOPTED_AT_ONCE: usize = 128;

/// Entries that a feed may have. Whoever is further behind than that reads the whole copy in the order of its
/// keys. For a large table twice as many as it has rows: beyond, going through the feed takes longer than that.
const LEAST_FEED: u64 = 100_000;

/// For so long two copies must have said that they know the same and hold these different rows, before that is
/// believed: a row is there before what its source knows is counted as known. A transfer that is under way changes
/// what they hold all the time.
const DIVERGED_AFTER_MS: u64 = 10_000;

/// Looks after all copies until the daemon ends.
pub(super) async fn run(shared: &Shared) {
    let work = async {
        let mut upkeep = Upkeep { shared, round: 0, suspected: BTreeMap::new(), signers: None };
        loop {
            sleep(ROUND + Duration::from_millis((super::random() % JITTER_MS).into())).await;
            if let Err(failure) = upkeep.round().await {
                warn!(%failure, "the copies of tables were not looked after, trying again later");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.stopped() => {}
    }
}

struct Upkeep<'a> {
    shared: &'a Shared,
    round: u32,
    suspected: BTreeMap<(TableUid, NodeName), Suspicion>,
    /// When the signatures of the directory were looked at last, and what they were then.
    signers: Option<Signers>,
}

/// What it depends on whose signatures count: besides the time, by which certificates end.
struct Signers {
    credentials: Arc<Credentials>,
    directory: Option<Arc<Replica>>,
    round: u32,
}

impl Signers {
    fn are_as_before(&self, now: &Self) -> bool {
        let directory = match (&self.directory, &now.directory) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        directory
            && Arc::ptr_eq(&self.credentials, &now.credentials)
            && now.round.wrapping_sub(self.round) < SIGNER_ROUNDS
    }
}

/// Two copies that should be equal and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspicion {
    digests: (TableDigest, TableDigest),
    since_ms: u64,
}

impl Upkeep<'_> {
    async fn round(&mut self) -> Result<(), Failure> {
        self.round = self.round.wrapping_add(1);
        let store = self.shared.context.service.store().clone();
        let view = self.shared.context.service.sync();
        let copies = store.copies();
        view.retain(|table| copies.iter().any(|copy| copy.uid == table && copy.life > 0));
        for copy in copies.iter().filter(|copy| copy.life > 0) {
            if copy.uid != SYSTEM_TABLE {
                self.collect(&store, view, copy).await?;
            }
            for node in self.compare(view, copy) {
                self.shared.context.service.name_differences(copy.uid, &node).await;
            }
            if self.round.is_multiple_of(FEED_ROUNDS) {
                cut_feed(&store, copy).await?;
            }
        }
        self.suspected.retain(|(table, _), _| copies.iter().any(|copy| copy.uid == *table));
        self.adopt(&store).await?;
        self.mend_clock(&store, view, &copies).await
    }

    /// Signs what was believed here of machines that cannot sign any more, so that those who come later can
    /// believe it.
    async fn adopt(&mut self, store: &Store) -> Result<(), Failure> {
        let credentials = Arc::clone(self.shared.mesh().credentials());
        let directory = store.copy(SYSTEM_TABLE);
        let now = Signers { credentials, directory, round: self.round };
        if self.signers.as_ref().is_some_and(|before| before.are_as_before(&now)) {
            return Ok(());
        }
        let (reading, credentials) = (store.clone(), Arc::clone(&now.credentials));
        let found = super::blocking(move || reading.orphans(credentials.as_ref())).await?;
        self.signers = Some(now);
        for rows in found.chunks(ADOPTED_AT_ONCE) {
            store.execute(Command::Adopt(rows.to_vec())).await?;
        }
        Ok(())
    }

    /// Where this machine's clock was ahead and is right again, has what nobody else has stamped anew: with
    /// timestamps of the future no other machine would take it.
    async fn mend_clock(
        &self,
        store: &Store,
        view: &SyncView,
        copies: &[Arc<Replica>],
    ) -> Result<(), Failure> {
        let latest = Hlc::from_unix_ms(ambient::wall_ms().saturating_add(MAX_SKEW_MS));
        if store.hlc() <= latest || !self.clock_is_right() {
            return Ok(());
        }
        let here = self.shared.mesh().node().clone();
        if !are_of_the_present(&store.catalog(), view, &here, latest, copies) {
            return Ok(());
        }
        store.execute(Command::Restamp(Restamp { latest })).await?;
        Ok(())
    }

    /// True where the clocks of the others say so too. Where this one is late, timestamps are ahead of it as well.
    fn clock_is_right(&self) -> bool {
        let seen = self.shared.view.now();
        let mut offsets = seen
            .peers
            .iter()
            .filter(|peer| peer.connected)
            .filter_map(|peer| peer.clock_offset_ms)
            .peekable();
        offsets.peek().is_some()
            && offsets.all(|offset_ms| offset_ms.unsigned_abs() <= MAX_SKEW_MS / 2)
    }

    /// Forgets deletions that every copy knows.
    async fn collect(&self, store: &Store, view: &SyncView, copy: &Replica) -> Result<(), Failure> {
        let here = self.shared.mesh().node().clone();
        let confirmed = {
            let catalog = store.catalog();
            confirmed(catalog.directory(), view, &here, copy)
        };
        let confirmed = match confirmed {
            Ok(confirmed) => confirmed,
            Err(blocker) => {
                view.block(copy.uid, Some(blocker));
                return Ok(());
            }
        };
        view.block(copy.uid, self.lagging(store, view, copy, &confirmed).await?);
        if copy.tombstones == 0 || !copy.ready {
            return Ok(());
        }
        let before_ms = ambient::wall_ms().saturating_sub(LEAST_AGE_MS);
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let collection = Collection {
                table: copy.uid,
                confirmed: confirmed.clone(),
                before_ms,
                after: from,
            };
            let done = store.execute(Command::Collect(collection)).await?;
            after = if let Done::Collected { next } = done { next } else { None };
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Who has not said that it knows a deletion that is remembered here.
    async fn lagging(
        &self,
        store: &Store,
        view: &SyncView,
        copy: &Replica,
        confirmed: &Vector,
    ) -> Result<Option<Blocker>, Failure> {
        let Some(table) = copy.table.filter(|_| copy.tombstones > 0) else { return Ok(None) };
        if confirmed.dominates(&copy.vector) {
            return Ok(None);
        }
        let (reads, known) = (store.clone(), confirmed.clone());
        let found = super::blocking(move || reads.unconfirmed_deletion(table, &known)).await?;
        let Some(deletion) = found else { return Ok(None) };
        let catalog = store.catalog();
        let directory = catalog.directory();
        let words = words_of(directory, view, copy);
        let here = self.shared.mesh().node().clone();
        Ok(words.lacking(&here, &directory.must_confirm(copy.uid), deletion))
    }

    /// Notes where a copy elsewhere has stayed different although both know the same. Answers with whose copies it is
    /// not known yet which rows differ.
    fn compare(&mut self, view: &SyncView, copy: &Replica) -> Vec<NodeName> {
        let mut unnamed = Vec::new();
        let now_ms = ambient::wall_ms();
        for (node, known) in view.copies_of(copy.uid) {
            let place = (copy.uid, node);
            let differs = known
                .word
                .filter(|word| word.vector == copy.vector && word.digest != copy.digest)
                .map(|word| (word.digest, copy.digest));
            let Some(digests) = differs else {
                self.suspected.remove(&place);
                continue;
            };
            let new = Suspicion { digests, since_ms: now_ms };
            let since = self.suspected.entry(place.clone()).or_insert(new);
            if since.digests != digests {
                *since = new;
            }
            if since.since_ms == now_ms
                && let Some(table) = copy.table
            {
                // What is kept of the rows may be wrong, and the rows equal.
                self.shared.context.service.scrub().suspect(table);
            }
            if now_ms.saturating_sub(since.since_ms) >= DIVERGED_AFTER_MS && !known.diverged {
                warn!(node = %place.1, table = ?copy.uid, "two copies of a table know the same and hold different rows");
                view.update(copy.uid, &place.1, |known| known.diverged = true);
            }
            let diverged = now_ms.saturating_sub(since.since_ms) >= DIVERGED_AFTER_MS;
            if diverged && known.differs.is_empty() {
                unnamed.push(place.1);
            }
        }
        unnamed
    }
}

/// What every copy of a table knows, by its own word.
fn confirmed(
    directory: &Directory,
    view: &SyncView,
    here: &NodeName,
    copy: &Replica,
) -> Result<Vector, Blocker> {
    let words = words_of(directory, view, copy);
    let (must, gone) = (directory.must_confirm(copy.uid), directory.gone(copy.uid));
    words.confirmed(here, &copy.vector, &must, &gone)
}

/// What the copies of a table have said of themselves, as far as it counts.
fn words_of(directory: &Directory, view: &SyncView, copy: &Replica) -> Words {
    let mut words = Words::default();
    for (node, known) in view.copies_of(copy.uid) {
        if let Some(word) = known.word {
            words.hear(node.clone(), word);
            // What an earlier origin has said may be lost by now.
            if let Some(row) = directory.node(&node) {
                words.void_others(&node, row.incarnation);
            }
        }
    }
    words
}

/// True where all other copies have said that their machines have met no later timestamp.
fn are_of_the_present(
    catalog: &Catalog,
    view: &SyncView,
    here: &NodeName,
    latest: Hlc,
    copies: &[Arc<Replica>],
) -> bool {
    let directory = catalog.directory();
    let said = |table, node: &NodeName| view.of(table, node)?.word?.latest;
    copies.iter().filter(|copy| copy.life > 0).all(|copy| {
        let mut must: BTreeSet<NodeName> = directory.must_confirm(copy.uid).into_keys().collect();
        if copy.uid == SYSTEM_TABLE {
            must.extend(directory.members().map(|row| row.node.clone()));
        }
        must.remove(here);
        must.iter().all(|node| said(copy.uid, node).is_some_and(|met| met <= latest))
    })
}

/// Removes the beginning of a feed that is too long.
async fn cut_feed(store: &Store, copy: &Replica) -> Result<(), Failure> {
    let Some(table) = copy.table else { return Ok(()) };
    let rows = store.catalog().by_uid(copy.uid).map_or(0, |entry| entry.usage.records());
    let keep = LEAST_FEED.max(rows.saturating_mul(2));
    let excess = {
        let store = store.clone();
        super::blocking(move || store.feed_excess(table, keep)).await?
    };
    let Some(upto) = excess else { return Ok(()) };
    let cut = || Command::CutFeed { table: copy.uid, upto };
    while matches!(store.execute(cut()).await?, Done::Purged { more: true }) {
        sleep(PAUSE).await;
    }
    Ok(())
}
