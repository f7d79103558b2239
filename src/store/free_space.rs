//! Bytes in the database file that belong to nothing any more, overwritten with zeros.
//! When that is due is the writer's to say; what is deleted, SQLite overwrites itself (`secure_delete`).
//!
//! `secure_delete` overwrites a row where it is deleted. It does not reach the copies that SQLite has left
//! behind when it moved the row: rebuilding a page writes the cells that stay into one end of it, and the
//! room between them and their index keeps whatever stood there. A row that is deleted later is then still
//! readable in a page that it left long before.
//!
//! ```text
//!   a page of a b-tree:   header │ index of cells │ gap │ cells, and holes between them
//!                                                  └── zeros from here on  └── SQLite's own care
//! ```
//!
//! So after each commit the numbers of its pages are noted, read from the log; and once the log has been
//! emptied, which makes the file the only place of each page, their gaps are filled with zeros. After a
//! crash the numbers are lost, and all pages are looked at, a slice at a time; so they are in a file that an
//! earlier version has left, free pages included.
//!
//! Writing to the file beside SQLite is safe for these reasons:
//! - It happens on the writer's thread within a write transaction over an empty log. So no other connection,
//!   nor another process, can commit or move pages into the file meanwhile.
//! - SQLite never reads a gap, nor what a free page holds besides the list of a trunk. A write that is torn or
//!   lost changes nothing: beside the gap, a sector keeps what it held. That a power cut spares the bytes beside
//!   those written is what SQLite builds upon too ("powersafe overwrite", <https://sqlite.org/psow.html>).
//! - The gap is worked out from the page as it is read at that moment, and a page whose header does not add
//!   up is left alone.
//!
//! The formats are in "Database File Format" (<https://sqlite.org/fileformat2.html>), 1.5, 1.6 and 4.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::Connection;

use super::{error::StoreError, schema};

/// Pages looked at in one slice of a sweep: 32 MiB, some ten milliseconds where they are in memory.
const SLICE: u32 = 8192;

/// Page numbers that are noted at most: 4 MiB of memory. Beyond, all pages are looked at instead.
const NOTED: usize = 1 << 20;

/// An overflow page and a trunk of the free list begin with a page number. Up to this one, it cannot be taken
/// for the kind of a b-tree page, the least of which is 2. Such a file has 128 GiB.
const MOST_PAGES: u64 = 0x0200_0000;

/// Of the log, and of each page in it.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// The parts of one database file that hold nothing.
#[derive(Debug)]
pub(super) struct FreeSpace {
    /// Held open for as long as any connection: closing it would take SQLite's locks on the file away, which are
    /// the process's.
    file: Arc<File>,
    log: PathBuf,
    /// What distinguishes one beginning of the log from another, and how many of its frames are noted since then.
    salts: [u8; 8],
    frames: u64,
    /// Pages that were written since they were looked at last.
    noted: BTreeSet<u32>,
    /// The next page of a sweep over all of them; none where none is under way.
    sweep: Option<u32>,
}

impl FreeSpace {
    /// Of a database. A sweep over all pages is due where they may have been written unnoticed.
    pub(super) fn new(file: Arc<File>, database: &Path, sweep: bool) -> Self {
        Self {
            file,
            log: schema::log_path(database),
            salts: [0; 8],
            frames: 0,
            noted: BTreeSet::new(),
            sweep: sweep.then_some(1),
        }
    }

    /// True where no page is known to need a look.
    pub(super) fn is_clean(&self) -> bool {
        self.noted.is_empty() && self.sweep.is_none()
    }

    /// True while all pages are being looked at.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Notes the pages of a commit after which the log has so many frames.
    pub(super) fn note(&mut self, frames: u64) {
        if frames > 0 && self.read_log(frames).is_err() || self.noted.len() > NOTED {
            self.noted.clear();
            self.sweep = Some(1);
        }
    }

