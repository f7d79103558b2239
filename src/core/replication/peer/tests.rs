//! What is noted of replicas on other nodes, and in which order it counts.

use super::*;
use crate::{
    model::Stamp,
    replication::{ChangeLogId, Dot, OpenConflicts, Part, Position},
};

const OLD: ActorId = ActorId(1);
const NEW: ActorId = ActorId(2);
const TABLE: TableUid = TableUid([1; 16]);

fn status(actor: ActorId, epoch: u64, seq: u64) -> ReplicaStatus {
    let vector: VersionVector = [Dot { actor, seq }].into_iter().collect();
    ReplicaStatus { actor, epoch, vector, ..ReplicaStatus::default() }
}

fn knows(status: ReplicaStatus) -> RemoteReplica {
    RemoteReplica { status: Some(status), ..RemoteReplica::default() }
}

#[test]
fn gossip_counts_where_it_says_more() {
    let known = knows(status(OLD, 2, 5));
    assert!(known.is_news(&status(OLD, 2, 6), Some(OLD)));
    assert!(known.is_news(&status(OLD, 3, 1), Some(OLD)));
    assert!(!known.is_news(&status(OLD, 2, 5), Some(OLD)), "nothing new");
    assert!(!known.is_news(&status(OLD, 1, 9), Some(OLD)), "an earlier epoch");
    assert!(RemoteReplica::default().is_news(&status(OLD, 1, 1), Some(OLD)));
}

/// Where somebody takes note of conflicts, nothing else changes.
#[test]
fn of_two_numbers_of_conflicts_the_later_counts() {
    let counted = |at_ms, count| {
        let conflicts = Some(OpenConflicts { since: Hlc::from_unix_ms(at_ms), count });
        ReplicaStatus { conflicts, ..status(OLD, 1, 5) }
    };
    let known = knows(counted(20, 3));
    assert!(known.is_news(&counted(30, 0), Some(OLD)));
    assert!(!known.is_news(&counted(10, 7), Some(OLD)));
    assert!(!known.is_news(&status(OLD, 1, 5), Some(OLD)), "it does not say");
}

#[test]
fn gossip_counts_of_the_actor_that_is_known_alone() {
    assert!(!RemoteReplica::default().is_news(&status(OLD, 1, 1), Some(NEW)));
    assert!(!RemoteReplica::default().is_news(&status(OLD, 1, 1), None));
    assert!(knows(status(OLD, 1, 9)).is_news(&status(NEW, 1, 1), Some(NEW)));
}

#[test]
fn what_a_node_has_said_as_another_actor_counts_no_more() {
    let mut known = knows(status(OLD, 1, 9));
    known.is_now(OLD, Some(OLD));
    assert_eq!(known, knows(status(OLD, 1, 9)));
    known.is_now(NEW, Some(OLD));
    assert_eq!(known, RemoteReplica { outdated: Some(OLD), ..RemoteReplica::default() });
}

/// It may have lost what the old one had said, and the directory is late.
#[test]
fn a_node_that_has_said_to_be_another_actor_is_not_taken_for_the_old_one_again() {
    let known = RemoteReplica { outdated: Some(OLD), ..knows(status(NEW, 1, 1)) };
    assert!(!known.is_news(&status(OLD, 1, 9), Some(OLD)));
    assert!(known.is_news(&status(NEW, 1, 2), Some(NEW)), "once the directory knows it");
}

/// Of the replica itself the last acknowledgement counts, and it ends what its reader had against rows.
#[test]
fn an_acknowledgement_ends_what_the_reader_has_said_against_rows() {
    let node = NodeName::parse("office").expect("a name");
    let facts = Facts { current: Some(OLD), own: None, now_ms: 5 };
    let mut peers = Peers::default();
    let refused = Change::Giving(Some(SyncProblem::Quota));
    assert_eq!(peers.note(TABLE, &node, refused, &facts)[1], Some(SyncProblem::Quota));
    let ack = Ack { table: TABLE, cursor: None, drain: None, status: status(OLD, 1, 5) };
    let ack = Change::Acknowledged(Box::new(ack));
    assert_eq!(peers.note(TABLE, &node, ack, &facts), [None, None]);
    let known = peers.of(TABLE, &node).expect("a replica");
    assert_eq!((known.giving_since_ms, known.heard_ms), (None, 5));
    assert_eq!(known.status.as_ref().map(|status| status.vector.len()), Some(1));
}

