//! How many whole-table reads may be under way: in all, and for one caller.
//! A read waits for its turn; nobody is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use cortex_core::model::Caller;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots. A read that ends within its first slice needs none.
#[derive(Debug)]
pub struct ScanSlots {
    total: Arc<Semaphore>,
    per_uid: usize,
    /// The slots of each caller who uses some now. Locked for a look-up.
    by_caller: Mutex<HashMap<Caller, Weak<Semaphore>>>,
}

/// Held while a read is under way.
#[derive(Debug)]
pub struct ScanSlot {
    _of_uid: OwnedSemaphorePermit,
    _of_total: OwnedSemaphorePermit,
}

impl ScanSlots {
    /// So many reads in all, so many of them for one uid.
    #[must_use]
    pub fn new(total: usize, per_uid: usize) -> Self {
        Self { total: Arc::new(Semaphore::new(total)), per_uid, by_caller: Mutex::default() }
    }

    /// Waits for a slot, in turn. None only when the semaphores are closed, which they never are.
    pub async fn take(&self, caller: &Caller) -> Option<ScanSlot> {
        let of_uid = self.slots_of(caller).acquire_owned().await.ok()?;
        let of_total = Arc::clone(&self.total).acquire_owned().await.ok()?;
        Some(ScanSlot { _of_uid: of_uid, _of_total: of_total })
    }

    fn slots_of(&self, caller: &Caller) -> Arc<Semaphore> {
        let mut by_caller = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        by_caller.retain(|_, slots| slots.strong_count() > 0);
        if let Some(slots) = by_caller.get(caller).and_then(Weak::upgrade) {
            return slots;
        }
        let slots = Arc::new(Semaphore::new(self.per_uid));
        by_caller.insert(caller.clone(), Arc::downgrade(&slots));
        slots
    }
}
