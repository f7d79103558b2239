//! The bytes of messages about replicas of tables.
//! What they mean is `crate::replication`'s. Making them smaller is the edge's, which a [`Packed`] is for.
//!
//! ```text
//!   { 0: type, 1: table, 2: [origin, …], … }    an actor is named once in a message, and is a
//!                                                number elsewhere in it: its place in that list
//!   vector    [origin, seq, origin, seq, …]
//!   position  [change log or nil, number, 0: no pass | 1: full | 2: scan, number of the snapshot transfer, key]
//!   row       [key, value or nil, hlc, origin, seq, context: its place in the list of contexts]
//!   more      [latest, conflicts], each may be nil; it stands beside the word that it belongs to
//!   conflicts [since, count]
//! ```
//!
//! Nothing is allocated by what a message announces: each element of a list takes a byte at least, and a list
//! is believed no longer than the bytes that are there.

use std::collections::BTreeMap;

use crate::{
    directory::{Seen, Standing},
    model::{
        ActorId, AttributeName, Hlc, NodeName, Owner, QualifiedName, Stamp, TableName, TableUid,
    },
    replication::{
        Ack, Batch, ChangeLogId, Cursor, Dot, Head as TableHead, Message, OpenConflicts, Parked,
        Part, Position, PullRequest, Refuse, ReplicaStatus, RowVersion, SnapshotKind,
        SnapshotTransfer, StatusGossip, TableDigest, VersionVector, Why, driver::STATUSES,
    },
};

use super::{
    Reader, encode,
    fields::{Fields, NAMES, begin, bytes, node, uint},
    link::kind,
};

/// Origins of writes in one message, and entries of one vector. A machine gets a new one with each loss of
/// power and each restore: some a year.
pub const ACTORS: usize = 4096;

// Status gossip names no more nodes than a message may.
const _: () = assert!(STATUSES <= NAMES);

/// Rows of one batch.
pub const ROWS: usize = 16_384;

/// Contexts of one batch.
pub const CONTEXTS: usize = 65_536;

/// Entries of all contexts of a batch together: in memory each is many times as large as on the wire.
pub const CONTEXT_ENTRIES: usize = 262_144;

/// Bytes of a key.
pub const KEY_BYTES: usize = 64 << 10;

/// Databases that were removed, in one batch.
pub const REMOVED: usize = 4096;

/// Machines in one list of counts: those that there have ever been in the mesh.
pub const COUNTS: usize = 1024;

/// Attributes of a table. Their names are in one line of the database.
const ATTRIBUTES: usize = 1024;

/// Bytes of a batch that was made smaller, once it is as it was.
pub const PLAIN_BYTES: usize = 16 << 20;

/// A batch that was made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the message's body as it was, at most [`PLAIN_BYTES`].
    pub length: usize,
    /// The body, compressed.
    pub body: Vec<u8>,
}

impl Packed {
    pub(super) fn is_one(fields: &Fields<'_>) -> bool {
        fields.has(31)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        begin(out, kind::BATCH, 2);
        uint(out, 30, self.length as u64);
        bytes(out, 31, &self.body);
    }

    pub(super) fn read(fields: &Fields<'_>) -> Option<Self> {
        let length = usize::try_from(fields.uint(30)?).ok().filter(|n| *n <= PLAIN_BYTES)?;
        let body = fields.value(31)?.bin()?;
        Some(Self { length, body: body.to_vec() })
    }
}

