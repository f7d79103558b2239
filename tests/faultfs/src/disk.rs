//! The disk as a value: what is durable, what is only written, what a power loss leaves.
//! Pure: it is fed changes and a seed; files and SQLite are the business of others.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The unit in which a write may be torn.
const SECTOR_BYTES: u64 = 512;

/// A file apart from its name: it lives on when its name is deleted or given to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FileId(pub(crate) u64);

/// Something that happened to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create {
        name: Arc<str>,
        file: FileId,
    },
    Write {
        file: FileId,
        offset: u64,
        data: Arc<[u8]>,
    },
    Truncate {
        file: FileId,
        len: u64,
    },
    /// The file's bytes are durable, and all names in the directory of `with_dir_of`.
    Sync {
        file: FileId,
        with_dir_of: Option<Arc<str>>,
    },
    SyncFailed {
        file: FileId,
    },
    Delete {
        name: Arc<str>,
        sync_dir: bool,
    },
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Disk {
    names: BTreeMap<Arc<str>, Name>,
    files: BTreeMap<FileId, File>,
}

/// Which file a name stands for: durably, and after each change since.
#[derive(Clone, Default, Debug)]
struct Name {
    durable: Option<FileId>,
    since: Vec<Option<FileId>>,
}

/// The bytes that are durable, and what happened since, in order.
#[derive(Clone, Default, Debug)]
struct File {
    durable: Vec<u8>,
    since: Vec<(Edit, Fate)>,
}

#[derive(Clone, Debug)]
enum Edit {
    Write { offset: u64, data: Arc<[u8]> },
    Truncate { len: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// May be lost; the next sync makes it durable.
    Unsynced,
    /// May be lost; a sync failed, and no later one has anything left to write.
    Forsaken,
    /// Durable, waiting in line behind an edit that is not.
    Synced,
}

impl Disk {
    /// A file that was there before anybody looked: durable.
    pub(crate) fn adopt(&mut self, name: Arc<str>, file: FileId, bytes: Vec<u8>) {
        self.files.insert(file, File { durable: bytes, since: Vec::new() });
        self.names.insert(name, Name { durable: Some(file), since: Vec::new() });
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { name, file } => {
                self.files.insert(*file, File::default());
                let name = self.names.entry(Arc::clone(name)).or_default();
                name.since.push(Some(*file));
            }
            Change::Write { file, offset, data } => {
                self.edit(*file, Edit::Write { offset: *offset, data: Arc::clone(data) });
            }
            Change::Truncate { file, len } => self.edit(*file, Edit::Truncate { len: *len }),
            Change::Sync { file, with_dir_of } => {
                if let Some(file) = self.files.get_mut(file) {
                    file.sync();
                }
                if let Some(name) = with_dir_of {
                    self.sync_dir_of(name);
                }
            }
            Change::SyncFailed { file } => {
                if let Some(file) = self.files.get_mut(file) {
                    file.forsake();
                }
            }
            Change::Delete { name, sync_dir } => {
                let entry = self.names.entry(Arc::clone(name)).or_default();
                entry.since.push(None);
                if *sync_dir {
                    self.sync_dir_of(name);
                }
            }
        }
    }

    /// The files by name, as one power loss may leave them.
    pub(crate) fn after_power_loss(&self, seed: u64) -> BTreeMap<Arc<str>, Vec<u8>> {
        let mut luck = Luck::new(seed);
        let mut image = BTreeMap::new();
        for (name, entry) in &self.names {
            let Some(file) = entry.after_power_loss(&mut luck) else {
                continue;
            };
            if let Some(file) = self.files.get(&file) {
                image.insert(Arc::clone(name), file.after_power_loss(&mut luck));
            }
        }
        image
    }

    /// A file as the running system sees it.
    pub(crate) fn live(&self, file: FileId) -> Option<Vec<u8>> {
        let file = self.files.get(&file)?;
        let mut bytes = file.durable.clone();
        for (edit, _) in &file.since {
            edit.apply(&mut bytes, 0);
        }
        Some(bytes)
    }

    fn edit(&mut self, file: FileId, edit: Edit) {
        if let Some(file) = self.files.get_mut(&file) {
            file.since.push((edit, Fate::Unsynced));
        }
    }

    fn sync_dir_of(&mut self, name: &str) {
        let dir = parent(name);
        for (name, entry) in &mut self.names {
            if parent(name) == dir {
                entry.durable = entry.last();
                entry.since.clear();
            }
        }
    }
}

