//! I2: an acknowledged local write is visible at once.

use cortexd::store::Command;

use crate::world::{World, broken};

pub(crate) fn is_visible(world: &World, n: usize, command: &Command) {
    let (entry, key, value) = match command {
        Command::Put { entry, key, record, .. } => (entry, key, Some(record.to_vec())),
        Command::Delete { entry, key, .. } => (entry, key, None),
        _other => return,
    };
    let place = (entry.table.uid, key.as_bytes().to_vec());
    let found = world.nodes[n].disk.version(&place).and_then(|version| version.value.clone());
    if found != value {
        broken(format!("I2 n{n}: wrote {value:?}, reads {found:?}"));
    }
}
