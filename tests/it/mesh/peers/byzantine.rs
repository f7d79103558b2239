//! A member of the mesh that sends whatever it likes about tables that it may hold: nobody is harmed by it.
//! It has a certificate, presents itself in the directory and is in scope. What a link may carry at all is in `hostile`.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use cortex_core::directory::{NodeRow, Row, signed_part};
use cortex_core::model::{
    ActorId, AttributeName, Hlc, Owner, QualifiedName, Stamp, TableName, TableUid, Uid,
};
use cortex_core::replication::{
    Batch, ChangeLogId, Dot, Head, Message as Replication, Parked, Part, Position, PullRequest,
    ReplicaStatus, RowVersion, SYSTEM_TABLE, StatusGossip, VersionVector,
};
use cortex_core::wire::encode;
use cortex_core::wire::link::{Features, Hello, Incoming, Message};
use cortexd::pki::Credentials;
use cortexd::sys::clock;
use rmpv::Value;

use crate::mesh::peers::daemon::{Daemon, wait_until};
use crate::mesh::peers::has_event;
use crate::mesh::peers::mesh::{Authority, LINK, Tls, is_connected, node};
use crate::mesh::peers::rpc::{list, map, packed};

const ACTOR: ActorId = ActorId(0xbad);
const DATABASE: [u8; 16] = [0xb; 16];

/// What the member answers to requests for rows of tables other than the directory.
type Script = Arc<Mutex<Vec<RowVersion>>>;

/// The socket of the link, so that it can be closed under who reads it.
type Socket = Arc<Mutex<Option<TcpStream>>>;

/// The member: it answers requests on one link after the other until it is dropped.
struct Member {
    rows: Script,
    stop: Arc<AtomicBool>,
    socket: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn start(credentials: Credentials, port: u16) -> Self {
        let (rows, stop, socket) =
            (Script::default(), Arc::<AtomicBool>::default(), Socket::default());
        let (script, stopped, open) = (Arc::clone(&rows), Arc::clone(&stop), Arc::clone(&socket));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                serve(&credentials, port, &script, &open);
            }
        });
        Self { rows, stop, socket, thread: Some(thread) }
    }

    /// From the next request on these rows are sent.
    fn sends(&self, rows: Vec<RowVersion>) {
        *self.rows.lock().expect("no panic") = rows;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(socket) = self.socket.lock().expect("no panic").take() {
            let _it_may_be_closed = socket.shutdown(Shutdown::Both);
        }
        let ended = self.thread.take().expect("it runs").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the member has panicked");
    }
}

/// One link, from the greeting to its end.
fn serve(credentials: &Credentials, port: u16, script: &Script, socket: &Socket) {
    let mut link = Tls::connect(credentials, "home", port, LINK);
    *socket.lock().expect("no panic") = Some(link.0.sock.try_clone().expect("a second handle"));
    send(&mut link, &Message::Hello(hello(credentials)));
    let mut directory = vec![presentation(credentials)];
    let mut asked: Option<PullRequest> = None;
    while let Some(body) = link.frame() {
        match Incoming::read(&body) {
            Ok(Incoming::Known(Message::Sync(Replication::PullRequest(request)))) => {
                if request.table == SYSTEM_TABLE {
                    answer(&mut link, &request, std::mem::take(&mut directory));
                } else {
                    asked = Some(*request);
                }
            }
            Ok(Incoming::Known(Message::Status(status))) => {
                send(&mut link, &Message::Status(status));
            }
            Ok(_) => {}
            Err(malformed) => panic!("{malformed}"),
        }
        let mut rows = script.lock().expect("no panic");
        if let Some(request) = asked.take_if(|_| !rows.is_empty()) {
            answer(&mut link, &request, std::mem::take(&mut rows));
        }
    }
}

fn answer(link: &mut Tls, request: &PullRequest, rows: Vec<RowVersion>) {
    let answer = if rows.is_empty() {
        Replication::Parked(Parked { table: request.table, drain: None })
    } else {
        Replication::Batch(Box::new(batch(request, rows)))
    };
    send(link, &Message::Sync(answer));
}