pub(super) fn write(message: &Message, out: &mut Vec<u8>) {
    let mut actors = Actors::default();
    match message {
        Message::PullRequest(request) => write_pull_request(request, &mut actors, out),
        Message::Batch(batch) => write_batch(batch, &mut actors, out),
        Message::Ack(ack) => write_ack(ack, &mut actors, out),
        Message::Refuse(refuse) => write_refuse(*refuse, out),
        Message::Parked(parked) => {
            begin(out, kind::PARKED, 1 + usize::from(parked.drain.is_some()));
            bytes(out, 1, &parked.table.0);
            write_id(out, 3, parked.drain);
        }
        Message::StatusGossip(said) => {
            begin(out, kind::STATUS_GOSSIP, 4);
            bytes(out, 1, &said.table.0);
            array(out, 3, said.statuses.len());
            for (node, status) in &said.statuses {
                encode::array(out, 2);
                encode::str(out, node.as_str());
                write_status(status, &mut actors, out);
            }
            array(out, 4, said.statuses.len());
            said.statuses.iter().for_each(|(_, status)| write_more(status, out));
            actors.write(out);
        }
    }
}

pub(super) fn read(kind: u64, fields: &Fields<'_>) -> Option<Message> {
    let table = TableUid(fields.id(1)?);
    let actors = Actors::read(fields)?;
    Some(match kind {
        kind::PULL_REQUEST => {
            Message::PullRequest(Box::new(read_pull_request(table, fields, &actors)?))
        }
        kind::BATCH => Message::Batch(Box::new(read_batch(table, fields, &actors)?)),
        kind::ACK => Message::Ack(Box::new(Ack {
            table,
            cursor: if fields.has(3) { Some(read_cursor(&mut fields.value(3)?)?) } else { None },
            drain: read_id(fields, 4)?,
            status: {
                let mut status = read_status(&mut fields.value(5)?, &actors)?;
                if let Some(mut reader) = fields.value(6) {
                    read_more(&mut reader)?.add_to(&mut status);
                }
                status
            },
        })),
        kind::REFUSE => Message::Refuse(read_refuse(table, fields)?),
        kind::PARKED => Message::Parked(Parked { table, drain: read_id(fields, 3)? }),
        kind::STATUS_GOSSIP => {
            let mut reader = fields.value(3)?;
            let mut statuses = reader.list(NAMES, |reader| {
                reader.array_of(2)?;
                Some((node(reader)?, read_status(reader, &actors)?))
            })?;
            if let Some(mut reader) = fields.value(4) {
                let more = reader.list(NAMES, read_more)?;
                if more.len() != statuses.len() {
                    return None;
                }
                for ((_, status), more) in statuses.iter_mut().zip(more) {
                    more.add_to(status);
                }
            }
            Message::StatusGossip(StatusGossip { table, statuses })
        }
        _other => return None,
    })
}

fn write_pull_request(request: &PullRequest, actors: &mut Actors, out: &mut Vec<u8>) {
    begin(out, kind::PULL_REQUEST, 6);
    bytes(out, 1, &request.table.0);
    uint(out, 3, actors.number(request.reader));
    uint(out, 4, request.epoch);
    encode::uint(out, 5);
    write_position(&request.position, out);
    encode::uint(out, 6);
    write_vector(&request.vector, actors, out);
    actors.write(out);
}

fn read_pull_request(table: TableUid, fields: &Fields<'_>, actors: &Actors) -> Option<PullRequest> {
    Some(PullRequest {
        table,
        reader: actors.get(fields.uint(3)?)?,
        epoch: fields.uint(4)?,
        position: read_position(&mut fields.value(5)?)?,
        vector: read_vector(&mut fields.value(6)?, actors)?,
    })
}

