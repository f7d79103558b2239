//! Requests and responses in bytes: what stands where, what may be left out, what is refused.

use proptest::prelude::*;

use super::*;
use crate::wire::{Head, Method, Reader, encode};

fn params<'a>(request: &impl Request<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    request.write(&mut out);
    out
}

fn result(response: &impl Response) -> Vec<u8> {
    let mut out = Vec::new();
    response.write(&mut out);
    out
}

/// An array of values that are encoded already.
fn list(values: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::array(&mut out, values.len());
    out.extend(values.concat());
    out
}

fn texts(texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::strings(&mut out, texts.iter().copied());
    out
}

/// The names of a map's fields, in their order.
fn names(map: &[u8]) -> Vec<&str> {
    let mut reader = Reader::new(map);
    let Some(Head::Map(count)) = reader.head() else { panic!("no map: {map:x?}") };
    let name = |_| {
        let name = reader.text().expect("a name");
        reader.raw().expect("a value");
        name
    };
    (0..count).map(name).collect()
}

/// A method that is added gets its types here, or nobody can ask for it in the language.
#[test]
fn every_method_has_a_request() {
    macro_rules! methods {
        ($($request:ident)*) => { vec![$($request::METHOD),*] };
    }
    let typed = methods! {
        Ping Status Tables CreateTable DropTable TableChown TableInfo Put Get Delete Match All Keys
        AclGrant AclRevoke AclList Usage Events Reload Settings Checkpoint Backup GetScope SetScope
        IdentityRegister IdentityToken IdentityClaim IdentityRedeem IdentityLearn IdentityList
        IdentityLookup IdentityRevoke MeshListNodes MeshStatus MeshRemoveNode IdentityResolve
        SyncStatus SyncStatusTable SyncWait SyncRepair SyncBuckets SyncMarks SyncPush SyncDigest
        Scrub Conflicts ConflictShow ConflictRestore ConflictAck Explain
    };
    assert_eq!(typed, Method::all().collect::<Vec<_>>());
}

#[test]
fn what_says_nothing_at_the_end_of_the_parameters_is_left_out() {
    let wait = SyncWait { table: "t", options: WaitOptions::default() };
    assert_eq!(params(&wait), texts(&["t"]));
    assert_eq!(params(&IdentityRevoke { name: "a", node: None }), texts(&["a"]));
    assert_eq!(params(&IdentityRevoke { name: "a", node: Some("n") }), texts(&["a", "n"]));
    assert_eq!(params(&Status {}), [0x90]);
    let all = Tables { options: TablesOptions { all: true, details: false } };
    assert_eq!(params(&all), list(&[b"\x81\xa3all\xc3"]));
    let between =
        Conflicts { table: None, options: ConflictsOptions { limit: Some(1), before: None } };
    assert_eq!(params(&between), list(&[b"\xc0", b"\x81\xa5limit\x01"]), "nil keeps the place");
    assert_eq!(Conflicts::read(&params(&between)), Some(between));
}

#[test]
fn an_option_that_is_not_known_or_of_another_type_is_refused_and_nil_is_none() {
    let read = |options: &[u8]| SyncRepair::read(&list(&[b"\xa1t", options])).map(|r| r.options);
    assert_eq!(read(b"\x80"), Some(RepairOptions::default()));
    assert_eq!(read(b"\x82\xa7dry_run\xc0\xa6prefer\xc0"), Some(RepairOptions::default()));
    let present = RepairOptions { dry_run: true, prefer: Some(Prefer::Present) };
    assert_eq!(read(b"\x82\xa7dry_run\xc3\xa6prefer\xa7present"), Some(present));
    for bad in [
        &b"\x81\xa7dry-run\xc3"[..],
        b"\x81\xa7dry_run\x01",
        b"\x81\xa6prefer\xa6neither",
        b"\x92\xc3\xa7present", // the values without their names
        b"\xc0",
        b"\xa1x",
    ] {
        assert_eq!(read(bad), None, "{bad:x?}");
    }
    assert_eq!(
        SyncRepair::invalid().to_string(),
        "invalid params: expected [table] or [table, {dry_run, prefer}]"
    );
}

