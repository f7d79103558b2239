//! Every message about replicas reads back as it was written, and nothing that arrives makes reading panic.
//! Leaves the frame around it to `link`.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::wire::link::{self, FRAME_BYTES, Incoming, Malformed, body_length};

/// What a database can keep.
fn counts() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn names() -> impl Strategy<Value = NodeName> {
    "[a-z][a-z0-9]{0,20}".prop_map(|name| NodeName::parse(&name).expect("a name"))
}

fn hlcs() -> impl Strategy<Value = Hlc> {
    (0..=i64::MAX).prop_map(Hlc::from_i64)
}

fn actors() -> impl Strategy<Value = ActorId> {
    prop_oneof![(0..4_u128).prop_map(ActorId), any::<u128>().prop_map(ActorId)]
}

fn vectors() -> impl Strategy<Value = VersionVector> {
    let dot = |(actor, seq)| Dot { actor, seq };
    vec((actors(), 1..=i64::MAX.unsigned_abs()), 0..6)
        .prop_map(move |dots| dots.into_iter().map(dot).collect())
}

fn seen() -> impl Strategy<Value = Seen> {
    prop::collection::btree_map(names(), counts(), 0..4)
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn cursors() -> impl Strategy<Value = Cursor> {
    (any::<[u8; 16]>(), counts())
        .prop_map(|(change_log, lsn)| Cursor { change_log: ChangeLogId(change_log), lsn })
}

fn snapshot_kinds() -> impl Strategy<Value = SnapshotKind> {
    prop_oneof![Just(SnapshotKind::Full), Just(SnapshotKind::Scan)]
}

fn positions() -> impl Strategy<Value = Position> {
    let snapshot = (snapshot_kinds(), counts(), keys())
        .prop_map(|(kind, number, after)| SnapshotTransfer { kind, number, after });
    (option::of(cursors()), option::of(snapshot))
        .prop_map(|(cursor, snapshot)| Position { cursor, snapshot })
}

fn tables() -> impl Strategy<Value = TableUid> {
    any::<[u8; 16]>().prop_map(TableUid)
}

fn digests() -> impl Strategy<Value = TableDigest> {
    any::<[u8; 32]>().prop_map(TableDigest::from_bytes)
}

prop_compose! {
    fn pull_requests()(
        table in tables(),
        reader in actors(),
        epoch in counts(),
        position in positions(),
        vector in vectors(),
    ) -> PullRequest {
        PullRequest { table, reader, epoch, position, vector }
    }
}

prop_compose! {
    fn words()(
        actor in actors(),
        (epoch, ready) in (counts(), any::<bool>()),
        vector in vectors(),
        epochs in seen(),
        digest in digests(),
        conflicts in option::of((hlcs(), counts())),
        latest in option::of(hlcs()),
    ) -> ReplicaStatus {
        let conflicts = conflicts.map(|(since, count)| OpenConflicts { since, count });
        ReplicaStatus { actor, epoch, vector, epochs, digest, ready, conflicts, latest }
    }
}

fn parts() -> impl Strategy<Value = Part> {
    let keyed = (snapshot_kinds(), any::<bool>(), counts(), option::of(keys()));
    prop_oneof![
        keyed.prop_map(|(kind, starts, pinned, reached)| Part::Snapshot {
            kind,
            starts,
            pinned,
            reached
        }),
        (counts(), any::<bool>()).prop_map(|(to, last)| Part::Delta { to, last }),
    ]
}

prop_compose! {
    fn heads()(
        owner in prop_oneof![
            any::<u32>().prop_map(|uid| Owner::Uid(crate::model::Uid(uid))),
            (any::<u32>(), names())
                .prop_map(|(uid, node)| Owner::Remote(crate::model::Uid(uid), node)),
        ],
        name in "[a-z][a-z0-9_]{0,20}",
        attributes in vec("[a-z][a-z0-9_]{0,20}", 0..4),
        created in hlcs(),
    ) -> TableHead {
        let name = QualifiedName { owner, name: TableName::parse(&name).expect("a name") };
        let attribute = |name: &String| AttributeName::parse(name).expect("a name");
        TableHead { name, attributes: attributes.iter().map(attribute).collect(), created }
    }
}

fn rows(contexts: usize) -> impl Strategy<Value = Vec<RowVersion>> {
    let row = (keys(), option::of(keys()), hlcs(), actors(), counts(), 0..contexts).prop_map(
        |(key, value, hlc, actor, seq, context)| {
            let stamp = Stamp { hlc, actor };
            RowVersion { key, value, stamp, seq, context }
        },
    );
    vec(row, 0..5)
}

prop_compose! {
    fn batches()(
        (contexts, rows) in vec(vectors(), 1..4)
            .prop_flat_map(|contexts| (Just(contexts.clone()), rows(contexts.len()))),
        (table, reader, from, part) in (tables(), actors(), positions(), parts()),
        (vector, gc_watermark, hlc) in (vectors(), vectors(), hlcs()),
        (change_log, ready, epoch) in (any::<[u8; 16]>(), any::<bool>(), counts()),
        standing in prop_oneof![Just(Standing::In), Just(Standing::Frozen), Just(Standing::Out)],
        knowledge in seen(),
        (removed, drain) in any::<(Vec<[u8; 16]>, Option<[u8; 16]>)>(),
        (head, digest) in (option::of(heads()), option::of(digests())),
    ) -> Batch {
        Batch {
            table, reader, from, change_log: ChangeLogId(change_log), part, contexts, rows, vector, gc_watermark, hlc, ready,
            epoch, standing, knowledge, removed, head, drain, digest,
        }
    }
}

fn whys() -> impl Strategy<Value = Why> {
    prop_oneof![
        Just(Why::NoReplica),
        Just(Why::NotInScope),
        Just(Why::UnknownEpoch),
        Just(Why::Busy),
        any::<i64>().prop_map(Why::Clock),
        (0..i64::MAX.unsigned_abs()).prop_map(Why::Ahead),
        Just(Why::Stale),
        Just(Why::Directory),
        Just(Why::Quota),
        Just(Why::Storage),
        (11..=i64::MAX.unsigned_abs()).prop_map(Why::Other),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        pull_requests().prop_map(|request| Message::PullRequest(Box::new(request))),
        batches().prop_map(|batch| Message::Batch(Box::new(batch))),
        (tables(), option::of(cursors()), any::<Option<[u8; 16]>>(), words()).prop_map(
            |(table, cursor, drain, status)| {
                Message::Ack(Box::new(Ack { table, cursor, drain, status }))
            }
        ),
        (tables(), any::<bool>(), whys())
            .prop_map(|(table, taking, why)| Message::Refuse(Refuse { table, taking, why })),
        (tables(), any::<Option<[u8; 16]>>())
            .prop_map(|(table, drain)| Message::Parked(Parked { table, drain })),
        (tables(), vec((names(), words()), 0..4))
            .prop_map(|(table, statuses)| Message::StatusGossip(StatusGossip { table, statuses })),
    ]
}

fn body_of(message: &link::Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    let (header, body) = bytes.split_first_chunk().expect("a header");
    assert_eq!(body_length(*header, FRAME_BYTES), Some(body.len()));
    body.to_vec()
}

/// A machine of an earlier version says nothing of conflicts, and does not understand what is said of them.
#[test]
fn conflicts_stand_beside_a_word_that_is_as_it_always_was() {
    let conflicts = Some(OpenConflicts { since: Hlc::from_i64(9), count: 3 });
    let status = |conflicts| ReplicaStatus { conflicts, ..ReplicaStatus::default() };
    let ack = |conflicts| {
        let status = status(conflicts);
        Message::Ack(Box::new(Ack { table: TableUid([0; 16]), cursor: None, drain: None, status }))
    };
    let bodies = [ack(None), ack(conflicts)].map(|ack| body_of(&link::Message::Sync(ack)));
    let status_in = |body: &[u8]| {
        let fields = Fields::read(body).expect("a map");
        fields.value(5).and_then(|mut value| value.raw()).expect("a status").to_vec()
    };
    assert_eq!(status_in(&bodies[0]), status_in(&bodies[1]));

    let statuses = vec![(NodeName::parse("a").expect("a name"), status(None))];
    let said = Message::StatusGossip(StatusGossip { table: TableUid([0; 16]), statuses });
    let told = body_of(&link::Message::Sync(said.clone()));
    let mut earlier = Vec::new();
    begin(&mut earlier, link::kind::STATUS_GOSSIP, 3);
    for key in [1, 2, 3] {
        encode::uint(&mut earlier, key);
        let fields = Fields::read(&told).expect("a map");
        let key = usize::try_from(key).expect("a small one");
        earlier.extend(fields.value(key).and_then(|mut value| value.raw()).expect("a field"));
    }
    let fields = Fields::read(&earlier).expect("a map");
    assert_eq!(read(link::kind::STATUS_GOSSIP, &fields), Some(said));
}

#[test]
fn an_origin_of_writes_is_named_once() {
    let (one, other) = (ActorId(u128::MAX), ActorId(u128::MAX - 1));
    let vector: VersionVector =
        [one, other].map(|actor| Dot { actor, seq: 7 }).into_iter().collect();
    let status = ReplicaStatus { actor: one, vector, ..ReplicaStatus::default() };
    let name = |name| NodeName::parse(name).expect("a name");
    let statuses = vec![(name("a"), status.clone()), (name("b"), status)];
    let said = Message::StatusGossip(StatusGossip { table: TableUid([0; 16]), statuses });
    let body = body_of(&link::Message::Sync(said));
    let times = body.windows(16).filter(|bytes| *bytes == one.0.to_be_bytes()).count();
    assert_eq!(times, 1);
}

#[test]
fn what_a_list_announces_takes_no_memory_and_is_no_message() {
    let mut body = Vec::new();
    begin(&mut body, kind::STATUS_GOSSIP, 3);
    bytes(&mut body, 1, &[0; 16]);
    array(&mut body, 3, 65);
    (0..65).for_each(|_| encode::nil(&mut body));
    array(&mut body, 2, 0);
    assert_eq!(Incoming::read(&body), Err(Malformed), "more machines than a mesh has");
    let mut body = Vec::new();
    begin(&mut body, kind::STATUS_GOSSIP, 3);
    bytes(&mut body, 1, &[0; 16]);
    array(&mut body, 2, 0);
    array(&mut body, 3, u32::MAX as usize);
    assert_eq!(Incoming::read(&body), Err(Malformed), "the elements are not there");
}

#[test]
fn a_row_of_a_context_that_is_not_there_is_no_message() {
    let packed = Packed { length: PLAIN_BYTES + 1, body: vec![1] };
    assert_eq!(Incoming::read(&body_of(&link::Message::Packed(packed))), Err(Malformed));
}

proptest! {
    #[test]
    fn a_message_reads_back_as_it_was_written(message in messages()) {
        let body = body_of(&link::Message::Sync(message.clone()));
        prop_assert!(Incoming::is_about_replicas(&body));
        prop_assert_eq!(Incoming::read(&body), Ok(Incoming::Known(link::Message::Sync(message))));
    }

    #[test]
    fn a_packed_chunk_reads_back_as_it_was_written(length in 0..=PLAIN_BYTES, body in any::<Vec<u8>>()) {
        let message = link::Message::Packed(Packed { length, body });
        let written = body_of(&message);
        prop_assert!(Incoming::is_about_replicas(&written));
        prop_assert_eq!(Incoming::read(&written), Ok(Incoming::Known(message)));
    }

    #[test]
    fn a_damaged_message_never_panics(
        message in messages(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut body = body_of(&link::Message::Sync(message));
        let at = at.index(body.len());
        if cut {
            body.truncate(at);
        } else {
            body[at] = byte;
        }
        let _ = Incoming::read(&body);
    }
}