    fn read_log(&mut self, frames: u64) -> io::Result<()> {
        // Not held open: a log that has been removed and made anew is another file.
        let log = File::open(&self.log)?;
        let mut header = [0; 32];
        log.read_exact_at(&mut header, 0)?;
        let page_bytes = u64::from(schema::field(&header, 8));
        if header[16..24] != self.salts {
            // It has started again from its beginning since.
            self.salts.copy_from_slice(&header[16..24]);
            self.frames = 0;
        }
        for frame in self.frames..frames {
            let mut number = [0; 4];
            log.read_exact_at(&mut number, LOG_HEADER + frame * (FRAME_HEADER + page_bytes))?;
            self.noted.insert(u32::from_be_bytes(number));
        }
        self.frames = self.frames.max(frames);
        Ok(())
    }

    /// Overwrites what the noted pages have left over, and one slice of a sweep. The log must have been
    /// emptied; where it is not empty any more, nothing is done.
    ///
    /// # Errors
    /// What SQLite or the file system reports. The pages are looked at again.
    pub(super) fn overwrite(&mut self, conn: &Connection) -> Result<(), StoreError> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = self.overwrite_alone();
        conn.prepare_cached("ROLLBACK")?.execute([])?;
        // Pages that this connection holds in memory still have the old gaps, and would carry them into the log
        // with the next change.
        conn.release_memory()?;
        done
    }

    fn overwrite_alone(&mut self) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::Io(format!("unused bytes: {error}"));
        if fs::metadata(&self.log).map_or(0, |log| log.len()) > 0 {
            return Ok(());
        }
        let Some(pages) = Pages::of(&self.file).map_err(failed)? else {
            (self.noted, self.sweep) = (BTreeSet::new(), None);
            return Ok(());
        };
        let mut written = false;
        for number in &self.noted {
            written |= pages.empty_gap(*number).map_err(failed)?;
        }
        let mut next = self.sweep;
        if let Some(from) = self.sweep {
            let upto = from.saturating_add(SLICE).min(pages.count.saturating_add(1));
            let free = pages.free(from..upto).map_err(failed)?;
            for number in from..upto {
                written |= match free.get(&number) {
                    Some(used) => pages.empty(number, *used).map_err(failed)?,
                    None => pages.empty_gap(number).map_err(failed)?,
                };
            }
            next = (upto <= pages.count).then_some(upto);
        }
        if written {
            self.file.sync_data().map_err(|error| StoreError::SyncFailed(error.to_string()))?;
        }
        self.noted.clear();
        self.sweep = next;
        Ok(())
    }
}

/// The pages of a file over which nobody else has any say at the moment.
struct Pages<'f> {
    file: &'f File,
    bytes: usize,
    /// At the end of each page, kept free for extensions of SQLite.
    reserved: usize,
    count: u32,
    first_free: u32,
}

impl<'f> Pages<'f> {
    /// None where the file has no pages yet, or too many to look at their kinds.
    fn of(file: &'f File) -> io::Result<Option<Self>> {
        let mut header = [0; schema::HEADER];
        let length = file.metadata()?.len();
        if length < schema::HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let bytes = match usize::from(u16::from_be_bytes([header[16], header[17]])) {
            1 => 65_536,
            bytes => bytes,
        };
        if !bytes.is_power_of_two() || bytes < 512 {
            return Ok(None);
        }
        let count = length / bytes as u64;
        if count >= MOST_PAGES {
            return Ok(None);
        }
        let count = u32::try_from(count).unwrap_or(0);
        let (reserved, first_free) = (usize::from(header[20]), schema::field(&header, 32));
        Ok(Some(Self { file, bytes, reserved, count, first_free }))
    }

    fn offset(&self, number: u32) -> u64 {
        u64::from(number - 1) * self.bytes as u64
    }

    fn read(&self, number: u32) -> io::Result<Option<Vec<u8>>> {
        if number == 0 || number > self.count {
            return Ok(None);
        }
        let mut page = vec![0; self.bytes];
        self.file.read_exact_at(&mut page, self.offset(number))?;
        Ok(Some(page))
    }