impl Name {
    fn last(&self) -> Option<FileId> {
        self.since.last().copied().unwrap_or(self.durable)
    }

    fn after_power_loss(&self, luck: &mut Luck) -> Option<FileId> {
        match luck.entry(self.since.len()) {
            0 => self.durable,
            n => self.since[n - 1],
        }
    }
}

impl File {
    fn sync(&mut self) {
        for (_, fate) in &mut self.since {
            if *fate == Fate::Unsynced {
                *fate = Fate::Synced;
            }
        }
        let ready = self.since.iter().take_while(|(_, fate)| *fate == Fate::Synced).count();
        for (edit, _) in self.since.drain(..ready) {
            edit.apply(&mut self.durable, 0);
        }
    }

    fn forsake(&mut self) {
        for (_, fate) in &mut self.since {
            if *fate == Fate::Unsynced {
                *fate = Fate::Forsaken;
            }
        }
    }

    fn after_power_loss(&self, luck: &mut Luck) -> Vec<u8> {
        let filler = luck.filler();
        let mut bytes = self.durable.clone();
        for (edit, fate) in &self.since {
            let outcome = match fate {
                Fate::Synced => Outcome::Kept,
                Fate::Unsynced | Fate::Forsaken => luck.outcome(),
            };
            match outcome {
                Outcome::Lost => {}
                Outcome::Kept => edit.apply(&mut bytes, filler),
                Outcome::Grown => edit.grow(&mut bytes, filler),
                Outcome::Torn => edit.apply_torn(&mut bytes, filler, luck),
            }
        }
        bytes
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, filler: u8) {
        match self {
            Edit::Write { offset, data } => {
                self.grow(bytes, filler);
                let start = index(*offset);
                bytes[start..start + data.len()].copy_from_slice(data);
            }
            Edit::Truncate { len } => bytes.resize(index(*len), 0),
        }
    }

    /// The file's new length without its new bytes.
    fn grow(&self, bytes: &mut Vec<u8>, filler: u8) {
        match self {
            Edit::Write { offset, data } => {
                let end = index(*offset) + data.len();
                if bytes.len() < end {
                    bytes.resize(end, filler);
                }
            }
            Edit::Truncate { len } => bytes.resize(index(*len), 0),
        }
    }

    /// Some of the sectors that the write touches, in any order.
    fn apply_torn(&self, bytes: &mut Vec<u8>, filler: u8, luck: &mut Luck) {
        self.grow(bytes, filler);
        let Edit::Write { offset, data } = self else {
            return;
        };
        let end = *offset + data.len() as u64;
        let mut at = *offset;
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            if luck.chance(4) {
                let piece = &data[index(at - offset)..index(next - offset)];
                bytes[index(at)..index(next)].copy_from_slice(piece);
            }
            at = next;
        }
    }
}

/// What becomes of an edit that may be lost.
enum Outcome {
    Lost,
    Kept,
    Grown,
    Torn,
}

/// The draws of one power loss. Each seed has odds of its own: equal odds for each write would
/// hardly ever keep all of them but one, or lose all.
struct Luck {
    state: u64,
    mood: Mood,
}

#[derive(Clone, Copy)]
enum Mood {
    LoseAll,
    KeepAll,
    /// In eighths: how likely an edit is kept, and how likely one not kept is torn.
    Mixed {
        keep: u64,
        tear: u64,
    },
}

impl Luck {
    fn new(seed: u64) -> Self {
        let mut luck = Self { state: seed, mood: Mood::LoseAll };
        luck.mood = match seed {
            0 => Mood::LoseAll,
            1 => Mood::KeepAll,
            _ => Mood::Mixed { keep: luck.below(8), tear: luck.below(8) },
        };
        luck
    }

