//! A daemon that says what a test tells it to, for what a real one does rarely: errors, silence, nonsense.
//! Leaves everything that a real daemon does by itself to tests against the real one.

use std::io::{BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rmpv::Value;

use super::rpc::packed;

/// What the daemon was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) method: String,
    pub(crate) params: Vec<Value>,
}

/// What it does about it.
#[derive(Debug)]
pub(crate) enum Reaction {
    Result(Value),
    Error(&'static str),
    /// These bytes instead of an answer.
    Bytes(Vec<u8>),
    /// An answer that the test writes itself.
    ByHand(fn(u64, &mut UnixStream)),
    /// No answer, and the connection stays open.
    Silence,
    HangUp,
}

pub(crate) struct FakeDaemon {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeDaemon {
    /// Answers every request by `react`, on any number of connections.
    pub(crate) fn start(react: impl Fn(&Request) -> Reaction + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let listener = UnixListener::bind(directory.path().join("cortex.sock")).expect("bind");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (react, heard) = (Arc::new(react), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("accept");
                let (react, heard) = (Arc::clone(&react), Arc::clone(&heard));
                thread::spawn(move || serve(stream, react.as_ref(), &heard));
            }
        });
        Self { directory, requests }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("cortex.sock")
    }

    /// A directory that lives as long as the daemon.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("nobody panicked").clone()
    }
}

fn serve(
    mut stream: UnixStream,
    react: &dyn Fn(&Request) -> Reaction,
    heard: &Mutex<Vec<Request>>,
) {
    let mut input = BufReader::new(stream.try_clone().expect("clone"));
    while let Ok(message) = rmpv::decode::read_value(&mut input) {
        let request = request(&message);
        heard.lock().expect("nobody panicked").push(request.clone());
        let written = match react(&request) {
            Reaction::Result(result) => answer(&mut stream, request.id, Value::Nil, result),
            Reaction::Error(error) => answer(&mut stream, request.id, error.into(), Value::Nil),
            Reaction::Bytes(bytes) => stream.write_all(&bytes),
            Reaction::ByHand(write) => {
                write(request.id, &mut stream);
                Ok(())
            }
            Reaction::Silence => Ok(()),
            Reaction::HangUp => return,
        };
        // The tool may be gone by now, which is its affair.
        if written.is_err() {
            return;
        }
    }
}

fn answer(stream: &mut UnixStream, id: u64, error: Value, result: Value) -> std::io::Result<()> {
    stream.write_all(&packed(&Value::Array(vec![1.into(), id.into(), error, result])))
}

fn request(message: &Value) -> Request {
    let parts = message.as_array().expect("a request is an array");
    assert_eq!(parts.len(), 4, "a request has four parts");
    assert_eq!(parts[0].as_u64(), Some(0), "a request is of type 0");
    Request {
        id: parts[1].as_u64().expect("the id is a number"),
        method: parts[2].as_str().expect("the method is text").to_owned(),
        params: parts[3].as_array().expect("the parameters are an array").clone(),
    }
}