fn digest(row: &[u8]) -> TableDigest {
    let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: OLD };
    TableDigest::of_row(TABLE, b"k", stamp, row)
}

/// holds R5
#[test]
fn a_batch_does_not_take_back_what_was_said_after_it() {
    let vector = |seq| status(OLD, 1, seq).vector;
    let mut known = knows(ReplicaStatus { digest: digest(b"new"), ..status(OLD, 1, 5) });
    let node = NodeName::parse("office").expect("a name");
    let facts = Facts { current: None, own: None, now_ms: 5 };
    let mut stored = |seq, row: &[u8]| {
        let part = Part::Delta { to: seq, last: true };
        let batch = Batch {
            vector: vector(seq),
            digest: Some(digest(row)),
            ..Batch::empty(TABLE, NEW, Position::default(), ChangeLogId::default(), part)
        };
        known.note(Change::applied(&batch, false), &node, &facts);
        let status = known.status.clone().expect("a status");
        (status.vector, status.digest, status.ready)
    };
    assert_eq!(stored(4, b"old"), (vector(5), digest(b"new"), false));
    assert_eq!(stored(6, b"newer"), (vector(6), digest(b"newer"), true));
}

fn unverified(key: &str, ms: u64) -> UnverifiedRow {
    UnverifiedRow {
        key: key.as_bytes().to_vec(),
        stamp: Stamp { hlc: Hlc::from_unix_ms(ms), actor: OLD },
        writer: None,
        why: "it is not understood".into(),
    }
}

#[test]
fn a_quarantined_row_is_told_once_and_not_any_more_when_a_good_one_stands_in_its_place() {
    let mut quarantined = Quarantined::default();
    assert_eq!(quarantined.summary(), None);
    let rows = vec![unverified("name/a", 1), unverified("+node/b", 1)];
    assert_eq!(quarantined.note(&[], rows).len(), 2);
    assert_eq!(
        quarantined.summary().expect("something"),
        "2 rows of the directory cannot be verified (name, node; by an unknown writer): it is not understood"
    );
    assert!(quarantined.note(&[], vec![unverified("name/a", 1)]).is_empty(), "nothing new");
    assert_eq!(quarantined.note(&[], vec![unverified("name/a", 2)]).len(), 1, "another version");
    let good = [b"name/a".to_vec(), b"+node/b".to_vec()];
    assert!(quarantined.note(&good, Vec::new()).is_empty());
    assert_eq!(quarantined, Quarantined::default());
}

/// holds I3, V4: who does not know of a revocation would let in whom it concerns.
#[test]
fn a_table_on_which_rights_may_have_been_taken_away_is_withheld() {
    let (one, other) = (TableUid([1; 16]), TableUid([2; 16]));
    let withheld = |key: &str| {
        let mut quarantined = Quarantined::default();
        quarantined.note(&[], vec![unverified(key, 1)]);
        (quarantined.withholds(one), quarantined.withholds(other))
    };
    assert_eq!(withheld(&format!("grant/{one}/*/read/cabin")), (true, false));
    assert_eq!(withheld("unbinding/00/home/1000/cabin"), (true, true));
    assert_eq!(withheld("name/00/notes/cabin"), (false, false));
    let mut quarantined = Quarantined::default();
    let many = 0..=Quarantined::MOST;
    quarantined.note(&[], many.map(|n| unverified(&format!("name/{n}"), 1)).collect());
    assert!(quarantined.withholds(one), "what else there is, is not known");
}
