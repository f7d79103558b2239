//! One machine asks another on behalf of its users: answers, refusals, and connections that are kept.
//! The one that asks is in this process, the others are daemons.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use cortex_core::api::{Get, Ping, Put, Raw, RawValue, Request, Status};
use cortex_core::model::Uid;
use cortexd::edge::limits::ConnLimits;
use cortexd::edge::peer::{Address, Mesh, PeerPort};
use cortexd::service::mesh::{self, AskError, MeshSnapshot, MeshView};
use cortexd::service::{ScanSlots, Service};
use cortexd::store::{Options, Store};
use cortexd::sys::clock;
use tokio::sync::{mpsc, watch};

use crate::mesh::peers::daemon::{Daemon, TIME_LIMIT, wait_until};
use crate::mesh::peers::mesh::{Authority, connections_to, free_port, node};
use crate::mesh::peers::rpc::{list, map, packed};

/// A node in this process.
struct Asker {
    service: Arc<Service>,
    mesh: watch::Sender<Arc<Mesh>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    _store: tempfile::TempDir,
}

impl Asker {
    fn start(ca: &Authority, nodes: &[(&str, u16)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { readers: 1, ..Options::new(dir.path()) };
        let store = Store::open(&options).expect("an empty store");
        let configured = Self::mesh(ca, nodes);
        let view = MeshView::new(MeshSnapshot {
            node: configured.node().clone(),
            mesh: configured.credentials().mesh(),
            certificate_expires: 0,
            peers: vec![],
        });
        let (of_service, asked) = mesh::Mesh::new(Arc::clone(&view));
        let (daemon_requests, _) = mpsc::channel(1);
        let service =
            Service::new(store, "cabin", ScanSlots::new(1, 1), daemon_requests).in_mesh(of_service);
        let service = Arc::new(service);
        let (mesh, current) = watch::channel(Arc::new(configured));
        let (stop, stopped) = watch::channel(false);
        let port = PeerPort {
            service: Arc::clone(&service),
            reader: service.store().reader(0),
            limits: Arc::new(ArcSwap::from_pointee(ConnLimits::default())),
            listener: listener(),
            mesh: current,
            view,
            asked,
        };
        let thread =
            std::thread::spawn(move || runtime().block_on(port.keep(stopped)).expect("it listens"));
        Self { service, mesh, stop, thread: Some(thread), _store: dir }
    }

    fn mesh(ca: &Authority, nodes: &[(&str, u16)]) -> Mesh {
        let address = |(name, port): &(&str, u16)| {
            (node(name), Address { host: "127.0.0.1".into(), port: *port })
        };
        let nodes: BTreeMap<_, _> = nodes.iter().map(address).collect();
        Mesh::new(Arc::new(ca.credentials("cabin", "cabin")), nodes)
    }

    fn ask<'r, R: Request<'r>>(
        &self,
        whom: &str,
        request: &R,
        uid: u32,
    ) -> Result<R::Response, AskError> {
        self.ask_within(TIME_LIMIT, whom, request, uid)
    }

    fn ask_within<'r, R: Request<'r>>(
        &self,
        time: Duration,
        whom: &str,
        request: &R,
        uid: u32,
    ) -> Result<R::Response, AskError> {
        let mesh = self.service.mesh().expect("it is in a mesh");
        let deadline = clock::monotonic() + time;
        runtime().block_on(mesh.call(&node(whom), request, Some(Uid(uid)), deadline))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.thread.take().expect("it runs").join().expect("no panic");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop")
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.set_nonblocking(true).expect("do not block");
    listener
}

/// `home`, and `cabin`, which asks; `office` is configured and at `elsewhere`.
fn scene(elsewhere: u16) -> (Authority, Daemon, u16, Asker) {
    let (ca, home, port) = Authority::home_beside_cabin();
    let asker = Asker::start(&ca, &[("home", port), ("office", elsewhere)]);
    (ca, home, port, asker)
}

/// holds M2, M6
#[test]
fn a_machine_is_asked_for_a_record_and_answers_or_refuses() {
    let (_ca, home, _, asker) = scene(free_port());
    assert_eq!(asker.ask("home", &Ping {}, 1000), Ok("pong".to_owned()));

    let mut owner = home.connect();
    let params = ["shared".into(), list(["id".into()]), "all".into()];
    owner.call("create_table", &params).expect("made");
    let record = map([("id", 1.into()), ("text", "for all".into())]);
    owner.call("put", &["shared".into(), record.clone()]).expect("stored");
    let table = format!("{}:shared", nix::unistd::geteuid());
    let (key, other) = (packed(&1.into()), packed(&map([("id", 2.into())])));
    let get = |uid| asker.ask("home", &Get { table: &table, key: Raw(&key) }, uid);
    let denied = || AskError::Refused("access_denied".into());
    assert_eq!(get(1000), Err(denied()), "nothing is granted to everybody");
    owner.call("acl_grant", &["*".into(), "shared".into(), "read".into()]).expect("granted");
    assert_eq!(get(1000), Ok(RawValue(packed(&record))), "what everybody may read");
    assert_eq!(get(0), Err(denied()), "root there is nobody here");
    let put = asker.ask("home", &Put { table: &table, record: Raw(&other) }, 1000);
    assert_eq!(put, Err(denied()), "reading is not writing");
    assert_eq!(asker.ask("home", &Status {}, 1000), Err(denied()));
}

#[test]
fn who_is_not_reached_is_told_apart_from_who_does_not_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (_ca, _home, _, asker) = scene(silent.local_addr().expect("bound").port());
    let soon = Duration::from_millis(300);
    let late = asker.ask_within(soon, "office", &Ping {}, 1);
    assert_eq!(late, Err(AskError::Timeout), "it accepts, and says nothing");
    drop(silent);
    let gone = asker.ask("office", &Ping {}, 1);
    assert!(matches!(gone, Err(AskError::Unreachable(_))), "{gone:?}");
    let unknown = asker.ask("attic", &Ping {}, 1);
    assert_eq!(unknown, Err(AskError::UnknownNode(node("attic"))));
}

/// holds M5
#[test]
fn another_machine_at_the_address_of_the_one_that_is_meant_is_not_asked() {
    let (ca, _home, port, asker) = scene(free_port());
    asker.mesh.send_replace(Arc::new(Asker::mesh(&ca, &[("office", port)])));
    let other = asker.ask("office", &Ping {}, 1);
    let Err(AskError::Unreachable(why)) = &other else { panic!("{other:?}") };
    assert!(why.contains("certificate"), "{why}");
}

#[test]
fn a_connection_is_used_again_and_one_that_has_ended_is_not() {
    let (ca, mut home, port, asker) = scene(free_port());
    for _ in 0..5 {
        assert_eq!(asker.ask("home", &Ping {}, 1), Ok("pong".to_owned()));
    }
    wait_until("one link and one connection for requests", || connections_to(&[port]) == 2);
    home.kill();
    home.restart();
    assert_eq!(asker.ask("home", &Ping {}, 1), Ok("pong".to_owned()), "it was dialled anew");
    asker.mesh.send_replace(Arc::new(Asker::mesh(&ca, &[])));
    wait_until("all of them are closed with the configuration", || connections_to(&[port]) == 0);
    assert_eq!(asker.ask("home", &Ping {}, 1), Err(AskError::UnknownNode(node("home"))));
}
