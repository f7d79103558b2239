//! Results that are lists of rows: encoded a chunk at a time, whatever the size of the table.
//! Sending the chunks, and giving others a turn between them, is left to the edge.
//!
//! The reply's array must say its length first. So rows are gathered until the list ends or the
//! gathered bytes reach a bound; beyond it the rest is counted, and then read a second time over
//! the same snapshot while it is sent:
//!
//! ```text
//!   Gathering ──(end)──> Outcome
//!       └──(1 MiB)──> Counting ──> Sending ──> Outcome
//! ```

use bytes::Bytes;
use cortex_core::{
    api::{self, Raw},
    model::{Key, Limits, Pattern, Refusal, TableId},
    wire::{Head, Reader, encode},
};

use super::{Pieces, Step};
use crate::store::{CommandError, Scan, ScanStep, Store, StoreError};

/// Bytes gathered before the length of the list is counted ahead.
const GATHERED: usize = 1 << 20;

/// Bytes of one piece sent.
const CHUNK: usize = 64 << 10;

/// Bytes of an array's header in its widest form, which can be filled in afterwards.
const HEADER: usize = 5;

/// Which rows are wanted, and what of them.
#[derive(Clone, Debug)]
pub(super) enum ListSelection {
    All,
    Keys,
    /// The encoded pattern.
    Matching(Bytes),
}

impl ListSelection {
    pub(super) fn is_well_formed(&self) -> bool {
        match self {
            Self::All | Self::Keys => true,
            Self::Matching(pattern) => Pattern::read(pattern).is_some(),
        }
    }
}

/// Which part of the list is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    limit: Option<u64>,
    after: Box<[u8]>,
}

impl Page {
    /// The page that was asked for; none where it comes after what can be no key.
    pub(super) fn of(wanted: api::Page<'_>) -> Option<Self> {
        let after = match wanted.after.map(|Raw(after)| (after, Reader::new(after).head())) {
            None => Box::default(),
            // A text of any length and kind is a place among the keys, whether or not it can be one.
            Some((_, Some(Head::Str(after)))) => after.into(),
            Some((after, _)) => Key::read(after, &Limits::default()).ok()?.as_bytes().into(),
        };
        Some(Self { limit: wanted.limit, after })
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Gathering,
    /// Rows counted beyond the gathered ones.
    Counting {
        rest: u64,
    },
    /// Rows promised and not yet written.
    Sending {
        owed: u64,
    },
}

/// A list on its way.
#[derive(Debug)]
pub struct Listing {
    store: Store,
    table: TableId,
    what: ListSelection,
    page: Page,
    scan: Option<Scan>,
    phase: Phase,
    /// Where the array's header stands in the buffer.
    header_at: usize,
    /// Rows of the whole table, as of the snapshot.
    in_table: u64,
    /// Rows in the buffer since the header.
    gathered: u64,
    /// Where reading goes on once the rest is counted.
    resume_at: Vec<u8>,
}

impl Pieces for Listing {
    fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, CommandError> {
        match self.phase {
            Phase::Gathering => self.gather(out),
            Phase::Counting { rest } => self.count(rest, out),
            Phase::Sending { owed } => self.send(owed, out),
        }
    }
}

impl Listing {
    pub(super) fn new(store: Store, table: TableId, what: ListSelection, page: Page) -> Self {
        Self {
            store,
            table,
            what,
            page,
            scan: None,
            phase: Phase::Gathering,
            header_at: 0,
            in_table: 0,
            gathered: 0,
            resume_at: Vec::new(),
        }
    }

    /// Gives up the snapshot and starts from the beginning with the next step: for a list that
    /// must wait for its turn. What it has put into the buffer must be taken back.
    pub fn restart(&mut self) {
        self.scan = None;
        self.phase = Phase::Gathering;
        self.gathered = 0;
    }

    fn gather(&mut self, out: &mut Vec<u8>) -> Result<Step, CommandError> {
        if self.scan.is_none() {
            let scan = self.store.scan(self.table, &self.page.after)?;
            // Dropped since the gate let it pass: what is left of its rows is not the list.
            self.in_table = scan.rows_in_table()?.ok_or(Refusal::AccessDenied)?;
            self.scan = Some(scan);
            self.header_at = out.len();
            out.extend_from_slice(&[0; HEADER]);
        }
        let limit = self.page.limit.unwrap_or(u64::MAX);
        if limit == 0 {
            self.write_header(0, out);
            return Ok(Step::Finished);
        }
        let most = self.header_at + GATHERED;
        let mut gathered = self.gathered;
        let ended = self.slice(|what, key, value| {
            if !what.take(key, value, out) {
                return ScanStep::Continue;
            }
            gathered += 1;
            match (gathered >= limit, out.len() >= most) {
                (true, _) => ScanStep::Stop,
                (false, true) => ScanStep::Pause,
                (false, false) => ScanStep::Continue,
            }
        })?;
        self.gathered = gathered;
        if ended {
            self.write_header(gathered, out);
            return Ok(Step::Finished);
        }
        if out.len() >= most {
            self.resume_at = self.scan()?.position().to_vec();
            self.phase = Phase::Counting { rest: 0 };
        }
        Ok(Step::Working)
    }

    fn count(&mut self, mut rest: u64, out: &mut [u8]) -> Result<Step, CommandError> {
        if let Some(known) = self.known_rest() {
            return Ok(self.begin_sending(known, out));
        }
        let most = self.page.limit.unwrap_or(u64::MAX) - self.gathered;
        let ended = self.slice(|what, key, value| {
            rest += u64::from(what.wants(key, value));
            if rest >= most { ScanStep::Stop } else { ScanStep::Continue }
        })?;
        if ended {
            return Ok(self.begin_sending(rest, out));
        }
        self.phase = Phase::Counting { rest };
        Ok(Step::Working)
    }

