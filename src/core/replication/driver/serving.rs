//! What a source remembers of a reader on one link, so as not to send it what it has.
//! Which rows it reads for a request is `source`'s; reading them, the store's.

use std::collections::HashMap;

use crate::{
    model::TableUid,
    replication::{Answer, Batch, Part, Position, PullRequest, Why},
};

/// Entries of a change log that a reader has written itself, and need not be sent at once.
const LONGEST_ECHO: u64 = 4096;

/// By table, what was found out for a reader.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// Where there was nothing for requests that wait.
    passed: HashMap<TableUid, Passed>,
    /// The tables of which the reader knows that the replica here is whole, and the LSN that this has brought it to.
    announced_complete: HashMap<TableUid, u64>,
}

/// A part of the change log that was looked at for a request and held nothing for it. Nor will it later, for a
/// request from the same place in the same replica epoch: what a reader has incorporated only grows.
#[derive(Debug)]
struct Passed {
    epoch: u64,
    from: Position,
    upto: u64,
}

/// What is known of a reader, besides its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderKnows {
    /// The LSN of its cursor when it was sent that the replica here is complete; none where it was not.
    announced_complete: Option<u64>,
    /// The LSN up to which nothing in the change log is for it.
    pub passed: u64,
}

/// What a request has come to, and what is to be remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// Where nothing is said: the LSN up to which there was nothing for the reader.
    passed: Option<u64>,
}

impl Answered {
    /// There are no rows for this reader.
    #[must_use]
    pub fn refused(why: Why) -> Self {
        Self { answer: Answer::Refused(why), passed: None }
    }

    /// There is nothing new; with the draining that is to be acknowledged.
    #[must_use]
    pub fn nothing(drain: Option<[u8; 16]>) -> Self {
        Self { answer: Answer::Nothing(drain), passed: None }
    }
}

impl ReaderKnows {
    /// What a batch that was read for a request comes to.
    #[must_use]
    pub fn answer(&self, request: &PullRequest, batch: Box<Batch>) -> Answered {
        match self.echo(request, &batch) {
            Some(passed) => Answered { answer: Answer::Nothing(None), passed: Some(passed) },
            None => Answered { answer: Answer::Batch(batch), passed: None },
        }
    }

    /// Where a batch leads to that would only move the reader's place in the change log: what is new here has come
    /// from there. It would cost the reader a commit for each of its own writes. Not for ever: the change log would
    /// have to be read from further and further back.
    fn echo(&self, request: &PullRequest, batch: &Batch) -> Option<u64> {
        let Part::Delta { to, last: true } = batch.part else { return None };
        let from = batch.from.cursor.map_or(0, |cursor| cursor.lsn);
        let is_echo = self.announced_complete.is_some_and(|upto| from >= upto)
            && batch.rows.is_empty()
            && batch.drain.is_none()
            && to.saturating_sub(from) < LONGEST_ECHO
            && request.vector.dominates(&batch.vector);
        is_echo.then_some(to)
    }
}

impl Serving {
    /// What is known of the reader that makes a request.
    pub(super) fn reader_knows(&self, request: &PullRequest) -> ReaderKnows {
        let holds =
            |passed: &&Passed| (passed.epoch, &passed.from) == (request.epoch, &request.position);
        ReaderKnows {
            announced_complete: self.announced_complete.get(&request.table).copied(),
            passed: self.passed.get(&request.table).filter(holds).map_or(0, |passed| passed.upto),
        }
    }

    /// Takes note of what a request has come to.
    pub(super) fn answered(&mut self, request: &PullRequest, answered: &Answered) {
        if let Some(upto) = answered.passed {
            let (epoch, from) = (request.epoch, request.position.clone());
            self.passed.insert(request.table, Passed { epoch, from, upto });
        }
        if let Answer::Batch(batch) = &answered.answer
            && let Part::Delta { to, last: true } = batch.part
        {
            if batch.ready {
                self.announced_complete.entry(batch.table).or_insert(to);
            } else {
                self.announced_complete.remove(&batch.table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::ActorId,
        replication::{ChangeLogId, Cursor, Dot, VersionVector},
    };

    const TABLE: TableUid = TableUid([1; 16]);
    const CHANGE_LOG: ChangeLogId = ChangeLogId([7; 16]);

    fn request(lsn: u64) -> PullRequest {
        let cursor = Some(Cursor { change_log: CHANGE_LOG, lsn });
        PullRequest {
            table: TABLE,
            reader: ActorId(1),
            epoch: 1,
            position: Position { cursor, snapshot: None },
            vector: VersionVector::new(),
        }
    }

    fn end(request: &PullRequest, to: u64) -> Box<Batch> {
        let part = Part::Delta { to, last: true };
        Box::new(Batch::empty(TABLE, request.reader, request.position.clone(), CHANGE_LOG, part))
    }

    #[test]
    fn a_reader_gets_once_that_the_replica_is_complete_and_then_nothing_without_rows() {
        let mut serving = Serving::default();
        let mut serve = |from, to| {
            let request = request(from);
            let knows = serving.reader_knows(&request);
            let answered = knows.answer(&request, end(&request, to));
            serving.answered(&request, &answered);
            (knows.passed, matches!(answered.answer, Answer::Batch(_)))
        };
        assert_eq!(serve(0, 5), (0, true));
        assert_eq!(serve(5, 7), (0, false), "it has written that itself");
        assert_eq!(serve(5, 9), (7, false), "and what was looked at is not looked at again");
        assert_eq!(serve(5, 5 + LONGEST_ECHO), (9, true), "but it is brought on some day");
        assert_eq!(serve(6, 9), (0, false), "what was looked at was from elsewhere");
    }

    #[test]
    fn what_a_reader_lacks_is_announced_also_without_rows() {
        let mut serving = Serving::default();
        let first = request(0);
        let whole = serving.reader_knows(&first).answer(&first, end(&first, 5));
        serving.answered(&first, &whole);
        let request = request(5);
        let knows = serving.reader_knows(&request);
        let dot = Dot { actor: ActorId(9), seq: 1 };
        let news = Batch { vector: [dot].into_iter().collect(), ..*end(&request, 6) };
        assert!(matches!(knows.answer(&request, Box::new(news)).answer, Answer::Batch(_)));
        let drains = Batch { drain: Some([1; 16]), ..*end(&request, 6) };
        assert!(matches!(knows.answer(&request, Box::new(drains)).answer, Answer::Batch(_)));
        let fills = Batch { ready: false, ..*end(&request, 6) };
        let fills = ReaderKnows::default().answer(&request, Box::new(fills));
        serving.answered(&request, &fills);
        assert_eq!(serving.reader_knows(&request), ReaderKnows::default(), "it is not whole now");
    }
}
