//! I2: an acknowledged local write is visible at once, and was made on a replica that is whole and in scope.

use cortex_core::directory::Standing;
use cortexd::store::{Command, RecordCommand};

use crate::world::{World, broken};

pub(crate) fn may_write(world: &World, n: usize, command: &Command) {
    let Command::Records(RecordCommand::Put { entry, .. } | RecordCommand::Delete { entry, .. }) =
        command
    else {
        return;
    };
    let node = &world.nodes[n];
    let standing = node.db.catalog().directory().standing(entry.table.uid, &node.name);
    let is_whole = node.db.replica(entry.table.uid).is_none_or(|copy| copy.ready);
    if !is_whole || standing == Standing::Frozen {
        broken(format!("n{n} writes on a copy that is whole: {is_whole}, and {standing:?}"));
    }
}

pub(crate) fn is_visible(world: &World, n: usize, command: &Command) {
    let (entry, key, value) =
        if let Command::Records(RecordCommand::Put { entry, key, record, .. }) = command {
            (entry, key, Some(record.to_vec()))
        } else if let Command::Records(RecordCommand::Delete { entry, key, .. }) = command {
            (entry, key, None)
        } else {
            return;
        };
    if world.nodes[n].db.replica(entry.table.uid).is_none() {
        return; // of a table of this node alone no rows are noted
    }
    let place = (entry.table.uid, key.as_bytes().to_vec());
    let found = world.nodes[n].disk.version(&place).and_then(|version| version.value.clone());
    if found != value {
        broken(format!("I2 n{n}: wrote {value:?}, reads {found:?}"));
    }
}