fn write_batch(batch: &Batch, actors: &mut Actors, out: &mut Vec<u8>) {
    let optional = [batch.head.is_some(), batch.drain.is_some(), batch.digest.is_some()];
    begin(out, kind::BATCH, 16 + optional.into_iter().filter(|there| *there).count());
    bytes(out, 1, &batch.table.0);
    uint(out, 3, actors.number(batch.reader));
    encode::uint(out, 4);
    write_position(&batch.from, out);
    bytes(out, 5, &batch.change_log.0);
    encode::uint(out, 6);
    write_part(&batch.part, out);
    array(out, 7, batch.contexts.len());
    batch.contexts.iter().for_each(|context| write_vector(context, actors, out));
    array(out, 8, batch.rows.len());
    for row in &batch.rows {
        encode::array(out, 6);
        encode::bin(out, &row.key);
        match &row.value {
            Some(value) => encode::bin(out, value),
            None => encode::nil(out),
        }
        encode::uint(out, row.stamp.hlc.to_i64().unsigned_abs());
        encode::uint(out, actors.number(row.stamp.actor));
        encode::uint(out, row.seq);
        encode::uint(out, row.context as u64);
    }
    encode::uint(out, 9);
    write_vector(&batch.vector, actors, out);
    encode::uint(out, 10);
    write_vector(&batch.gc_watermark, actors, out);
    uint(out, 11, batch.hlc.to_i64().unsigned_abs());
    encode::uint(out, 12);
    encode::bool(out, batch.ready);
    uint(out, 13, batch.epoch);
    let standing = match batch.standing {
        Standing::In => 1,
        Standing::Frozen => 2,
        Standing::Out => 3,
    };
    uint(out, 14, standing);
    encode::uint(out, 15);
    write_counts(&batch.knowledge, out);
    array(out, 16, batch.removed.len());
    batch.removed.iter().for_each(|database| encode::bin(out, database));
    if let Some(head) = &batch.head {
        array(out, 17, 4);
        encode::str(out, &head.name.owner.to_string());
        encode::str(out, head.name.name.as_str());
        encode::strings(out, head.attributes.iter().map(AttributeName::as_str));
        encode::uint(out, head.created.to_i64().unsigned_abs());
    }
    write_id(out, 18, batch.drain);
    if let Some(digest) = &batch.digest {
        bytes(out, 19, &digest.to_bytes());
    }
    actors.write(out);
}

fn read_batch(table: TableUid, fields: &Fields<'_>, actors: &Actors) -> Option<Batch> {
    let mut entries = 0;
    let contexts = fields.value(7)?.list(CONTEXTS, |reader| {
        let context = read_vector(reader, actors)?;
        entries += context.len();
        (entries <= CONTEXT_ENTRIES).then_some(context)
    })?;
    let rows = fields.value(8)?.list(ROWS, |reader| {
        reader.array_of(6)?;
        let key = read_key(reader)?;
        let value = reader.or_nil(Reader::bin)?.map(<[u8]>::to_vec);
        let hlc = read_hlc(reader)?;
        let actor = actors.get(reader.count()?)?;
        let (seq, context) = (reader.count()?, usize::try_from(reader.count()?).ok()?);
        let stamp = Stamp { hlc, actor };
        (context < contexts.len()).then_some(RowVersion { key, value, stamp, seq, context })
    })?;
    Some(Batch {
        table,
        reader: actors.get(fields.uint(3)?)?,
        from: read_position(&mut fields.value(4)?)?,
        change_log: ChangeLogId(fields.id(5)?),
        part: read_part(&mut fields.value(6)?)?,
        rows,
        contexts,
        vector: read_vector(&mut fields.value(9)?, actors)?,
        gc_watermark: read_vector(&mut fields.value(10)?, actors)?,
        hlc: fields.hlc(11)?,
        ready: fields.value(12)?.bool()?,
        epoch: fields.uint(13)?,
        standing: match fields.uint(14)? {
            1 => Standing::In,
            2 => Standing::Frozen,
            3 => Standing::Out,
            _other => return None,
        },
        knowledge: read_counts(&mut fields.value(15)?)?,
        removed: fields.value(16)?.list(REMOVED, Reader::bin_of)?,
        head: if fields.has(17) { Some(read_head(&mut fields.value(17)?)?) } else { None },
        drain: read_id(fields, 18)?,
        digest: if fields.has(19) { Some(read_digest(&mut fields.value(19)?)?) } else { None },
    })
}

