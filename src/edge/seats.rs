//! How many connections are open: in all, and of each uid.
//! What a refused client is told is the listener's.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use cortex_core::model::Uid;

use super::limits::ConnLimits;

/// The count of open connections.
#[derive(Debug)]
pub struct Seats {
    /// Also shown in status.
    total: Arc<AtomicUsize>,
    /// Only uids with a connection. Locked for a look-up, once when one opens and once when it closes.
    by_uid: Mutex<HashMap<Uid, usize>>,
}

/// One connection's place. Given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    uid: Uid,
}

impl Seats {
    /// Counts into a shared total.
    #[must_use]
    pub fn new(total: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { total, by_uid: Mutex::default() })
    }

    /// Takes a place for a connection of `uid`; none where it, or all together, have theirs.
    #[must_use]
    pub fn take(self: &Arc<Self>, uid: Uid, limits: &ConnLimits) -> Option<Seat> {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_uid.get(&uid).copied().unwrap_or(0);
        if taken >= limits.connections_per_uid || self.total.load(Relaxed) >= limits.connections {
            return None;
        }
        by_uid.insert(uid, taken + 1);
        self.total.fetch_add(1, Relaxed);
        Some(Seat { seats: Arc::clone(self), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by_uid = self.seats.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        self.seats.total.fetch_sub(1, Relaxed);
        match by_uid.get_mut(&self.uid) {
            Some(taken) if *taken > 1 => *taken -= 1,
            Some(_) | None => {
                by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_at_its_bound_leaves_room_for_others() {
        let seats = Seats::new(Arc::default());
        let limits = ConnLimits { connections: 3, connections_per_uid: 2, ..ConnLimits::default() };
        let mut first = vec![seats.take(Uid(1), &limits), seats.take(Uid(1), &limits)];
        assert!(first.iter().all(Option::is_some));
        assert!(seats.take(Uid(1), &limits).is_none(), "its own bound");
        let second = seats.take(Uid(2), &limits);
        assert!(second.is_some());
        assert!(seats.take(Uid(2), &limits).is_none(), "the bound of all");
        first.pop();
        assert!(seats.take(Uid(1), &limits).is_some(), "a place was given back");
    }
}
