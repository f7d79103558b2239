//! I1 and I3: a stamp and a dot name one write for ever.
//! Which of two versions wins is looked at where they meet, in `ledger`.

use crate::{
    history::{Place, Version},
    world::{World, broken},
};

pub(crate) fn names_one_write(world: &World, n: usize, place: &Place, version: &Version) {
    if let Some(write) = world.history.writes.get(&version.dot)
        && (write.place != *place || write.stamp != version.stamp || write.value != version.value)
    {
        broken(format!("I3 n{n}: one dot for two writes: {write:?}, {place:?} {version:?}"));
    }
    if let Some(dot) = world.history.stamps.get(&version.stamp)
        && *dot != version.dot
    {
        broken(format!("I1 n{n}: one stamp for two writes: {dot:?}, {version:?}"));
    }
}