/// A batch of those rows, as the last of the change log.
fn batch(request: &PullRequest, rows: Vec<RowVersion>) -> Batch {
    let last = rows.iter().map(|row| row.seq).max().unwrap_or(0);
    let part = Part::Delta { to: last.min(1 << 40), last: true };
    let from = request.position.clone();
    let empty = Batch::empty(request.table, request.reader, from, ChangeLogId([7; 16]), part);
    let head = (request.table != SYSTEM_TABLE).then(|| Head {
        name: QualifiedName {
            owner: Owner::Remote(Uid(nix::unistd::geteuid().as_raw()), node("home")),
            name: TableName::parse("shared").expect("a name"),
        },
        attributes: vec![AttributeName::parse("id").expect("a name")],
        created: Hlc::from_unix_ms(1),
    });
    let vector = rows.iter().map(RowVersion::dot).collect();
    Batch { rows, vector, head, contexts: vec![VersionVector::new()], hlc: now(), ..empty }
}

fn now() -> Hlc {
    Hlc::from_unix_ms(clock::wall_ms())
}

/// The member's own row of the directory, signed.
fn presentation(credentials: &Credentials) -> RowVersion {
    let row = Row::Node(NodeRow {
        node: node("cabin"),
        certificate: credentials.certificate().to_vec(),
        database: DATABASE,
        actor: ACTOR,
    });
    let (key, stamp) = (row.key().into_bytes(), Stamp { hlc: now(), actor: ACTOR });
    let bytes = row.encode();
    let signature = credentials.sign(&signed_part(credentials.mesh(), stamp, &key, &bytes));
    let mut value = Vec::new();
    encode::array(&mut value, 2);
    encode::bin(&mut value, &bytes);
    encode::bin(&mut value, &signature);
    RowVersion { key, value: Some(value), stamp, seq: 1, context: 0 }
}

/// `home`, with a table that both may hold, and `cabin`, which is the member.
struct Scene {
    /// First, so that it ends before the daemon that it would dial again.
    member: Member,
    home: Daemon,
    _ca: Authority,
}

impl Scene {
    fn new() -> Self {
        let (ca, home, port) = Authority::home_beside_cabin();
        let params = ["shared".into(), list(["id".into()]), "home,cabin".into()];
        home.connect().call("create_table", &params).expect("made");
        let member = Member::start(ca.credentials("cabin", "cabin"), port);
        wait_until("the member is connected", || is_connected(&home, "cabin"));
        Self { _ca: ca, home, member }
    }

    fn get(&self, key: &str) -> Result<Value, String> {
        self.home.connect().call("get", &["shared".into(), key.into()])
    }
}

fn row(key: &str, value: Vec<u8>, seq: u64) -> RowVersion {
    let stamp = Stamp { hlc: now(), actor: ACTOR };
    RowVersion { key: key.into(), value: Some(value), stamp, seq, context: 0 }
}

fn record(id: &str) -> Vec<u8> {
    packed(&map([("id", id.into())]))
}

/// holds E1: what a peer brings passes the door that a client's records pass.
#[test]
fn a_row_that_no_client_could_have_stored_is_left_out_and_named_and_the_others_are_taken() {
    let scene = Scene::new();
    let reply = packed(&list([1.into(), 7.into(), Value::Nil, "forged".into()]));
    let second_reply = [record("two"), reply].concat();
    let huge_claim = vec![0xdf, 0xff, 0xff, 0xff, 0xff];
    scene.member.sends(vec![
        row("good", record("good"), 2),
        row("two", second_reply, 3),
        row("text", packed(&"text".into()), 4),
        row("claim", huge_claim, 5),
        row("other", record("another"), 6),
        row("last", record("last"), 7),
    ]);
    wait_until("the good rows are here", || scene.get("last").is_ok());
    assert_eq!(scene.get("good"), Ok(map([("id", "good".into())])));
    for key in ["two", "text", "claim", "other"] {
        assert_eq!(scene.get(key), Err("not_found".into()), "{key}");
    }
    let mut client = scene.home.connect();
    let keys = client.call("keys", &["shared".into()]).expect("keys");
    assert_eq!(keys, list(["good".into(), "last".into()]));
    assert_eq!(client.call("ping", &[]), Ok("pong".into()), "the connection is in step");
    wait_until("it is written down", || has_event(&scene.home, "row_invalid"));
    let why = client.call("sync_status", &[]).expect("the state").to_string();
    assert!(why.contains("no client could have stored"), "{why}");
}

