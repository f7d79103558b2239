//! A machine that is no daemon asks for rows, tells wrong times, and knows what it cannot know.
//! Leaves messages that are none to `peers/hostile`.

use cortex_core::{
    model::{ActorId, Hlc, TableUid},
    replication::{self, Dot, Position, PullRequest, Refuse, VersionVector, Why},
    wire::link::{Features, Hello, Incoming, Message, Status},
};
use cortexd::{
    pki::Credentials,
    store::SYSTEM_TABLE,
    sys::{clock, random},
};
use rmpv::Value;

use crate::replication::converge::cluster::Cluster;
use crate::replication::converge::daemon::{Daemon, wait_until};
use crate::replication::converge::mesh::{Authority, LINK, Tls, is_connected, node, refused};
use crate::replication::converge::rpc::field;

/// `home`, and the credentials of `cabin`, which is configured and no daemon.
struct Scene {
    home: Daemon,
    port: u16,
    cabin: Credentials,
}

impl Scene {
    fn new() -> Self {
        let (ca, home, port) = Authority::home_beside_cabin();
        Self { home, port, cabin: ca.credentials("cabin", "cabin") }
    }

    /// A link on which cabin has greeted, and home's greeting.
    fn link(&self, wall_ms: u64, last_of_yours: Option<Dot>) -> (Link, Hello) {
        let mut tls = Tls::connect(&self.cabin, "home", self.port, LINK);
        let hello = Hello {
            mesh: self.cabin.mesh().0,
            node: node("cabin"),
            actor: [1; 16],
            wall_ms,
            hlc: Hlc::default(),
            features: Features::OURS,
            boot: random::id(),
            database: Some([9; 16]),
            last_of_yours,
        };
        tls.send(&framed(&Message::Hello(hello)));
        let mut link = Link { tls };
        let Some(Message::Hello(theirs)) = link.next() else { panic!("no greeting") };
        (link, theirs)
    }

    fn table(&self, name: &str, scope: &str) -> TableUid {
        let mut rpc = self.home.connect();
        let attributes = Value::Array(vec!["id".into()]);
        rpc.call("create_table", &[name.into(), attributes, scope.into()]).expect("created");
        let info = rpc.call("table_info", &[name.into()]).expect("it is there");
        let id = field(&info, "id").and_then(Value::as_str).expect("an id").to_owned();
        let byte = |n: usize| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).expect("hexadecimal");
        TableUid(std::array::from_fn(byte))
    }
}

struct Link {
    tls: Tls,
}

impl Link {
    fn next(&mut self) -> Option<Message> {
        let body = self.tls.frame()?;
        match Incoming::read(&body) {
            Ok(Incoming::Known(message)) => Some(message),
            other => panic!("{other:?}"),
        }
    }

    fn want(&mut self, table: TableUid, epoch: u64) {
        let (position, vector) = (Position::default(), VersionVector::new());
        let want = PullRequest { table, reader: ActorId(1), epoch, position, vector };
        self.tls.send(&framed(&Message::Sync(replication::Message::PullRequest(Box::new(want)))));
    }

    /// What is said of a table next, but for what is asked for, and what replicas have said.
    fn answer(&mut self, table: TableUid) -> replication::Message {
        loop {
            match self.next().expect("the link is there") {
                Message::Sync(
                    replication::Message::PullRequest(_) | replication::Message::StatusGossip(_),
                ) => {}
                Message::Sync(message) if message.table() == table => return message,
                Message::Sync(_)
                | Message::Status(_)
                | Message::Hello(_)
                | Message::Packed(_)
                | Message::Reject(_)
                | Message::Bye(_) => {}
            }
        }
    }

    /// Says how late it is, as an echo of home's last heartbeat.
    fn tell_time(&mut self, wall_ms: u64) {
        let status = loop {
            if let Message::Status(status) = self.next().expect("the link is there") {
                break status;
            }
        };
        let answer = Status {
            sent_us: 1,
            echo_us: Some(status.sent_us),
            held_us: 0,
            wall_ms,
            hlc: Hlc::default(),
            sees: vec![],
        };
        self.tls.send(&framed(&Message::Status(answer)));
    }
}

