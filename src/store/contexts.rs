//! What writers had seen, each such vector kept once however many rows refer to it.
//! What a context is for is `cortex_core::replication::resolve`'s.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cortex_core::{
    model::Hlc,
    replication::{Dot, VersionVector},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{actors::Actors, error::StoreError};

/// Contexts kept in memory. A table that is written on a few machines has a few at a time.
const CACHED: usize = 1024;

/// The contexts of one database, as the writer uses them.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// Those that are in the file, as of the last commit or of this transaction; emptied after one that
    /// was rolled back, and when there are too many. The writer's thread alone looks at it.
    known: RefCell<HashMap<i64, Arc<VersionVector>>>,
}

/// How often each context is used more, or less, after a transaction.
pub(super) type Uses = BTreeMap<i64, i64>;

impl Contexts {
    /// Believes nothing any more: a transaction was rolled back.
    pub(super) fn forget(&self) {
        self.known.borrow_mut().clear();
    }

    /// The vector behind a number; nothing at all for none.
    pub(super) fn get(
        &self,
        conn: &Connection,
        actors: &Actors,
        id: Option<i64>,
    ) -> Result<Arc<VersionVector>, StoreError> {
        let Some(id) = id else {
            return Ok(Arc::default());
        };
        if let Some(known) = self.known.borrow().get(&id) {
            return Ok(Arc::clone(known));
        }
        let vector = Arc::new(load(conn, actors, id)?);
        self.keep(id, Arc::clone(&vector));
        Ok(vector)
    }

    fn keep(&self, id: i64, vector: Arc<VersionVector>) {
        let mut known = self.known.borrow_mut();
        if known.len() >= CACHED {
            known.clear();
        }
        known.insert(id, vector);
    }

    /// The number of a vector, which gets one if it has none.
    pub(super) fn intern(
        &self,
        conn: &Connection,
        actors: &mut Actors,
        vector: &VersionVector,
    ) -> Result<Option<i64>, StoreError> {
        if vector.is_empty() {
            return Ok(None);
        }
        let body = encode(conn, actors, vector)?;
        let found = conn
            .prepare_cached("SELECT id FROM contexts WHERE body = ?1")?
            .query_row([&body], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                conn.prepare_cached("INSERT INTO contexts (body, uses) VALUES (?1, 0)")?
                    .execute([&body])?;
                conn.last_insert_rowid()
            }
        };
        self.keep(id, Arc::new(vector.clone()));
        Ok(Some(id))
    }

    /// Counts uses, and removes what is used no more.
    pub(super) fn save(&self, conn: &Connection, uses: &Uses) -> Result<(), StoreError> {
        let mut count =
            conn.prepare_cached("UPDATE contexts SET uses = uses + ?2 WHERE id = ?1")?;
        let mut remove = conn.prepare_cached("DELETE FROM contexts WHERE id = ?1 AND uses <= 0")?;
        for (id, more) in uses {
            if *more != 0 {
                count.execute(params![id, more])?;
            }
            if *more <= 0 && remove.execute([id])? > 0 {
                self.known.borrow_mut().remove(id);
            }
        }
        Ok(())
    }
}

/// The vector behind a number.
pub(super) fn load(
    conn: &Connection,
    actors: &Actors,
    id: i64,
) -> Result<VersionVector, StoreError> {
    let body = conn
        .prepare_cached("SELECT body FROM contexts WHERE id = ?1")?
        .query_row([id], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let body = body.ok_or_else(|| StoreError::Corrupt("a row's context is missing".into()))?;
    Ok(decode(actors, &body))
}

/// What a vector begins with. One of the first form, pairs of eight bytes each, begins with a zero.
const COMPACT: u8 = 1;

/// For each actor, by rising number: how much its number is above the one before, and its seq, both in seven bits a
/// byte (LEB128).
///
/// Each restart of a machine adds an actor to the tables that are written afterwards, and every row that is written
/// then keeps a vector with all of them. So it is these few bytes that decide how fast a database grows by restarts.
pub(super) fn encode(
    conn: &Connection,
    actors: &mut Actors,
    vector: &VersionVector,
) -> Result<Vec<u8>, StoreError> {
    let mut pairs = Vec::with_capacity(vector.len());
    for Dot { actor, seq } in vector.iter() {
        let number = actors.enter(conn, actor, Hlc::default())?;
        pairs.push((number.unsigned_abs(), seq));
    }
    pairs.sort_unstable();
    Ok(pack(&pairs))
}

/// The vector in such bytes, or in those of the first form.
pub(super) fn decode(actors: &Actors, body: &[u8]) -> VersionVector {
    let dot = |(number, seq)| {
        let number = i64::try_from(number).unwrap_or(0);
        Dot { actor: actors.id(number), seq }
    };
    unpack(body).into_iter().map(dot).collect()
}

fn pack(pairs: &[(u64, u64)]) -> Vec<u8> {
    let mut body = Vec::new();
    if !pairs.is_empty() {
        body.push(COMPACT);
    }
    let mut before = 0;
    for &(number, seq) in pairs {
        put_number(&mut body, number - before);
        put_number(&mut body, seq);
        before = number;
    }
    body
}

fn unpack(body: &[u8]) -> Vec<(u64, u64)> {
    let Some((&COMPACT, mut rest)) = body.split_first() else {
        let (pairs, _) = body.as_chunks::<8>();
        let (pairs, _) = pairs.as_chunks::<2>();
        let eight = |bytes: [u8; 8]| u64::from_be_bytes(bytes);
        return pairs.iter().map(|[number, seq]| (eight(*number), eight(*seq))).collect();
    };
    let (mut pairs, mut number) = (Vec::new(), 0_u64);
    while let (Some(more), Some(seq)) = (take_number(&mut rest), take_number(&mut rest)) {
        number = number.saturating_add(more);
        pairs.push((number, seq));
    }
    pairs
}

fn put_number(body: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        body.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    body.push(number.to_le_bytes()[0]);
}

fn take_number(body: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = body.split_first()?;
        *body = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_form(pairs: &[(u64, u64)]) -> Vec<u8> {
        pairs.iter().flat_map(|(n, seq)| [n.to_be_bytes(), seq.to_be_bytes()]).flatten().collect()
    }

    proptest! {
        #[test]
        fn a_vector_is_read_as_it_was_written_in_either_form(
            pairs in prop::collection::btree_map(0..1_u64 << 56, any::<u64>(), 0..20)
        ) {
            let pairs: Vec<_> = pairs.into_iter().collect();
            prop_assert_eq!(unpack(&pack(&pairs)), pairs.clone());
            prop_assert_eq!(unpack(&first_form(&pairs)), pairs);
        }

        #[test]
        fn any_bytes_are_some_vector(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _some = unpack(&body);
        }
    }

    /// What a machine that was restarted each day for five years adds to each row that is written.
    #[test]
    fn an_actor_takes_few_bytes() {
        let restarts = 1800;
        let pairs: Vec<_> = (1..=restarts).map(|number| (number, number * 500)).collect();
        assert!(pack(&pairs).len() <= 4 * pairs.len() + 1, "{}", pack(&pairs).len());
        assert_eq!(pack(&[]), [0; 0], "nothing seen is no bytes, as before");
    }
}
