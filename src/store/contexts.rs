//! What writers had seen, each such vector kept once however many rows refer to it.
//! What a context is for is `cortex_core::sync::meet`'s.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cortex_core::{
    model::Hlc,
    sync::{Dot, Vector},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{error::Fault, origins::Origins};

/// Contexts kept in memory. A table that is written on a few machines has a few at a time.
const CACHED: usize = 1024;

/// The contexts of one database, as the writer uses them.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// Those that are in the file, as of the last commit or of this transaction; emptied after one that
    /// was rolled back, and when there are too many. The writer's thread alone looks at it.
    known: RefCell<HashMap<i64, Arc<Vector>>>,
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
        origins: &Origins,
        id: Option<i64>,
    ) -> Result<Arc<Vector>, Fault> {
        let Some(id) = id else {
            return Ok(Arc::default());
        };
        if let Some(known) = self.known.borrow().get(&id) {
            return Ok(Arc::clone(known));
        }
        let vector = Arc::new(load(conn, origins, id)?);
        self.keep(id, Arc::clone(&vector));
        Ok(vector)
    }

    fn keep(&self, id: i64, vector: Arc<Vector>) {
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
        origins: &mut Origins,
        vector: &Vector,
    ) -> Result<Option<i64>, Fault> {
        if vector.is_empty() {
            return Ok(None);
        }
        let body = encode(conn, origins, vector)?;
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
    pub(super) fn save(&self, conn: &Connection, uses: &Uses) -> Result<(), Fault> {
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
pub(super) fn load(conn: &Connection, origins: &Origins, id: i64) -> Result<Vector, Fault> {
    let body = conn
        .prepare_cached("SELECT body FROM contexts WHERE id = ?1")?
        .query_row([id], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let body = body.ok_or_else(|| Fault::Corrupt("a row's context is missing".into()))?;
    Ok(decode(origins, &body))
}

/// Pairs of an origin's short number and a seq, eight bytes each, by rising number.
pub(super) fn encode(
    conn: &Connection,
    origins: &mut Origins,
    vector: &Vector,
) -> Result<Vec<u8>, Fault> {
    let mut pairs = Vec::with_capacity(vector.len());
    for Dot { incarnation, seq } in vector.iter() {
        pairs.push((origins.enter(conn, incarnation, Hlc::default())?, seq));
    }
    pairs.sort_unstable();
    let bytes = pairs.iter().flat_map(|(n, seq)| [n.to_be_bytes(), seq.to_be_bytes()]).flatten();
    Ok(bytes.collect())
}

/// The vector in such bytes.
pub(super) fn decode(origins: &Origins, body: &[u8]) -> Vector {
    let (pairs, _) = body.as_chunks::<16>();
    let dot = |pair: &[u8; 16]| {
        let (number, seq) =
            (u128::from_be_bytes(*pair) >> 64, u128::from_be_bytes(*pair) & u128::from(u64::MAX));
        let number = i64::try_from(number).unwrap_or(0);
        Dot { incarnation: origins.id(number), seq: u64::try_from(seq).unwrap_or(0) }
    };
    pairs.iter().map(dot).collect()
}
