//! Requests of another machine: the same connection as on the Unix socket, with the machine as the caller.
//! What it may ask for is the service's and the gate's.

use cortex_core::{
    model::{Caller, Refusal},
    wire::rpc,
};
use tokio::{io::AsyncWriteExt, time::timeout};
use tracing::info;

use super::{
    Shared,
    handshake::{AuthenticatedConnection, HANDSHAKE},
    refused::Refused,
};
use crate::edge::conn;

/// Serves requests until the connection ends, or its certificate does not do any more.
pub(super) async fn serve(greeted: AuthenticatedConnection, shared: &Shared) {
    let AuthenticatedConnection { mut stream, from, peer, mut place, .. } = greeted;
    let limits = **shared.context.limits.load();
    let Some(_permit) = shared.limiter.take(peer.node.clone(), &limits) else {
        shared.refusals.note(from, &Refused::TooManyConnections);
        let mut reply = Vec::new();
        rpc::error(&mut reply, 0, &Refusal::TooManyConnections.to_string());
        let refuse = async {
            stream.write_all(&reply).await?;
            stream.shutdown().await
        };
        let _gone = timeout(HANDSHAKE, refuse).await;
        return;
    };
    let caller = Caller::Peer { node: peer.node.clone(), uid: None };
    tokio::select! {
        () = conn::serve(stream, caller, &shared.context) => {}
        why = place.untrusted() => {
            info!(node = %peer.node, %from, %why, "a connection of {} for requests was closed: {why}", peer.node);
        }
    }
}