fn read_head(reader: &mut Reader<'_>) -> Option<TableHead> {
    reader.array_of(4)?;
    let owner = Owner::parse(reader.text()?)?;
    let name = TableName::parse(reader.text()?).ok()?;
    let attributes = reader.list(ATTRIBUTES, |reader| AttributeName::parse(reader.text()?).ok())?;
    let created = read_hlc(reader)?;
    Some(TableHead { name: QualifiedName { owner, name }, attributes, created })
}

fn write_part(part: &Part, out: &mut Vec<u8>) {
    match part {
        Part::Snapshot { kind, starts, pinned, reached } => {
            encode::array(out, 5);
            encode::uint(out, 1);
            encode::uint(out, snapshot_kind(*kind));
            encode::bool(out, *starts);
            encode::uint(out, *pinned);
            match reached {
                Some(key) => encode::bin(out, key),
                None => encode::nil(out),
            }
        }
        Part::Delta { to, last } => {
            encode::array(out, 3);
            encode::uint(out, 2);
            encode::uint(out, *to);
            encode::bool(out, *last);
        }
    }
}

fn read_part(reader: &mut Reader<'_>) -> Option<Part> {
    let length = reader.array()?;
    match (length, reader.count()?) {
        (5, 1) => Some(Part::Snapshot {
            kind: read_snapshot_kind(reader.count()?)?,
            starts: reader.bool()?,
            pinned: reader.count()?,
            reached: match reader.or_nil(Reader::bin)? {
                Some(key) if key.len() > KEY_BYTES => return None,
                reached => reached.map(<[u8]>::to_vec),
            },
        }),
        (3, 2) => Some(Part::Delta { to: reader.count()?, last: reader.bool()? }),
        _other => None,
    }
}

fn snapshot_kind(kind: SnapshotKind) -> u64 {
    match kind {
        SnapshotKind::Full => 1,
        SnapshotKind::Scan => 2,
    }
}

fn read_snapshot_kind(kind: u64) -> Option<SnapshotKind> {
    match kind {
        1 => Some(SnapshotKind::Full),
        2 => Some(SnapshotKind::Scan),
        _other => None,
    }
}

fn write_position(position: &Position, out: &mut Vec<u8>) {
    encode::array(out, 5);
    match position.cursor {
        Some(Cursor { change_log, lsn }) => {
            encode::bin(out, &change_log.0);
            encode::uint(out, lsn);
        }
        None => {
            encode::nil(out);
            encode::uint(out, 0);
        }
    }
    let snapshot = position.snapshot.as_ref();
    encode::uint(out, snapshot.map_or(0, |snapshot| snapshot_kind(snapshot.kind)));
    encode::uint(out, snapshot.map_or(0, |snapshot| snapshot.number));
    encode::bin(out, snapshot.map_or(&[], |snapshot| &snapshot.after));
}

fn read_position(reader: &mut Reader<'_>) -> Option<Position> {
    reader.array_of(5)?;
    let change_log = match reader.or_nil(Reader::bin)? {
        Some(change_log) => Some(ChangeLogId(change_log.try_into().ok()?)),
        None => None,
    };
    let lsn = reader.count()?;
    let (kind, number, after) = (reader.count()?, reader.count()?, read_key(reader)?);
    let snapshot = match kind {
        0 => None,
        kind => Some(SnapshotTransfer { kind: read_snapshot_kind(kind)?, number, after }),
    };
    Some(Position { cursor: change_log.map(|change_log| Cursor { change_log, lsn }), snapshot })
}

fn write_ack(ack: &Ack, actors: &mut Actors, out: &mut Vec<u8>) {
    let optional = [ack.cursor.is_some(), ack.drain.is_some()];
    begin(out, kind::ACK, 4 + optional.into_iter().filter(|there| *there).count());
    bytes(out, 1, &ack.table.0);
    if let Some(Cursor { change_log, lsn }) = ack.cursor {
        array(out, 3, 2);
        encode::bin(out, &change_log.0);
        encode::uint(out, lsn);
    }
    write_id(out, 4, ack.drain);
    encode::uint(out, 5);
    write_status(&ack.status, actors, out);
    encode::uint(out, 6);
    write_more(&ack.status, out);
    actors.write(out);
}

