//! Audits that are under way, and what writes to rows that they have passed change of them.
//! Reading the rows is `upkeep::audit`'s.

use std::collections::BTreeSet;

use cortex_core::{
    model::{TableId, UsageDelta},
    replication::TableDigest,
};

/// An audit under way.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    pub(crate) number: u64,
    pub(crate) table: TableId,
    /// The last key that was read.
    pub(crate) after: Vec<u8>,
    pub(crate) totals: UsageDelta,
    pub(crate) tombstones: u64,
    pub(crate) digest: TableDigest,
    pub(crate) damaged: BTreeSet<Vec<u8>>,
}

/// What a write changes of a table's digest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DigestChange {
    pub(crate) minus: Option<TableDigest>,
    pub(crate) plus: Option<TableDigest>,
    pub(crate) tombstones: i64,
}

impl DigestChange {
    /// The digest and the number of tombstones after it.
    pub(crate) fn applied(self, digest: TableDigest, tombstones: u64) -> (TableDigest, u64) {
        let digest = digest.minus(self.minus.unwrap_or_default());
        let digest = digest.plus(self.plus.unwrap_or_default());
        (digest, tombstones.saturating_add_signed(self.tombstones))
    }
}

/// Has audits of a table know of a write to a row that they have passed.
pub(crate) fn note_change(
    audits: &mut [Audit],
    table: TableId,
    key: &[u8],
    delta: UsageDelta,
    digest: DigestChange,
) {
    let passed = |audit: &&mut Audit| audit.table == table && key <= audit.after.as_slice();
    for audit in audits.iter_mut().filter(passed) {
        audit.totals = audit.totals.plus(delta);
        (audit.digest, audit.tombstones) = digest.applied(audit.digest, audit.tombstones);
        audit.damaged.remove(key);
    }
}
