//! Why rows do not come through: what is said of it to the other side, shown here, and told the operator.
//! What follows for the asking is the session's.

use cortex_core::{
    model::Refusal,
    sync::{Unfit, Why},
};

use crate::{service::sync::Trouble, store::Failure};

/// Numbers for reasons without a name: the other side shows them.
pub(super) const REFUSED: u64 = 100;
pub(super) const TOO_LARGE: u64 = 101;

pub(super) fn why_failed(failure: &Failure) -> Why {
    match failure {
        Failure::Faulted(_) => Why::Storage,
        Failure::Refused(Refusal::QuotaExceeded(_)) => Why::Quota,
        Failure::Refused(_) => Why::Other(REFUSED),
    }
}

pub(super) fn trouble_of(why: Why) -> Trouble {
    match why {
        Why::NoCopy | Why::Busy => Trouble::NotReady,
        Why::NotInScope => Trouble::Scope,
        Why::UnknownLife | Why::Directory => Trouble::Directory,
        Why::Clock(offset_ms) => Trouble::Clock(offset_ms),
        Why::Ahead(by_ms) => Trouble::Ahead(by_ms),
        Why::Stale => Trouble::Stale,
        Why::Quota => Trouble::Quota,
        Why::Storage => Trouble::Storage,
        Why::Damaged => Trouble::Damaged,
        Why::Other(TOO_LARGE) => Trouble::Refused("a row is too large".into()),
        Why::Other(REFUSED) => Trouble::Refused("what was sent was refused there".into()),
        Why::Other(code) => Trouble::Refused(format!("reason {code} of a later version")),
    }
}

pub(super) fn trouble_with(why: Unfit) -> Option<Trouble> {
    match why {
        Unfit::Past => None,
        Unfit::ScopeUnknown => Some(Trouble::Directory),
        Unfit::NotInScope | Unfit::SourceGone => Some(Trouble::Scope),
        Unfit::SourceStale => Some(Trouble::Stale),
        Unfit::Ahead { by_ms } => Some(Trouble::Ahead(by_ms)),
    }
}
/// True for what does not pass by itself as soon as both machines know the same.
pub(super) fn is_for_the_operator(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Clock(_)
        | Trouble::Ahead(_)
        | Trouble::Quota
        | Trouble::Storage
        | Trouble::Damaged
        | Trouble::Refused(_) => true,
        Trouble::Unreachable
        | Trouble::Scope
        | Trouble::Directory
        | Trouble::NotReady
        | Trouble::Stale => false,
    }
}