#[test]
fn parameters_of_another_number_or_type_are_refused() {
    assert!(Get::read(&texts(&["t"])).is_none());
    assert!(Get::read(&texts(&["t", "k", "more"])).is_none());
    assert!(Get::read(&list(&[b"\x01", b"\xa1k"])).is_none(), "the table is a text");
    assert!(Get::read(&list(&[b"\xc4\x01t", b"\xa1k"])).is_none(), "and no bytes");
    assert!(Get::read(b"\x80").is_none());
    assert!(
        ConflictShow::read(&list(&[b"\xa1t", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"])).is_none()
    );
    assert!(CreateTable::read(&list(&[b"\xa1t", b"\x90"])).is_none(), "a table has a key");
}

#[test]
fn words_are_a_text_or_a_list_and_say_where_they_are_neither() {
    let read = |scope: &[u8]| SetScope::read(&list(&[b"\xa1t", scope])).map(|r| params(&r));
    for scope in [&b"\xa3all"[..], b"\x92\xa1a\xa1b"] {
        assert_eq!(read(scope), Some(list(&[b"\xa1t", scope])));
    }
    assert_eq!(read(b"\x07"), None);
    for no_text in [&b"\xa1\xff"[..], b"\x91\x07"] {
        let bytes = list(&[b"\xa1t", no_text]);
        assert_eq!(SetScope::read(&bytes).expect("it fits").scope, TextOrList::Invalid);
    }
    let bytes = list(&[b"\xa1t", b"\x92\xa2id\x07"]);
    let table = CreateTable::read(&bytes).expect("it fits");
    assert_eq!(table.attributes, Attributes(vec![Some("id"), None]));
}

#[test]
fn a_key_is_asked_for_as_text_or_as_an_integer() {
    let key = |key: &[u8]| {
        let options = [b"\x81\xa3key", key].concat();
        Some(Explain::read(&list(&[b"\xa1t", &options]))?.options.key?.0)
    };
    assert_eq!(key(b"\xa17"), Some(b"7".to_vec()));
    assert_eq!(key(b"\x07"), Some(b"7".to_vec()));
    assert_eq!(key(b"\xff"), Some(b"-1".to_vec()));
    assert_eq!(key(b"\xc3"), None);
}

/// What clients of released versions see: every field, in this order, nil where there is nothing.
#[test]
fn fields_stand_in_their_order_and_none_is_nil() {
    let status = StatusReport { scrub: Some(ScrubStatus::default()), ..StatusReport::default() };
    let known = [
        "version",
        "status",
        "node",
        "tables",
        "records",
        "bytes",
        "disk_bytes",
        "connections",
        "uptime_seconds",
        "commits",
        "commands",
        "last_commit_us",
        "conflicts",
        "message_bytes",
        "nesting",
        "scrub",
    ];
    assert_eq!(names(&result(&status)), known);
    let down = StatusReport { mesh_down: Some("why".into()), ..status };
    assert_eq!(names(&result(&down))[15..], ["mesh_down", "scrub"]);
    let usage = OwnerUsage { owner: "@a".into(), bytes: 300, ..OwnerUsage::default() };
    assert_eq!(
        result(&vec![usage]),
        b"\x91\x85\xa5owner\xa2@a\xa3uid\xc0\xa6tables\x00\xa7records\x00\xa5bytes\xcd\x01\x2c"
    );
    let explained = Explanation { because: vec!["b".into()], ..Explanation::default() };
    assert_eq!(names(&result(&explained)), ["table", "node", "key", "finding", "because", "do"]);
    let scope = NodeScope::Nodes(vec!["home".into(), "office".into()]);
    assert_eq!(
        (result(&scope), scope.to_string()),
        (texts(&["home", "office"]), "home,office".into())
    );
    assert_eq!(result(&NodeScope::default()), b"\xa5local");
}

/// The same of what only a mesh has: names and order are those of the first daemon that had one.
#[test]
fn what_is_said_of_a_mesh_keeps_its_fields_and_their_order() {
    let check = |written: &[u8], known: &str| assert_eq!(names(written).join(" "), known);
    let table = TableSync::default();
    check(&result(&table), "table scope contested conflicts here nodes deletions_kept_by");
    check(
        &result(&table.here),
        "node state why drain_blocked epoch records tombstones conflicts damaged conflicts_evicted digest",
    );
    check(
        &result(&PeerReplica::default()),
        "node state conflicts verified_ms behind_writes ahead_writes behind_seconds why heard_ms differs",
    );
    check(
        &result(&TableReport::default()),
        "table id owner key_field attributes node_scope scope_contested decisions orphaned replicas state \
         conflicts records bytes acl",
    );
    check(&result(&ScopeReport::default()), "table node_scope contested decisions replicas");
    let replica = Replica {
        node: "n".into(),
        state: ReplicaState::Left,
        epoch: None,
        ready: None,
        conflicts: None,
        verified_ms: None,
        heard_ms: None,
        why: None,
    };
    check(&result(&replica), "node state epoch ready conflicts verified_ms heard_ms why");
    check(&result(&Verified::default()), "verified nodes waited_ms");
    check(&result(&RepairReport::default()), "table dry_run corrected damaged compared verified");
    check(
        &result(&ComparedNode::default()),
        "node buckets_differing verdicts keys pushed on_its_way kept verified why",
    );
    check(&result(&MeshReport::default()), "node mesh certificate_expires peers refused matrix");
    check(
        &result(&PeerNode::default()),
        "name host port connected state since_ms round_trip_us clock_offset_ms certificate_expires \
         name_in_use_twice last_error directory",
    );
    check(&result(&Identity::default()), "fed_id fid mappings metadata");
    check(&result(&IdentityMetadata::default()), "home created_ms contested");
    check(&result(&ClaimToken::default()), "name fid expires_at token");
}

#[test]
fn who_reads_passes_over_what_a_later_version_adds() {
    let later = b"\x83\xa4node\xa1n\xa5state\xa7healing\xa3new\x90";
    let found = PeerReplica::read(later).expect("the rest is known");
    assert_eq!((found.node.as_str(), found.state), ("n", ReplicaState::Unknown));
    assert_eq!(StatusReport::read(b"\x81\xa7version\xa31.0").expect("v1").version, "1.0");
    assert!(StatusReport::read(b"\x81\xa7version\x07").is_err());
}

#[test]
fn every_word_of_a_state_is_read_as_it_is_written() {
    use ReplicaState::*;
    for state in [Ready, Filling, Frozen, Draining, None, InSync, Behind, Diverged, Left, Unknown] {
        let written = result(&state);
        assert_eq!(ReplicaState::read(&written), Ok(state));
        assert_eq!(Reader::new(&written).text(), Some(state.as_str()));
    }
}

/// 7 in three bytes, which nobody would write, stays so.
#[test]
fn a_record_keeps_its_bytes_among_the_fields_of_a_conflict() {
    let version = Version { written_ms: 1, by: None };
    let conflict = Conflict {
        id: 3,
        key: "k".into(),
        deleted: false,
        bytes: 7,
        written_ms: 5,
        by: Some("home".into()),
        winner: version,
        seen_ms: 6,
        acknowledged: false,
    };
    let record = RawValue(b"\x81\xa2id\xcd\x00\x07".to_vec());
    let report = ConflictReport { conflict, record: Some(record), current: None };
    let written = result(&report);
    let known = [
        "id",
        "key",
        "deleted",
        "bytes",
        "written_ms",
        "by",
        "winner",
        "seen_ms",
        "acknowledged",
        "record",
        "current",
    ];
    assert_eq!(names(&written), known);
    assert_eq!(ConflictReport::read(&written), Ok(report));
}

#[test]
fn a_program_puts_and_gets_its_own_types() {
    let ann = || std::collections::BTreeMap::from([("id", 7), ("age", 41)]);
    let record = encoded(&ann());
    assert_eq!(record, b"\x82\xa3age\x29\xa2id\x07");
    assert_eq!(RawValue(record).decoded(), Ok(ann()));
    assert!(RawValue(encoded(&"text")).decoded::<u64>().is_err());
}

#[test]
fn names_keep_their_order() {
    let named = Named(vec![("b".to_owned(), 1_u64), ("a".to_owned(), 2)]);
    assert_eq!(result(&named), b"\x82\xa1b\x01\xa1a\x02");
    assert_eq!(Named::<u64>::read(&result(&named)), Ok(named));
}

#[test]
fn a_page_comes_after_a_key_of_any_type() {
    let page = Page { limit: Some(10), after: Some(Raw(b"\x07")) };
    let all = All { table: "t", page };
    assert_eq!(params(&all), list(&[b"\xa1t", b"\x82\xa5limit\x0a\xa5after\x07"]));
    assert_eq!(All::read(&params(&all)), Some(all));
    assert!(All::read(&list(&[b"\xa1t", b"\x81\xa5begin\x07"])).is_none());
}

proptest! {
    #[test]
    fn nothing_that_is_read_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = (Tables::read(&bytes), CreateTable::read(&bytes), Match::read(&bytes));
        let _ = (Explain::read(&bytes), SyncPush::read(&bytes), IdentityRegister::read(&bytes));
        let _ = (Vec::<TableSync>::read(&bytes), ConflictReport::read(&bytes), RawValues::read(&bytes));
    }

    #[test]
    fn options_are_read_as_they_were_written(
        node in prop::option::of("[a-z]{1,9}"), all in any::<bool>(), timeout_ms in any::<Option<u64>>()
    ) {
        let options = WaitOptions { node, all, timeout_ms };
        let wait = SyncWait { table: "t", options };
        let written = params(&wait);
        prop_assert_eq!(SyncWait::read(&written), Some(wait));
    }
}
