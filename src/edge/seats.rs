//! How many connections are open: in all, and of each guest: a uid, or another machine.
//! What a refused client is told is the listener's.

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

/// Whose connections are counted together.
pub trait Guest: Clone + Debug + Eq + Hash {}

impl<G: Clone + Debug + Eq + Hash> Guest for G {}

/// The count of open connections.
#[derive(Debug)]
pub struct Seats<G: Guest> {
    /// Also shown in status.
    total: Arc<AtomicUsize>,
    /// Only guests with a connection. Locked for a look-up, once when one opens and once when it closes.
    by_guest: Mutex<HashMap<G, usize>>,
}

/// One connection's place. Given back when dropped.
#[derive(Debug)]
pub struct Seat<G: Guest> {
    seats: Arc<Seats<G>>,
    guest: G,
}

impl<G: Guest> Seats<G> {
    /// Counts into a shared total.
    #[must_use]
    pub fn new(total: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { total, by_guest: Mutex::default() })
    }

    /// Takes a place for a connection of a guest; none where it, or all together, have theirs.
    #[must_use]
    pub fn take(self: &Arc<Self>, guest: G, limits: &ConnLimits) -> Option<Seat<G>> {
        let mut by_guest = self.by_guest.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_guest.get(&guest).copied().unwrap_or(0);
        if taken >= limits.connections_per_uid || self.total.load(Relaxed) >= limits.connections {
            return None;
        }
        by_guest.insert(guest.clone(), taken + 1);
        self.total.fetch_add(1, Relaxed);
        Some(Seat { seats: Arc::clone(self), guest })
    }
}

impl<G: Guest> Drop for Seat<G> {
    fn drop(&mut self) {
        let mut by_guest = self.seats.by_guest.lock().unwrap_or_else(PoisonError::into_inner);
        self.seats.total.fetch_sub(1, Relaxed);
        match by_guest.get_mut(&self.guest) {
            Some(taken) if *taken > 1 => *taken -= 1,
            Some(_) | None => {
                by_guest.remove(&self.guest);
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
