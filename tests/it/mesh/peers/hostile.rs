//! A machine of the mesh that misbehaves, with a certificate that is in order: refused, bounded, and nobody else
//! notices. Who has no such certificate is in `strangers`.

use cortex_core::model::Hlc;
use cortex_core::wire::link::{Bye, Features, Hello, Incoming, Message, Reject, Status};
use cortexd::pki::Credentials;
use rmpv::Value;

use crate::mesh::peers::daemon::{Daemon, wait_until};
use crate::mesh::peers::mesh::{Authority, LINK, Tls, free_port, is_connected, node, refused};
use crate::mesh::peers::rpc::{list, map};

/// `home` and `office`, and the credentials of `cabin`, which is configured and no daemon.
struct Scene {
    home: Daemon,
    _office: Daemon,
    port: u16,
    cabin: Credentials,
}

impl Scene {
    fn new(limits: &str) -> Self {
        let ca = Authority::new();
        for name in ["home", "office", "cabin"] {
            ca.issue(name);
        }
        let (port, of_office) = (free_port(), free_port());
        let nodes = [("home", port), ("office", of_office), ("cabin", free_port())];
        let home = Daemon::with_config(&(ca.settings("home", port, &nodes) + limits));
        let office = Daemon::with_config(&ca.settings("office", of_office, &nodes));
        wait_until("the others are connected", || is_connected(&home, "office"));
        Self { home, _office: office, port, cabin: ca.credentials("cabin", "cabin") }
    }

    fn rpc(&self) -> Tls {
        Tls::rpc(&self.cabin, "home", self.port)
    }

    fn link(&self) -> Tls {
        Tls::connect(&self.cabin, "home", self.port, LINK)
    }

    fn hello(&self) -> Hello {
        Hello {
            mesh: self.cabin.mesh().0,
            node: node("cabin"),
            actor: [1; 16],
            wall_ms: 0,
            hlc: Hlc::default(),
            features: Features::OURS,
            boot: [2; 16],
            database: None,
            last_of_yours: None,
        }
    }

    /// Everybody else goes on as before.
    fn assert_healthy(&self) {
        assert_eq!(self.home.connect().call("ping", &[]), Ok("pong".into()));
        assert!(is_connected(&self.home, "office"));
        assert_eq!(self.rpc().call("ping", &[], None), Ok("pong".into()));
    }
}

fn framed(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    bytes
}

/// What is said before the link is closed, but for greetings and heartbeats.
fn last_status(link: &mut Tls) -> Option<Message> {
    let mut last = None;
    while let Some(body) = link.frame() {
        match Incoming::read(&body) {
            Ok(Incoming::Known(Message::Hello(_) | Message::Status(_) | Message::Sync(_))) => {}
            Ok(Incoming::Known(message)) => last = Some(message),
            other => panic!("{other:?}"),
        }
    }
    last
}

/// holds M2, M6
#[test]
fn a_peer_may_ask_for_records_and_for_nothing_else() {
    let scene = Scene::new("");
    let mut peer = scene.rpc();
    let denied = Err("access_denied".to_owned());
    for method in [
        "status",
        "tables",
        "create_table",
        "drop_table",
        "table_info",
        "acl_grant",
        "acl_revoke",
        "acl_list",
        "usage",
        "events",
        "reload",
        "checkpoint",
        "backup",
        "mesh_status",
        "mesh_list_nodes",
        "no_such_method",
        "sync_repair",
        "",
    ] {
        assert_eq!(peer.call(method, &[], None), denied, "{method}");
    }
    assert_eq!(peer.call("ping", &[], Some(map([("uid", 1000.into())]))), Ok("pong".into()));
    scene.assert_healthy();
}

/// holds M6
#[test]
fn a_peer_speaks_for_no_root_and_sends_nothing_but_a_uid() {
    let scene = Scene::new("");
    let mut peer = scene.rpc();
    for (metadata, wanted) in [
        (map([("uid", 0.into())]), "access_denied"),
        (map([("uid", (-1).into())]), "invalid_request"),
        (map([("uid", (1u64 << 32).into())]), "invalid_request"),
        (map([("uid", "1000".into())]), "invalid_request"),
        (map([("gid", 5.into())]), "invalid_request"),
        (map([("uid", 5.into()), ("node", "office".into())]), "invalid_request"),
        (Value::Nil, "invalid_request"),
        (list([5.into()]), "invalid_request"),
    ] {
        assert_eq!(
            peer.call("ping", &[], Some(metadata.clone())),
            Err(wanted.into()),
            "{metadata}"
        );
    }
    assert_eq!(peer.call("ping", &[], Some(Value::Map(vec![]))), Ok("pong".into()));
    scene.home.wait_for_log("a user that it may not speak for");
    scene.assert_healthy();
}

/// holds M6, S2
#[test]
fn a_local_table_is_for_no_peer_whatever_was_granted() {
    let scene = Scene::new("");
    let mut owner = scene.home.connect();
    owner.create("notes");
    let note = map([("id", 1.into()), ("text", "secret".into())]);
    owner.call("put", &["notes".into(), note.clone()]).expect("stored");
    owner.call("acl_grant", &["*".into(), "notes".into(), "read,write".into()]).expect("granted");
    let full = format!("{}:notes", nix::unistd::geteuid());
    let absent = format!("{}:absent", nix::unistd::geteuid());
    let mut peer = scene.rpc();
    for metadata in [None, Some(map([("uid", nix::unistd::geteuid().as_raw().max(1).into())]))] {
        for name in [full.as_str(), &absent, "notes", "@notes", "@alice:notes"] {
            let table = Value::from(name);
            for (method, params) in [
                ("get", vec![table.clone(), 1.into()]),
                ("all", vec![table.clone()]),
                ("keys", vec![table.clone()]),
                ("match", vec![table.clone(), map([("id", 1.into())])]),
                ("put", vec![table.clone(), note.clone()]),
                ("delete", vec![table.clone(), 1.into()]),
            ] {
                let answer = peer.call(method, &params, metadata.clone());
                assert_eq!(answer, Err("access_denied".into()), "{method} {name} {metadata:?}");
            }
        }
    }
    assert_eq!(owner.call("get", &["notes".into(), 1.into()]), Ok(note), "it is there untouched");
}

