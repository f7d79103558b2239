//! The listener on the Unix socket: who has connected, and is there room.
//! What is said on the connection is `conn`'s.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use cortex_core::{
    model::{Caller, Refusal, Uid},
    wire::rpc,
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};
use tracing::{debug, warn};

use super::{connections::ConnectionLimiter, limits::ConnLimits, shard::Shards};

/// The pause after a failed accept: the process is out of descriptors, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and hands them out, for ever.
pub async fn accept(
    listener: &UnixListener,
    shards: &Shards,
    limiter: &Arc<ConnectionLimiter<Uid>>,
    limits: &ArcSwap<ConnLimits>,
) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                permit(stream, shards, limiter, &limits.load());
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "cannot accept a connection, trying again: {error}");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn permit(
    stream: UnixStream,
    shards: &Shards,
    limiter: &Arc<ConnectionLimiter<Uid>>,
    limits: &ConnLimits,
) {
    let uid = match stream.peer_cred() {
        Ok(credentials) => Uid(credentials.uid()),
        Err(error) => {
            debug!(%error, "a connection without credentials was closed");
            return;
        }
    };
    match limiter.take(uid, limits) {
        Some(permit) => shards.dispatch(stream, Caller::Local(uid), permit),
        None => reject(&stream, uid),
    }
}

/// Tells a client that there is no room. A fresh socket's buffer takes the few bytes at once.
fn reject(stream: &UnixStream, uid: Uid) {
    debug!(%uid, "a connection over the bound was turned away");
    let mut reply = Vec::new();
    rpc::error(&mut reply, 0, &Refusal::TooManyConnections.to_string());
    let _gone = stream.try_write(&reply);
}
