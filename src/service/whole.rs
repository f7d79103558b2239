//! Answers carried out to their end: for transports whose replies are single messages.
//! Sending results piece by piece, however long they are, is `edge::conn`'s.

use cortex_core::{
    model::{Caller, Refusal},
    wire::encode,
};
use tokio::task::yield_now;

use super::{Answer, Deferred, Pieces, Service, Step};
use crate::store::{CommandError, StoreError};

/// The largest result that is put together in memory: half of what a message on the system bus may be.
const MOST: usize = 16 << 20;

impl Service {
    /// Waits for what a request leads to, and answers the encoded result. `out` is the buffer that
    /// [`Service::call`] was given.
    ///
    /// # Errors
    /// A [`CommandError`]: nothing was changed, or the result is too large for a single message.
    pub async fn end(
        &self,
        caller: &Caller,
        answer: Answer,
        mut out: Vec<u8>,
    ) -> Result<Vec<u8>, CommandError> {
        match answer {
            Answer::Ready => {}
            Answer::Commit(command) => {
                encode::str(&mut out, Self::done(self.store.execute(command).await?));
            }
            Answer::List(mut listing) => {
                let _slot = self.scans.take(caller).await;
                collect(listing.as_mut(), &mut out).await?;
            }
            Answer::Later(later) => match later.await.unwrap_or(Err(StoreError::Closed.into()))? {
                Deferred::Encoded(result) => out = result,
                Deferred::Pieces(mut pieces) => collect(pieces.as_mut(), &mut out).await?,
            },
        }
        Ok(out)
    }
}

async fn collect(pieces: &mut dyn Pieces, out: &mut Vec<u8>) -> Result<(), CommandError> {
    // Emptied after each piece: its length tells a list when to pause.
    let mut piece = Vec::new();
    loop {
        let step = pieces.step(&mut piece)?;
        if out.len() + piece.len() > MOST {
            return Err(Refusal::ResultTooLarge(MOST).into());
        }
        match step {
            Step::Working => {}
            Step::Send => out.append(&mut piece),
            Step::Finished => {
                out.append(&mut piece);
                return Ok(());
            }
        }
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cortex_core::{
        model::Uid,
        wire::{Head, Reader as Decoder},
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        service::ScanSlots,
        store::{Options, Store},
    };

    const OWNER: Caller = Caller::Local(Uid(1000));

    fn service(dir: &std::path::Path) -> Service {
        let store = Store::open(&Options::new(dir)).expect("a store");
        Service::new(store, "here", ScanSlots::new(2, 1), mpsc::channel(1).0)
    }

    fn params(texts: &[&str]) -> Vec<u8> {
        let mut params = Vec::new();
        encode::strings(&mut params, texts.iter().copied());
        params
    }

    async fn ask(
        service: &Service,
        method: &str,
        params: Vec<u8>,
    ) -> Result<Vec<u8>, CommandError> {
        let mut out = Vec::new();
        let reader = service.store().reader(0);
        let answer = service.call(&OWNER, method, &Bytes::from(params), &reader, &mut out)?;
        service.end(&OWNER, answer, out).await
    }

    /// Stores so many records of so many bytes.
    async fn fill(service: &Service, records: u8, bytes: usize) {
        let mut creation = Vec::new();
        encode::array(&mut creation, 2);
        encode::str(&mut creation, "t");
        encode::strings(&mut creation, ["id"].into_iter());
        ask(service, "create_table", creation).await.expect("created");
        for id in 0..records {
            let mut put = Vec::new();
            encode::array(&mut put, 2);
            encode::str(&mut put, "t");
            encode::map(&mut put, 2);
            encode::str(&mut put, "id");
            encode::uint(&mut put, id.into());
            encode::str(&mut put, "text");
            encode::str(&mut put, &"x".repeat(bytes));
            ask(service, "put", put).await.expect("stored");
        }
    }

    #[tokio::test]
    async fn a_list_of_many_pieces_is_put_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let service = service(dir.path());
        fill(&service, 5, 600 << 10).await;
        let all = ask(&service, "all", params(&["t"])).await.expect("a list");
        let mut reader = Decoder::new(&all);
        assert_eq!(reader.head(), Some(Head::Array(5)));
        assert!((0..5).all(|_| reader.raw().is_some()) && reader.rest().is_empty());
        service.store().close().await;
    }

    #[tokio::test]
    async fn a_list_too_large_for_a_message_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let service = service(dir.path());
        fill(&service, 20, 900 << 10).await;
        let refused = ask(&service, "all", params(&["t"])).await;
        assert!(
            matches!(refused, Err(CommandError::Refused(Refusal::ResultTooLarge(MOST)))),
            "{:?}",
            refused.map(|all| all.len())
        );
        service.store().close().await;
    }
}