    /// How many of the changes to a name are kept: always the first ones.
    fn entry(&mut self, changes: usize) -> usize {
        match self.mood {
            Mood::LoseAll => 0,
            Mood::KeepAll => changes,
            Mood::Mixed { keep, .. } => {
                if self.chance(keep) {
                    changes
                } else {
                    index(self.below(changes as u64 + 1))
                }
            }
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.mood {
            Mood::LoseAll => Outcome::Lost,
            Mood::KeepAll => Outcome::Kept,
            Mood::Mixed { keep, tear } => {
                if self.chance(keep) {
                    Outcome::Kept
                } else if self.chance(tear) {
                    Outcome::Torn
                } else if self.chance(2) {
                    Outcome::Grown
                } else {
                    Outcome::Lost
                }
            }
        }
    }

    /// What is found where a file grew and no bytes came: mostly zeros.
    fn filler(&mut self) -> u8 {
        if self.chance(2) { 0xA5 } else { 0 }
    }

    fn chance(&mut self, eighths: u64) -> bool {
        self.below(8) < eighths
    }

    /// SplitMix64; the modulo's bias does not matter for bounds this small.
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Files of tests fit into memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a 64-bit machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId(1);
    /// Enough for each outcome of a few edits to turn up.
    const SEEDS: std::ops::Range<u64> = 0..400;

    fn name() -> Arc<str> {
        Arc::from("f")
    }

    fn write(offset: u64, data: &[u8]) -> Change {
        Change::Write { file: FILE, offset, data: Arc::from(data) }
    }

    fn sync() -> Change {
        Change::Sync { file: FILE, with_dir_of: None }
    }

    /// The contents of the file over all seeds after these changes to a file of `bytes`.
    fn images(bytes: &[u8], changes: &[Change]) -> Vec<Vec<u8>> {
        let mut disk = Disk::default();
        disk.adopt(name(), FILE, bytes.to_vec());
        changes.iter().for_each(|change| disk.apply(change));
        SEEDS.filter_map(|seed| disk.after_power_loss(seed).remove("f")).collect()
    }

    #[test]
    fn a_synced_write_is_in_every_image() {
        for image in images(b"....", &[write(1, b"ab"), sync()]) {
            assert_eq!(image, b".ab.");
        }
    }

    #[test]
    fn any_subset_of_unsynced_writes_may_survive() {
        let images = images(b"....", &[write(0, b"a"), write(3, b"b")]);
        for expected in [b"....", b"a...", b"...b", b"a..b"] {
            assert!(images.iter().any(|image| image == expected));
        }
    }

    #[test]
    fn a_torn_write_mixes_whole_sectors() {
        let old = vec![b'o'; 2048];
        let new = vec![b'n'; 2048];
        let mut mixed = 0;
        for image in images(&old, &[write(0, &new)]) {
            for sector in image.chunks(512) {
                assert!(sector.iter().all(|b| *b == sector[0]));
            }
            mixed += usize::from(image.contains(&b'o') && image.contains(&b'n'));
        }
        assert!(mixed > 0);
    }

    #[test]
    fn a_file_may_grow_without_its_bytes() {
        let images = images(b"", &[write(0, b"data")]);
        assert!(images.iter().any(|image| image == &[0; 4]));
    }

    #[test]
    fn after_a_failed_sync_only_what_is_written_again_is_safe() {
        let failed = Change::SyncFailed { file: FILE };
        let changes = [write(0, b"lost"), failed, sync(), write(0, b"L"), write(5, b"new"), sync()];
        let images = images(b"........", &changes);
        for image in &images {
            assert_eq!((image[0], &image[5..]), (b'L', b"new".as_slice()));
        }
        assert!(images.iter().any(|image| image == b"L....new"));
        assert!(images.iter().any(|image| image == b"Lost.new"));
    }

    #[test]
    fn a_created_file_may_be_absent_until_its_directory_is_synced() {
        let mut disk = Disk::default();
        disk.apply(&Change::Create { name: name(), file: FILE });
        disk.apply(&sync());
        let there = |disk: &Disk| SEEDS.filter(|s| disk.after_power_loss(*s).len() == 1).count();
        assert!((1..SEEDS.count()).contains(&there(&disk)));

        disk.apply(&Change::Sync { file: FILE, with_dir_of: Some(name()) });
        assert_eq!(there(&disk), SEEDS.count());
    }

    #[test]
    fn a_deleted_file_may_return_until_its_directory_is_synced() {
        let mut disk = Disk::default();
        disk.adopt(name(), FILE, b"x".to_vec());
        let delete = |sync_dir| Change::Delete { name: name(), sync_dir };
        disk.apply(&delete(false));
        assert_eq!(disk.after_power_loss(0).len(), 1);
        assert_eq!(disk.after_power_loss(1).len(), 0);

        disk.apply(&delete(true));
        assert_eq!(disk.after_power_loss(0).len(), 0);
    }
}