fn read_cursor(reader: &mut Reader<'_>) -> Option<Cursor> {
    reader.array_of(2)?;
    Some(Cursor { change_log: ChangeLogId(reader.bin_of()?), lsn: reader.count()? })
}

fn write_status(status: &ReplicaStatus, actors: &mut Actors, out: &mut Vec<u8>) {
    encode::array(out, 6);
    encode::uint(out, actors.number(status.actor));
    encode::uint(out, status.epoch);
    write_vector(&status.vector, actors, out);
    write_counts(&status.epochs, out);
    encode::bin(out, &status.digest.to_bytes());
    encode::bool(out, status.ready);
}

fn read_status(reader: &mut Reader<'_>, actors: &Actors) -> Option<ReplicaStatus> {
    reader.array_of(6)?;
    Some(ReplicaStatus {
        actor: actors.get(reader.count()?)?,
        epoch: reader.count()?,
        vector: read_vector(reader, actors)?,
        epochs: read_counts(reader)?,
        digest: read_digest(reader)?,
        ready: reader.bool()?,
        conflicts: None, // beside it: a word has as many elements as it had at first
        latest: None,
    })
}

/// What stands beside a word.
struct More {
    latest: Option<Hlc>,
    conflicts: Option<OpenConflicts>,
}

impl More {
    fn add_to(self, status: &mut ReplicaStatus) {
        (status.latest, status.conflicts) = (self.latest, self.conflicts);
    }
}

fn write_more(status: &ReplicaStatus, out: &mut Vec<u8>) {
    encode::array(out, 2);
    match status.latest {
        Some(latest) => encode::uint(out, latest.to_i64().unsigned_abs()),
        None => encode::nil(out),
    }
    write_conflicts(status.conflicts, out);
}

fn read_more(reader: &mut Reader<'_>) -> Option<More> {
    reader.array_of(2)?;
    Some(More { latest: reader.or_nil(read_hlc)?, conflicts: reader.or_nil(read_conflicts)? })
}

fn write_conflicts(conflicts: Option<OpenConflicts>, out: &mut Vec<u8>) {
    let Some(OpenConflicts { since, count }) = conflicts else {
        return encode::nil(out);
    };
    encode::array(out, 2);
    encode::uint(out, since.to_i64().unsigned_abs());
    encode::uint(out, count);
}

fn read_conflicts(reader: &mut Reader<'_>) -> Option<OpenConflicts> {
    reader.array_of(2)?;
    Some(OpenConflicts { since: read_hlc(reader)?, count: reader.count()? })
}

fn write_refuse(refuse: Refuse, out: &mut Vec<u8>) {
    let (code, detail) = match refuse.why {
        Why::NoReplica => (1, 0),
        Why::NotInScope => (2, 0),
        Why::UnknownEpoch => (3, 0),
        Why::Busy => (4, 0),
        Why::Clock(offset_ms) => (5, offset_ms),
        Why::Ahead(by_ms) => (6, i64::try_from(by_ms).unwrap_or(i64::MAX)),
        Why::Stale => (7, 0),
        Why::Directory => (8, 0),
        Why::Quota => (9, 0),
        Why::Storage => (10, 0),
        Why::Damaged => (11, 0),
        Why::Other(code) => (code, 0),
    };
    begin(out, kind::REFUSE, 4);
    bytes(out, 1, &refuse.table.0);
    uint(out, 3, code);
    encode::uint(out, 4);
    encode::int(out, detail);
    encode::uint(out, 5);
    encode::bool(out, refuse.taking);
}

