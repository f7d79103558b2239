//! Any bytes on a connection, through the whole request path down to the store: every whole message is
//! answered once and in order, or the connection is closed; nothing panics and nothing hangs.
//! Leaves what the answers say to the tests of the protocol.
//!
//! Input: one byte that says who calls and in what pieces the rest is sent.

#![no_main]

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use cortex_core::{
    model::{Caller, Limits, Owner, Uid},
    wire::{FrameError, Request, Scan, Scanner, rpc},
};
use cortexd::{
    edge::{conn, limits::ConnLimits},
    service::{ScanSlots, Service},
    store::{Options, Store, TableCommand},
};
use libfuzzer_sys::fuzz_target;
use rmpv::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    sync::{mpsc, watch},
};

/// Tables and bytes of one uid: so few that the fuzzer meets the bounds.
const LIMITS: Limits = Limits { key_bytes: 64, tables_per_uid: 4, bytes_per_uid: 4096 };

/// Requests that set the scene, so that the fuzzer's own find something to work on.
const SCENE: [&[u8]; 2] = [
    b"\x94\x00\x01\xaccreate_table\x92\xa1t\x91\xa2id",
    b"\x94\x00\x02\xa3put\x92\xa1t\x81\xa2id\x01",
];

struct Daemon {
    runtime: Runtime,
    context: conn::Context,
    limits: ConnLimits,
    _stop: watch::Sender<bool>,
    /// Removed by who runs the fuzzer, with its TMPDIR: statics are not dropped.
    _directory: tempfile::TempDir,
}

static DAEMON: LazyLock<Daemon> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("make a directory");
    let store = Store::open(&Options { limits: LIMITS, ..Options::new(directory.path()) })
        .expect("open a store");
    // Nobody takes errands, so a reload is answered with an error.
    let (errands, _) = mpsc::channel(1);
    let service = Arc::new(Service::new(store, "fuzz", ScanSlots::new(4, 2), errands));
    let limits = ConnLimits { message_bytes: 2048, nesting: 16, ..ConnLimits::default() };
    let (stop, stopped) = watch::channel(false);
    let context = conn::Context {
        reader: service.store().reader(0),
        service,
        limits: Arc::new(ArcSwap::from_pointee(limits)),
        stop: stopped,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("start the event loop");
    Daemon { runtime, context, limits, _stop: stop, _directory: directory }
});

fuzz_target!(|input: &[u8]| {
    /// A user of its own for every input that does not come from root, or what one input leaves would change
    /// what the next one meets.
    static NEXT_UID: AtomicU32 = AtomicU32::new(100_000);
    let Some((&control, stream)) = input.split_first() else {
        return;
    };
    let daemon = &*DAEMON;
    let uid = match control & 0x0f {
        0x0f => Uid::ROOT,
        _ => Uid(NEXT_UID.fetch_add(1, Relaxed)),
    };
    let piece = if control & 0xf0 == 0 { stream.len().max(1) } else { usize::from(control >> 4) };
    let sent: Vec<u8> = SCENE.concat().into_iter().chain(stream.iter().copied()).collect();
    let (expected, refused) = expected(&sent, &daemon.limits);

    let received = daemon.runtime.block_on(async {
        // Less room than an answer takes, so that the daemon has to wait for its reader.
        let (mut client, server) = tokio::io::duplex(512);
        let serve = conn::serve(server, Caller::Local(uid), &daemon.context);
        let talk = async {
            let (mut from, mut to) = tokio::io::split(&mut client);
            let mut received = Vec::new();
            let send = async {
                for piece in sent.chunks(piece) {
                    // The daemon may have closed the connection.
                    if to.write_all(piece).await.is_err() {
                        return;
                    }
                }
                let _closed_already = to.shutdown().await;
            };
            let receive = from.read_to_end(&mut received);
            let (_, read) = tokio::join!(send, receive);
            read.expect("reading from memory");
            received
        };
        tokio::join!(serve, talk).1
    });
    clean(daemon, uid);

    let mut rest = &received[..];
    let mut answered = Vec::new();
    while !rest.is_empty() {
        let answer = rmpv::decode::read_value(&mut rest).expect("an answer is MessagePack");
        let parts = answer.as_array().expect("an answer is an array");
        assert_eq!((parts.len(), parts[0].as_u64()), (4, Some(1)), "{answer}");
        assert!(matches!(parts[2], Value::Nil | Value::String(_)), "{answer}");
        assert!(parts[2].is_nil() || parts[3].is_nil(), "both an error and a result: {answer}");
        answered.push(parts[1].as_u64().expect("an id is a number"));
    }
    // Whether the beginning of what cannot be followed has come with its id depends on how it is cut into pieces.
    if answered.len() == expected.len() + 1 && answered.last().copied() == refused {
        answered.pop();
    }
    assert_eq!(answered, expected, "refused at the end: {refused:?}");
});

/// The ids of the answers that are owed, in order, and that of a request which may be refused at the end, since it is too
/// large.
fn expected(sent: &[u8], limits: &ConnLimits) -> (Vec<u64>, Option<u64>) {
    let mut ids = Vec::new();
    let mut rest = sent;
    while !rest.is_empty() {
        match Scanner::new(limits.message_bytes, limits.nesting).scan(rest) {
            Ok(Scan::More) => break,
            Ok(Scan::Whole(length) | Scan::Deep(length)) => {
                ids.push(Request::parse(&rest[..length]).map_or(0, |request| request.msgid));
                rest = &rest[length..];
            }
            Err(FrameError::TooLarge(_)) => return (ids, rpc::msgid_of(rest)),
            Err(FrameError::NotMessagePack) => break,
        }
    }
    (ids, None)
}

/// Drops what the user made, so that the store stays small.
fn clean(daemon: &Daemon, uid: Uid) {
    let store = daemon.context.service.store();
    let tables: Vec<_> = {
        let catalog = store.catalog();
        catalog
            .namespace(&Owner::Uid(uid))
            .map(|own| own.tables().cloned().collect())
            .unwrap_or_default()
    };
    daemon.runtime.block_on(async {
        for entry in tables {
            store
                .execute(TableCommand::DropTable { caller: Caller::Local(uid), entry })
                .await
                .expect("a user's own tables can be dropped");
        }
    });
}
