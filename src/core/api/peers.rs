//! What only another machine may ask: comparing copies, redeeming tokens.
//! The rows and digests in it are encoded by the service, which compares them.

use super::{
    param::{Bin, Raw, options, request},
    records::RawValue,
};

request! {
    /// The digests of the parts of a table.
    SyncBuckets<'a> = SyncBuckets -> RawValue {
        /// The table's id.
        table: Bin<'a>,
    }
}

request! {
    /// The rows of some parts of a table, without their values.
    SyncMarks<'a> = SyncMarks -> RawValue {
        /// The table's id.
        table: Bin<'a>,
        /// The numbers of the parts.
        buckets: Raw<'a>,
        /// Only those after this key.
        after: Option<Bin<'a>>,
    }
}

request! {
    /// What the rows of a table come to, computed from them.
    SyncDigest<'a> = SyncDigest -> RawValue {
        /// The table's id.
        table: Bin<'a>,
    }
}

options! {
    /// How rows are to be sent.
    PushOptions {
        /// Written once more; without it, told once more.
        again: bool,
    }
}

request! {
    /// Has rows sent that the asker lacks: `ok`.
    SyncPush<'a> = SyncPush -> String {
        /// The table's id.
        table: Bin<'a>,
        /// Their keys.
        keys: Raw<'a>,
        /// How.
        options: PushOptions,
    }
}

request! {
    /// Uses up a token that this machine has made; answers the rows of the directory about its identity.
    IdentityRedeem<'a> = IdentityRedeem -> RawValue {
        /// The token.
        token: &'a str,
    }
}

request! {
    /// Rows of the directory about the asker's own users: `ok`.
    IdentityLearn<'a> = IdentityLearn -> String {
        /// The rows.
        rows: Raw<'a>,
    }
}