#[test]
fn garbage_huge_messages_and_a_trickle_close_the_connection() {
    let scene = Scene::new("[limits]\nmessage_seconds = 1\n");
    for bytes in [
        &[0xc1, 0xc1, 0xc1][..],
        &[0xdb, 0x7f, 0xff, 0xff, 0xff, b'x'], // a text of 2 GiB
        &[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0], // an array of 4 G elements
        &[0x94, 0, 1],                         // the rest never comes
    ] {
        let mut peer = scene.rpc();
        peer.send(bytes);
        peer.assert_closed();
    }
    assert!(scene.home.memory_kib("VmHWM") < 400 << 10, "what is announced takes no memory");
    scene.assert_healthy();
}

#[test]
fn one_machine_cannot_take_all_connections() {
    let scene = Scene::new("[limits]\nconnections_per_uid = 3\n");
    let mut open: Vec<_> = (0..3).map(|_| scene.rpc()).collect();
    for peer in &mut open {
        assert_eq!(peer.call("ping", &[], None), Ok("pong".into()));
    }
    let mut surplus = scene.rpc();
    assert_eq!(surplus.receive(), Some(Err("too_many_connections".into())));
    surplus.assert_closed();
    assert_eq!(refused(&scene.home, "too_many_connections"), 1);
    drop(open);
    wait_until("the places are given back", || scene.rpc().call("ping", &[], None).is_ok());
    scene.assert_healthy();
}

#[test]
fn a_link_of_another_name_mesh_or_version_is_rejected() {
    let scene = Scene::new("");
    let good = scene.hello();
    for (hello, reject, reason) in [
        (Hello { node: node("office"), ..good.clone() }, Reject::WrongNode, "wrong_node"),
        (Hello { mesh: [7; 16], ..good.clone() }, Reject::Mesh, "other_mesh"),
        (
            Hello { features: Features { min: 900, max: 999 }, ..good.clone() },
            Reject::Version,
            "version",
        ),
    ] {
        let mut link = scene.link();
        link.send(&framed(&Message::Hello(hello)));
        assert_eq!(last_status(&mut link), Some(Message::Reject(reject)));
        wait_until(reason, || refused(&scene.home, reason) == 1);
    }
    assert!(!is_connected(&scene.home, "cabin"));
    scene.assert_healthy();
}

#[test]
fn a_link_that_says_what_it_should_not_is_ended() {
    let scene = Scene::new("");
    let hello = framed(&Message::Hello(scene.hello()));
    let status = framed(&Message::Status(Status {
        sent_us: u64::MAX,
        echo_us: Some(u64::MAX),
        held_us: u64::MAX,
        wall_ms: u64::MAX,
        hlc: Hlc::MAX,
        sees: vec![node("cabin")],
    }));
    let mistake = Some(Message::Bye(Bye::Mistake));
    for bytes in [
        vec![0xff; 64],                                          // a frame over the bound
        [0u32.to_be_bytes().to_vec(), vec![]].concat(),          // an empty one
        status.clone(),                                          // no greeting
        [hello.clone(), hello.clone()].concat(),                 // two of them
        [hello.clone(), vec![0, 0, 0, 3, 0x81, 0, 24]].concat(), // a type of another version
        [hello.clone(), vec![0, 0, 0, 3, 0x81, 0, 16]].concat(), // a request for nothing
        [hello.clone(), vec![0, 0, 0, 3, 1, 2, 3]].concat(),
        [hello.clone(), vec![0xff; 64]].concat(),
        [hello.clone(), status.repeat(1000)].concat(), // a flood
    ] {
        let mut link = scene.link();
        link.send(&bytes);
        assert_eq!(last_status(&mut link), mistake, "{:x?}", &bytes[..bytes.len().min(80)]);
    }
    scene.assert_healthy();
}

/// A machine that is newer may say what this one does not know.
#[test]
fn an_unknown_message_of_a_newer_version_is_passed_over() {
    let scene = Scene::new("");
    let mut link = scene.link();
    let newer = Hello { features: Features { min: 1, max: 99 }, ..scene.hello() };
    let status = Message::Status(Status {
        sent_us: 1,
        echo_us: None,
        held_us: 0,
        wall_ms: 1,
        hlc: Hlc::default(),
        sees: vec![],
    });
    link.send(&framed(&Message::Hello(newer)));
    link.send(&[0, 0, 0, 3, 0x81, 0, 99]);
    link.send(&framed(&status));
    wait_until("the link is up all the same", || is_connected(&scene.home, "cabin"));
    scene.assert_healthy();
}

#[test]
fn a_greeting_that_never_ends_is_not_waited_for() {
    let scene = Scene::new("");
    let mut link = scene.link();
    link.send(&[0, 0]);
    link.assert_closed();
    scene.assert_healthy();
}