    /// Fills the gap of a b-tree page with zeros. True where something else was in it.
    fn empty_gap(&self, number: u32) -> io::Result<bool> {
        let Some(page) = self.read(number)? else {
            return Ok(false);
        };
        let header = if number == 1 { schema::HEADER } else { 0 };
        match gap(&page, header, self.bytes - self.reserved) {
            Some(gap) => self.fill(number, &page, gap),
            None => Ok(false),
        }
    }

    /// Fills a page with zeros but for its first `used` bytes. True where something else was in it.
    fn empty(&self, number: u32, used: usize) -> io::Result<bool> {
        match self.read(number)? {
            Some(page) => self.fill(number, &page, used.min(self.bytes)..self.bytes),
            None => Ok(false),
        }
    }

    fn fill(&self, number: u32, page: &[u8], part: std::ops::Range<usize>) -> io::Result<bool> {
        if page[part.clone()].iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        let at = self.offset(number) + part.start as u64;
        self.file.write_all_at(&vec![0; part.len()], at)?;
        Ok(true)
    }

    /// The pages of the free list that are in a range, each with how many of its bytes SQLite reads: of a leaf
    /// none, of a trunk its list. Behind a trunk's list stands what the page held before it was free.
    fn free(&self, range: std::ops::Range<u32>) -> io::Result<BTreeMap<u32, usize>> {
        let (mut free, mut trunk) = (BTreeMap::new(), self.first_free);
        // No list has more trunks than the file has pages: a damaged one may lead in a circle.
        for _ in 0..self.count {
            let Some(page) = self.read(trunk)? else {
                break;
            };
            let listed = schema::field(&page, 4) as usize;
            let numbers = page[8..self.bytes].as_chunks::<4>().0.iter().take(listed);
            let leaves = numbers.map(|n| (u32::from_be_bytes(*n), 0));
            let all = leaves.chain([(trunk, listed.saturating_mul(4).saturating_add(8))]);
            free.extend(all.filter(|(number, _)| range.contains(number)));
            trunk = schema::field(&page, 0);
        }
        Ok(free)
    }
}

/// The room between the index of a b-tree page's cells and the first of them; none where this is no such page.
fn gap(page: &[u8], header: usize, usable: usize) -> Option<std::ops::Range<usize>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let header_bytes = match page[header] {
        2 | 5 => 12,
        10 | 13 => 8,
        _ => return None,
    };
    let start = header + header_bytes + 2 * number(header + 3);
    let end = match number(header + 5) {
        0 => 65_536,
        end => end,
    };
    (start <= end && end <= usable).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(kind: u8, cells: u16, content: u16) -> Vec<u8> {
        let mut page = vec![0xaa; 512];
        page[0] = kind;
        page[3..5].copy_from_slice(&cells.to_be_bytes());
        page[5..7].copy_from_slice(&content.to_be_bytes());
        page
    }

    #[test]
    fn a_gap_is_between_the_index_and_the_first_cell() {
        assert_eq!(gap(&page(13, 3, 400), 0, 512), Some(14..400));
        assert_eq!(gap(&page(5, 3, 400), 0, 512), Some(18..400));
        assert_eq!(gap(&page(10, 0, 512), 0, 512), Some(8..512), "a page without cells");
        assert_eq!(gap(&page(13, 3, 14), 0, 512), Some(14..14), "a full one");
    }

    #[test]
    fn a_page_whose_header_does_not_add_up_has_none() {
        for (kind, cells, content, why) in [
            (0, 3, 400, "a trunk of the free list, or an overflow page"),
            (7, 3, 400, "an unknown kind"),
            (13, 300, 400, "an index that reaches into the cells"),
            (13, 3, 513, "cells beyond the end"),
            (13, 3, 0, "cells that begin after 64 KiB"),
        ] {
            assert_eq!(gap(&page(kind, cells, content), 0, 512), None, "{why}");
        }
        assert_eq!(gap(&page(13, 3, 512), 0, 500), None, "cells in what is reserved");
    }
}
