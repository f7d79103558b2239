//! A line between two machines that can be cut: passes bytes on, until it does not.
//! Leaves who is at its ends to the tests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Listens for as long as the test runs.
#[derive(Debug)]
pub(crate) struct Line {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: bool,
    /// What goes this way is lost, and nobody is told.
    lost: Option<Way>,
    open: Vec<TcpStream>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From who has called.
    Out,
    /// To who has called.
    Back,
}

impl Line {
    /// A line to a port of this machine.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let own = listener.local_addr().expect("it is bound").port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let Ok(called) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let mut state = locked(&shared);
                if state.is_cut {
                    continue; // dropped, which closes both
                }
                let _only_slower = (caller.set_nodelay(true), called.set_nodelay(true));
                let ways = [(&caller, &called, Way::Out), (&called, &caller, Way::Back)];
                for (from, to, way) in ways {
                    let clone = |stream: &TcpStream| stream.try_clone().expect("clone a socket");
                    let (from, to, shared) = (clone(from), clone(to), Arc::clone(&shared));
                    thread::spawn(move || pass(from, to, |state| state.lost == Some(way), &shared));
                }
                state.open.extend([caller, called]);
            }
        });
        Self { port: own, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn cut(&self) {
        let mut state = locked(&self.state);
        state.is_cut = true;
        for stream in state.open.drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn heal(&self) {
        locked(&self.state).is_cut = false;
    }

    /// From now on what goes this way is lost, though no connection ends; with none, all arrives again.
    pub(crate) fn lose(&self, way: Option<Way>) {
        locked(&self.state).lost = way;
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    is_lost: impl Fn(&State) -> bool,
    state: &Mutex<State>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if is_lost(&locked(state)) {
            continue;
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _gone_already = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
