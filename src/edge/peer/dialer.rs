//! Dials every configured machine, and dials it again, for ever: with a pause that grows while it fails.
//! What is said once it answers is `link`'s.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use cortex_core::{backoff::Backoff, model::NodeName};
use tokio::{task::JoinSet, time::sleep};

use super::{
    Shared, drain,
    handshake::{self, Protocol},
    keeper::PeerEvent,
    link,
    links::Side,
};
use crate::sys::clock;

/// A link that has lasted for so long was a good one: the next attempt comes soon after its end.
const STABLE: Duration = Duration::from_secs(60);

/// The bounds of the pause before a machine is dialled again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between two looks at whether the wall clock was set, while a machine is not reached; and what is more than drift.
const CLOCK_LOOK: Duration = Duration::from_secs(2);
const CLOCK_STEP_MS: u64 = 1_000;

/// Dials until the daemon ends; machines come and go with the configuration.
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut mesh = shared.mesh.clone();
    let mut dialled = BTreeSet::<NodeName>::new();
    let mut tasks = JoinSet::new();
    loop {
        let nodes: Vec<_> = mesh.borrow_and_update().nodes().keys().cloned().collect();
        shared.peer_addresses.retain(&nodes);
        for node in nodes {
            if dialled.insert(node.clone()) {
                let shared = Arc::clone(shared);
                tasks.spawn(async move {
                    keep_dialling(&node, &shared).await;
                    node
                });
            }
        }
        tokio::select! {
            // The sender is the daemon's, and gone only where it ends.
            changed = mesh.changed() => if changed.is_err() { break },
            ended = tasks.join_next(), if !tasks.is_empty() => match ended {
                Some(Ok(node)) => {
                    dialled.remove(&node);
                }
                Some(Err(panic)) => tracing::error!(%panic, "dialling another machine panicked: {panic}"),
                None => {}
            },
            () = shared.stopped() => break,
        }
    }
    let mut rest = JoinSet::new();
    rest.spawn(async move { while tasks.join_next().await.is_some() {} });
    drain(rest).await;
}

/// Dials one machine until it is not configured any more, or the daemon ends.
async fn keep_dialling(node: &NodeName, shared: &Shared) {
    let mut mesh = shared.mesh.clone();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    while !shared.is_stopping() {
        let began = clock::monotonic();
        tokio::select! {
            () = shared.links.absent(node) => {}
            () = shared.stopped() => return,
        }
        mesh.mark_unchanged();
        if !dial_once(node, shared).await {
            return;
        }
        if began.elapsed() >= STABLE {
            backoff.reset();
        }
        tokio::select! {
            () = sleep(backoff.next_pause_with_jitter(super::random())) => {}
            // A certificate that was not valid yet, or not any more, may be now.
            () = clock_steps() => backoff.reset(),
            // Another address, or another certificate: what has failed may work now.
            changed = mesh.changed() => if changed.is_ok() { backoff.reset() },
            () = shared.stopped() => return,
        }
    }
}

/// Ends when the wall clock has been set.
async fn clock_steps() {
    let distance = |start: Instant| {
        let passed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        clock::wall_ms().wrapping_sub(passed).cast_signed()
    };
    let start = clock::monotonic();
    let before = distance(start);
    loop {
        sleep(CLOCK_LOOK).await;
        if distance(start).abs_diff(before) > CLOCK_STEP_MS {
            return;
        }
    }
}

/// One attempt, and the link that comes of it. False where there is nobody to dial any more.
async fn dial_once(node: &NodeName, shared: &Shared) -> bool {
    let Some(address) = shared.mesh().nodes().get(node).cloned() else {
        return false;
    };
    let dialled = tokio::select! {
        dialled = handshake::dial(node, &address, Protocol::Link, shared) => dialled,
        () = shared.stopped() => return false,
    };
    let failed = match dialled {
        Ok(greeted) => {
            let ended = link::run(greeted, Side::Us, shared).await;
            (!ended.is_for_another()).then(|| ended.to_string())
        }
        Err(unreached) => Some(unreached.to_string()),
    };
    if let Some(why) = failed {
        let _gone = shared.news.send(PeerEvent::Failed { node: node.clone(), why }).await;
    }
    true
}
