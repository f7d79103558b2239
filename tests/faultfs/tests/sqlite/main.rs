//! Whether the VFS catches what it is for, shown with SQLite itself: settings known to lose
//! data must be caught losing it, and those known to be safe must never be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod power_loss;
mod script;