    /// The rows after the gathered ones, where the table's own count tells.
    fn known_rest(&self) -> Option<u64> {
        let whole_table = self.page.limit.is_none() && self.page.after.is_empty();
        match self.what {
            ListSelection::All | ListSelection::Keys if whole_table => {
                self.in_table.checked_sub(self.gathered)
            }
            ListSelection::All | ListSelection::Keys | ListSelection::Matching(_) => None,
        }
    }

    fn begin_sending(&mut self, rest: u64, out: &mut [u8]) -> Step {
        self.write_header(self.gathered + rest, out);
        self.phase = Phase::Sending { owed: rest };
        if let Some(scan) = &mut self.scan {
            scan.seek(std::mem::take(&mut self.resume_at));
        }
        Step::Send
    }

    fn send(&mut self, mut owed: u64, out: &mut Vec<u8>) -> Result<Step, CommandError> {
        if owed == 0 {
            return Ok(Step::Finished);
        }
        let ended = self.slice(|what, key, value| {
            owed -= u64::from(what.take(key, value, out));
            match (owed == 0, out.len() >= CHUNK) {
                (true, _) => ScanStep::Stop,
                (false, true) => ScanStep::Pause,
                (false, false) => ScanStep::Continue,
            }
        })?;
        self.phase = Phase::Sending { owed };
        match (ended, owed) {
            (true, 0) => Ok(Step::Finished),
            (true, _) => {
                Err(StoreError::Corrupt("a table holds fewer rows than it counts".into()).into())
            }
            (false, _) => Ok(Step::Send),
        }
    }

    fn slice(
        &mut self,
        mut visit: impl FnMut(&RowFilter<'_>, &[u8], &[u8]) -> ScanStep,
    ) -> Result<bool, CommandError> {
        let taker = RowFilter::new(&self.what);
        let scan = self.scan.as_mut().ok_or(StoreError::Closed)?;
        Ok(scan.slice(|key, value| visit(&taker, key, value))?)
    }

    fn scan(&self) -> Result<&Scan, StoreError> {
        self.scan.as_ref().ok_or(StoreError::Closed)
    }

    fn write_header(&self, rows: u64, out: &mut [u8]) {
        /// The marker of an array with a 32-bit length.
        const ARRAY_32: u8 = 0xdd;
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        out[self.header_at] = ARRAY_32;
        out[self.header_at + 1..self.header_at + HEADER].copy_from_slice(&rows.to_be_bytes());
    }
}

/// What is wanted, with its pattern read.
enum RowFilter<'a> {
    All,
    Keys,
    Matching(Option<Pattern<'a>>),
}

impl<'a> RowFilter<'a> {
    fn new(what: &'a ListSelection) -> Self {
        match what {
            ListSelection::All => Self::All,
            ListSelection::Keys => Self::Keys,
            ListSelection::Matching(pattern) => Self::Matching(Pattern::read(pattern)),
        }
    }

    fn wants(&self, _key: &[u8], value: &[u8]) -> bool {
        match self {
            Self::All | Self::Keys => true,
            Self::Matching(pattern) => pattern.as_ref().is_some_and(|p| p.matches(value)),
        }
    }

    /// Appends what is wanted of a row, if it is wanted.
    fn take(&self, key: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::Keys => encode::str_bytes(out, key),
            Self::All => out.extend_from_slice(value),
            Self::Matching(_) if self.wants(key, value) => out.extend_from_slice(value),
            Self::Matching(_) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::model::{Caller, Uid};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        service::{Answer, ScanSlots, Service},
        store::{Options, UpkeepCommand},
    };

    const OWNER: Caller = Caller::Local(Uid(1000));

    fn call(service: &Service, method: &str, params: &[&[u8]]) -> Answer {
        let mut encoded = Vec::new();
        encode::array(&mut encoded, params.len());
        encoded.extend(params.concat());
        let reader = service.store().reader(0);
        let answer = service.call(&OWNER, method, &Bytes::from(encoded), &reader, &mut Vec::new());
        answer.expect("it passes the gate")
    }

    async fn ask(service: &Service, method: &str, params: &[&[u8]]) {
        let answer = call(service, method, params);
        service.end(&OWNER, answer, Vec::new()).await.expect(method);
    }

    /// More rows than are removed at once.
    #[tokio::test]
    async fn a_list_whose_table_was_dropped_while_it_waited_is_denied_and_not_cut_short() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Options::new(dir.path())).expect("a store");
        let service = Service::new(store, "here", ScanSlots::new(1, 1), mpsc::channel(1).0);
        ask(&service, "create_table", &[b"\xa1t", b"\x91\xa2id"]).await;
        for id in 0..=u16::from(u8::MAX) + 100 {
            let record = [b"\x81\xa2id\xcd".as_slice(), &id.to_be_bytes()].concat();
            ask(&service, "put", &[b"\xa1t", &record]).await;
        }
        let Answer::List(mut listing) = call(&service, "all", &[b"\xa1t"]) else {
            panic!("all answers a list");
        };
        ask(&service, "drop_table", &[b"\xa1t"]).await;
        service.store().execute(UpkeepCommand::Purge).await.expect("some rows are removed");
        let step = listing.step(&mut Vec::new());
        assert!(matches!(step, Err(CommandError::Refused(Refusal::AccessDenied))), "{step:?}");
        service.store().close().await;
    }
}
