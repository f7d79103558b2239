//! I2: an acknowledged local write is visible at once.

use cortexd::store::Command;

use crate::world::{World, broken};

pub(crate) fn is_visible(world: &World, n: usize, command: &Command) {
    let (entry, key, value) = if let Command::Put { entry, key, record, .. } = command {
        (entry, key, Some(record.to_vec()))
    } else if let Command::Delete { entry, key, .. } = command {
        (entry, key, None)
    } else {
        return;
    };
    let place = (entry.table.uid, key.as_bytes().to_vec());
    let found = world.nodes[n].disk.version(&place).and_then(|version| version.value.clone());
    if found != value {
        broken(format!("I2 n{n}: wrote {value:?}, reads {found:?}"));
    }
}