/// holds E1: numbers that no database can keep end the link, and fail nobody's write.
#[test]
fn a_number_that_cannot_be_kept_ends_the_link_and_nobody_else_notices() {
    let scene = Scene::new();
    scene.member.sends(vec![row("good", record("good"), u64::MAX)]);
    for n in 0..100 {
        let params = ["shared".into(), map([("id", n.into())])];
        scene.home.connect().call("put", &params).expect("an uninvolved write");
    }
    scene.home.wait_for_log("has ended");
    assert_eq!(scene.get("good"), Err("not_found".into()));
    wait_until("it may come back", || is_connected(&scene.home, "cabin"));
    scene.member.sends(vec![row("good", record("good"), 9)]);
    wait_until("what is in order is taken", || scene.get("good").is_ok());
}

fn hello(credentials: &Credentials) -> Hello {
    Hello {
        mesh: credentials.mesh().0,
        node: node("cabin"),
        actor: ACTOR.0.to_be_bytes(),
        wall_ms: clock::wall_ms(),
        hlc: Hlc::from_unix_ms(clock::wall_ms()),
        features: Features::OURS,
        boot: [2; 16],
        database: Some(DATABASE),
        last_of_yours: None,
    }
}

fn send(link: &mut Tls, message: &Message) {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    link.send(&bytes);
}

/// holds E1: nothing is kept of tables that a peer makes up, however many it asks for and tells of.
#[test]
fn requests_for_tables_that_there_are_not_take_no_memory() {
    const ROUNDS: u32 = 24;
    const AT_ONCE: u32 = 250;
    const MOST_KIB: u64 = 64 << 10;
    let (ca, home, port) = Authority::home_beside_cabin();
    let credentials = ca.credentials("cabin", "cabin");
    let mut link = Tls::connect(&credentials, "home", port, LINK);
    send(&mut link, &Message::Hello(hello(&credentials)));
    let dot = |n: u64| Dot { actor: ActorId(n.into()), seq: 1 };
    let vector: VersionVector = (0..400).map(dot).collect();
    let status = ReplicaStatus { actor: ACTOR, vector: vector.clone(), ..ReplicaStatus::default() };
    let before = home.memory_kib("VmRSS");
    for n in (0..ROUNDS * AT_ONCE).map(|n| u128::from(n) + 1) {
        let table = TableUid(n.to_be_bytes());
        let request = PullRequest {
            table,
            reader: ACTOR,
            epoch: 1,
            position: Position::default(),
            vector: vector.clone(),
        };
        send(&mut link, &Message::Sync(Replication::PullRequest(Box::new(request))));
        let statuses = vec![(node("cabin"), status.clone())];
        send(
            &mut link,
            &Message::Sync(Replication::StatusGossip(StatusGossip { table, statuses })),
        );
        if n % u128::from(AT_ONCE) == 0 {
            (0..AT_ONCE).for_each(|_| assert!(is_refused(&mut link)));
        }
    }
    let more = home.memory_kib("VmRSS").saturating_sub(before);
    assert!(more < MOST_KIB, "{more} KiB");
    assert_eq!(home.connect().call("ping", &[]), Ok("pong".into()));
}

/// Reads on to the next refusal; false where the link ends.
fn is_refused(link: &mut Tls) -> bool {
    while let Some(body) = link.frame() {
        match Incoming::read(&body) {
            Ok(Incoming::Known(Message::Sync(Replication::Refuse(_)))) => return true,
            Ok(_) => {}
            Err(malformed) => panic!("{malformed}"),
        }
    }
    false
}
