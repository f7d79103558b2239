//! Connection limits: how many may be open, in all and of each holder: a uid, or another machine.
//! The reply to a refused client is the listener's.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::limits::ConnLimits;

/// Whose connections one limit counts.
pub trait LimitedBy: Clone + Debug + Eq + Hash {}

impl<G: Clone + Debug + Eq + Hash> LimitedBy for G {}

/// Counts open connections against the limits.
#[derive(Debug)]
pub struct ConnectionLimiter<G: LimitedBy> {
    /// Also shown in status.
    total: Arc<AtomicUsize>,
    /// Only holders with a connection. Locked for a look-up, once when one opens and once when it closes.
    by_holder: Mutex<HashMap<G, usize>>,
}

/// The permit of one open connection; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit<G: LimitedBy> {
    limiter: Arc<ConnectionLimiter<G>>,
    holder: G,
}

impl<G: LimitedBy> ConnectionLimiter<G> {
    /// Counts into a shared total.
    #[must_use]
    pub fn new(total: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { total, by_holder: Mutex::default() })
    }

    /// Takes a place for a connection of a holder; none where it, or all together, have theirs.
    #[must_use]
    pub fn take(self: &Arc<Self>, holder: G, limits: &ConnLimits) -> Option<ConnectionPermit<G>> {
        let mut by_holder = self.by_holder.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_holder.get(&holder).copied().unwrap_or(0);
        if taken >= limits.connections_per_uid || self.total.load(Relaxed) >= limits.connections {
            return None;
        }
        by_holder.insert(holder.clone(), taken + 1);
        self.total.fetch_add(1, Relaxed);
        Some(ConnectionPermit { limiter: Arc::clone(self), holder })
    }
}

impl<G: LimitedBy> Drop for ConnectionPermit<G> {
    fn drop(&mut self) {
        let mut by_holder = self.limiter.by_holder.lock().unwrap_or_else(PoisonError::into_inner);
        self.limiter.total.fetch_sub(1, Relaxed);
        match by_holder.get_mut(&self.holder) {
            Some(taken) if *taken > 1 => *taken -= 1,
            Some(_) | None => {
                by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::model::Uid;

    use super::*;

    #[test]
    fn a_uid_at_its_bound_leaves_room_for_others() {
        let limiter = ConnectionLimiter::new(Arc::default());
        let limits = ConnLimits { connections: 3, connections_per_uid: 2, ..ConnLimits::default() };
        let mut first = vec![limiter.take(Uid(1), &limits), limiter.take(Uid(1), &limits)];
        assert!(first.iter().all(Option::is_some));
        assert!(limiter.take(Uid(1), &limits).is_none(), "its own bound");
        let second = limiter.take(Uid(2), &limits);
        assert!(second.is_some());
        assert!(limiter.take(Uid(2), &limits).is_none(), "the bound of all");
        first.pop();
        assert!(limiter.take(Uid(1), &limits).is_some(), "a place was given back");
    }
}
