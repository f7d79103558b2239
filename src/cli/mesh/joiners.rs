//! Those who come with an invitation: each is judged by the secret, one is let in, wrong guesses are counted.
//! Leaves waiting for them to `invite`.
//!
//! ```text
//!   waiting ──right secret, good request──> granted ──Done──> joined: the code is burned
//!      │                                      └──connection lost: asked again, it is granted again──┐
//!      │                                                       <────────────────────────────────────┘
//!      └──wrong secrets──> closed: the code is burned
//! ```
//!
//! Who asks again with another key gets another certificate, and the first is revoked: one code, one node.

use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use cortex_core::model::NodeName;

use super::code::Secret;
use super::conversation::{self, Answer, Done, Grant, Hello};
use super::join::as_node;
use super::report::now;
use super::settings::Node;
use super::timed::Timed;
use crate::pki::{Authority, Duplicate, IssueError, Issued, PublicKey};

/// For everything that one joiner says.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Wrong secrets until nobody is let in any more. With 128 bits there is no guessing: a client that shows wrong
/// ones is up to something.
const MOST_WRONG: u32 = 10;

/// An invitation that is open.
#[derive(Debug)]
pub(super) struct Joiners {
    pub(super) node: NodeName,
    pub(super) secret: Secret,
    pub(super) ca_dir: PathBuf,
    /// Whom the new node shall know besides itself.
    pub(super) nodes: Vec<Node>,
    pub(super) tls: Arc<ServerConfig>,
    /// Each joiner is served by a thread of its own. One of them at a time has anything to do with the CA.
    pub(super) state: Mutex<State>,
}

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct State {
    wrong: u32,
    granted: Option<Granted>,
    joined: bool,
    /// Time is up.
    closed: bool,
}

impl State {
    fn is_over(&self) -> bool {
        self.joined || self.closed || self.wrong >= MOST_WRONG
    }

    fn outcome(&self) -> Outcome {
        match &self.granted {
            Some(granted) if self.joined => Outcome::Joined(granted.node.clone()),
            _ if self.wrong >= MOST_WRONG => Outcome::Closed,
            Some(granted) => Outcome::Granted(granted.node.clone()),
            None => Outcome::Waiting,
        }
    }
}

#[derive(Debug, Clone)]
struct Granted {
    key: PublicKey,
    issued: Issued,
    node: Node,
}

/// What has become of an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Waiting,
    /// A certificate was handed out, and whether it has arrived is not known.
    Granted(Node),
    Joined(Node),
    /// Too many wrong secrets.
    Closed,
}

/// What has happened with one joiner, for the administrator to see.
#[derive(Debug)]
pub(super) enum JoinAttempt {
    Broken(io::Error),
    WrongSecret,
    Refused(String),
    Granted,
    Joined,
}

impl Joiners {
    pub(super) fn outcome(&self) -> Outcome {
        self.state().outcome()
    }

    /// Lets nobody in any more. What is under way with the CA ends first.
    pub(super) fn close(&self) -> Outcome {
        let mut state = self.state();
        state.closed = true;
        state.outcome()
    }

    /// Serves one joiner to the end.
    pub(super) fn serve(&self, tcp: TcpStream) -> JoinAttempt {
        self.converse(tcp).unwrap_or_else(JoinAttempt::Broken)
    }

    fn converse(&self, tcp: TcpStream) -> io::Result<JoinAttempt> {
        let tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, Timed::new(tcp, TIME_LIMIT));
        let hello: Hello = conversation::receive(&mut stream)?;
        let (answer, visit) = self.answer(&hello);
        conversation::send(&mut stream, &answer)?;
        let Answer::Granted(grant) = answer else {
            stream.conn.send_close_notify();
            // They have had their answer; whether they wait for the end of it is theirs.
            let _ = stream.conn.complete_io(&mut stream.sock);
            return Ok(visit);
        };
        let done: Done = conversation::receive(&mut stream)?;
        Ok(if done.joined { self.has_joined(&grant) } else { visit })
    }

    fn answer(&self, hello: &Hello) -> (Answer, JoinAttempt) {
        let refused = |reason: &str| Answer::Refused { reason: reason.to_owned() };
        let mut state = self.state();
        if state.is_over() {
            let reason = "the code was used up";
            return (refused(reason), JoinAttempt::Refused(reason.to_owned()));
        }
        if !self.is_secret(&hello.secret) {
            state.wrong += 1;
            return (refused("the code is wrong"), JoinAttempt::WrongSecret);
        }
        match self.grant(hello, &mut state) {
            Ok(grant) => (Answer::Granted(Box::new(grant)), JoinAttempt::Granted),
            Err(error) => {
                let reason = error.to_string();
                (refused(&reason), JoinAttempt::Refused(reason))
            }
        }
    }

    fn is_secret(&self, shown: &str) -> bool {
        let own = format!("{:032x}", u128::from_be_bytes(self.secret));
        verify_slices_are_equal(own.as_bytes(), shown.as_bytes()).is_ok()
    }

    fn grant(&self, hello: &Hello, state: &mut State) -> Result<Grant, IssueError> {
        let key = PublicKey::from_request(hello.request.as_bytes())?;
        let node = as_node(&self.node, &hello.host, hello.port);
        let mut authority = Authority::open(&self.ca_dir)?;
        let known = state.granted.take_if(|granted| granted.key == key && granted.node == node);
        let granted = match known {
            Some(granted) => granted,
            None => {
                if let Some(before) = state.granted.take() {
                    authority.revoke(&before.issued.serial.to_string(), now())?;
                }
                let duplicate = Duplicate::Refuse;
                let issued = authority.issue(&self.node, &hello.host, &key, duplicate, now())?;
                Granted { key, issued, node: node.clone() }
            }
        };
        let certificate = granted.issued.pem.clone();
        state.granted = Some(granted);
        let mut nodes = self.nodes.clone();
        nodes.push(node);
        Ok(Grant {
            name: self.node.to_string(),
            certificate,
            ca: authority.pem().to_owned(),
            crl: authority.revocation_list()?,
            nodes,
            clock: Some(now()),
        })
    }

    /// Burns the code, unless somebody else was let in meanwhile with another key: then what this one got is
    /// revoked.
    fn has_joined(&self, grant: &Grant) -> JoinAttempt {
        let mut state = self.state();
        let is_current =
            state.granted.as_ref().is_some_and(|now| now.issued.pem == grant.certificate);
        state.joined |= is_current;
        if is_current {
            JoinAttempt::Joined
        } else {
            JoinAttempt::Refused("it came twice".to_owned())
        }
    }

    /// A joiner whose thread has panicked has left the state as it was between two steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