fn framed(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    bytes
}

fn refusal(table: TableUid, why: Why) -> replication::Message {
    replication::Message::Refuse(Refuse { table, taking: false, why })
}

/// holds E3: until the clocks agree again, no row goes to a machine whose clock is wrong; then it comes by itself. The
/// directory does not wait for it.
#[test]
fn a_machine_with_a_wrong_clock_gets_no_rows_until_it_is_right() {
    let scene = Scene::new();
    let open = scene.table("open", "home,cabin");
    let (mut link, _) = scene.link(clock::wall_ms() + 120_000, None);
    link.want(open, 1);
    let replication::Message::Refuse(Refuse { why: Why::Clock(offset_ms), .. }) = link.answer(open)
    else {
        panic!("it is not refused")
    };
    assert!((110_000..130_000).contains(&offset_ms), "{offset_ms}");
    link.want(SYSTEM_TABLE, 1);
    let answer = link.answer(SYSTEM_TABLE);
    assert!(matches!(answer, replication::Message::Batch(_)), "{answer:?}");
    link.tell_time(clock::wall_ms() + 90_000);
    link.tell_time(clock::wall_ms());
    let answer = link.answer(open);
    assert!(matches!(answer, replication::Message::Batch(_)), "{answer:?}");
    scene.home.wait_for_log(
        "do not come through to cabin: clock: its clock is 120 s ahead of this machine's",
    );
}

/// holds S2, S4
#[test]
fn who_is_not_in_the_scope_asks_in_vain() {
    let scene = Scene::new();
    let closed = scene.table("closed", "home");
    let open = scene.table("open", "home,cabin");
    let local = scene.table("own", "local");
    let (mut link, _) = scene.link(clock::wall_ms(), None);
    for (table, epoch, why) in [
        (closed, 1, Why::NotInScope),
        (local, 1, Why::NotInScope),
        (TableUid([77; 16]), 1, Why::NotInScope),
        (open, 2, Why::UnknownEpoch),
    ] {
        link.want(table, epoch);
        assert_eq!(link.answer(table), refusal(table, why));
    }
    link.want(open, 1);
    assert!(
        matches!(link.answer(open), replication::Message::Batch(_)),
        "its first stay may begin"
    );
}

/// holds K3, K7: numbers of writes that others know already are not used again.
#[test]
fn a_database_that_was_rolled_back_under_its_daemon_writes_as_another() {
    let scene = Scene::new();
    let (_, before) = scene.link(clock::wall_ms(), None);
    let own = ActorId(u128::from_be_bytes(before.actor));
    let known = Dot { actor: own, seq: 1_000_000 };
    let (_link, _) = scene.link(clock::wall_ms(), Some(known));
    scene.home.wait_for_log("the database was rolled back");
    wait_until("its actor id is rotated", || {
        scene.link(clock::wall_ms(), None).1.actor != before.actor
    });
    let of_nobody = Dot { actor: ActorId(5), ..known };
    let (_, now) = scene.link(clock::wall_ms(), Some(of_nobody));
    let (_, later) = scene.link(clock::wall_ms(), Some(Dot { seq: 0, ..known }));
    assert_eq!(later.actor, now.actor, "what it does not claim to be says nothing");
}

/// A machine that was removed is cut off, and does not come back with the database that it has.
#[test]
fn a_machine_that_was_removed_stays_out() {
    let mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "before");
    let notes = &crate::replication::converge::cluster::there("home", "notes");
    mesh.wait_for("office", notes, 1, Some("before"));
    let removed = mesh.node("home").connect().call("mesh_remove_node", &["office".into()]);
    removed.expect("removed");
    wait_until("it is cut off", || !is_connected(mesh.node("home"), "office"));
    wait_until("and refused", || refused(mesh.node("home"), "removed") > 0);
    mesh.put("home", "notes", 2, "after");
    assert!(!is_connected(mesh.node("home"), "office"));
    assert_eq!(mesh.get("office", notes, 2), None);
}