fn read_refuse(table: TableUid, fields: &Fields<'_>) -> Option<Refuse> {
    let detail = fields.int(4)?;
    let why = match fields.uint(3)? {
        1 => Why::NoReplica,
        2 => Why::NotInScope,
        3 => Why::UnknownEpoch,
        4 => Why::Busy,
        5 => Why::Clock(i64::try_from(detail).ok()?),
        6 => Why::Ahead(u64::try_from(detail).ok()?),
        7 => Why::Stale,
        8 => Why::Directory,
        9 => Why::Quota,
        10 => Why::Storage,
        11 => Why::Damaged,
        other => Why::Other(other),
    };
    Some(Refuse { table, taking: fields.value(5)?.bool()?, why })
}

fn write_counts(counts: &Seen, out: &mut Vec<u8>) {
    encode::array(out, 2 * counts.len());
    for (node, count) in counts {
        encode::str(out, node.as_str());
        encode::uint(out, *count);
    }
}

fn read_counts(reader: &mut Reader<'_>) -> Option<Seen> {
    let length = reader.array()?;
    if length > 2 * COUNTS || length % 2 == 1 {
        return None;
    }
    let pair = |_| Some((node(reader)?, reader.count()?));
    (0..length / 2).map(pair).collect::<Option<BTreeMap<NodeName, u64>>>()
}

fn write_vector(vector: &VersionVector, actors: &mut Actors, out: &mut Vec<u8>) {
    encode::array(out, 2 * vector.len());
    for Dot { actor, seq } in vector.iter() {
        encode::uint(out, actors.number(actor));
        encode::uint(out, seq);
    }
}

fn read_vector(reader: &mut Reader<'_>, actors: &Actors) -> Option<VersionVector> {
    let length = reader.array()?;
    if length > 2 * ACTORS || length % 2 == 1 {
        return None;
    }
    let dot = |_| {
        let actor = actors.get(reader.count()?)?;
        Some(Dot { actor, seq: reader.count()? })
    };
    (0..length / 2).map(dot).collect()
}

fn write_id(out: &mut Vec<u8>, key: u64, id: Option<[u8; 16]>) {
    if let Some(id) = id {
        bytes(out, key, &id);
    }
}

/// None where what stands there is no id.
fn read_id(fields: &Fields<'_>, key: usize) -> Option<Option<[u8; 16]>> {
    if fields.has(key) { Some(Some(fields.id(key)?)) } else { Some(None) }
}

fn read_digest(reader: &mut Reader<'_>) -> Option<TableDigest> {
    Some(TableDigest::from_bytes(reader.bin_of()?))
}

fn read_key(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    reader.bin().filter(|key| key.len() <= KEY_BYTES).map(<[u8]>::to_vec)
}

fn read_hlc(reader: &mut Reader<'_>) -> Option<Hlc> {
    i64::try_from(reader.count()?).ok().map(Hlc::from_i64)
}

fn array(out: &mut Vec<u8>, key: u64, length: usize) {
    encode::uint(out, key);
    encode::array(out, length);
}

/// The actors that a message names, each once.
#[derive(Debug, Default)]
struct Actors {
    list: Vec<ActorId>,
    numbers: BTreeMap<ActorId, u64>,
}

impl Actors {
    fn number(&mut self, actor: ActorId) -> u64 {
        *self.numbers.entry(actor).or_insert_with(|| {
            self.list.push(actor);
            self.list.len() as u64 - 1
        })
    }

    fn get(&self, number: u64) -> Option<ActorId> {
        self.list.get(usize::try_from(number).ok()?).copied()
    }

    /// Written last, when all are known; fields have no order.
    fn write(&self, out: &mut Vec<u8>) {
        array(out, 2, self.list.len());
        self.list.iter().for_each(|origin| encode::bin(out, &origin.0.to_be_bytes()));
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        if !fields.has(2) {
            return Some(Self::default());
        }
        let list = fields
            .value(2)?
            .list(ACTORS, |reader| Some(ActorId(u128::from_be_bytes(reader.bin_of()?))))?;
        Some(Self { list, numbers: BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests;
