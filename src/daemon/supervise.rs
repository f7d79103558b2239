//! The running daemon: its vital tasks side by side, signals, reload, and notifications to systemd.
//! The first of them to end decides how the daemon ends.

use std::{path::Path, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{MeshSettings, Running, Settings, peer::PeerThread};
use crate::{
    edge::unix,
    service::{DaemonRequest, scrub},
    store::{CommandError, Store, StoreError, UpkeepCommand, UpkeepOutcome},
    sys::journal,
};

/// Between two attempts to enter a mesh that is down.
const MESH_RETRY: Duration = Duration::from_secs(5);

/// Between two looks for dropped tables whose rows are still there.
const UPKEEP: Duration = Duration::from_secs(5);

/// Between two steps of removing them: leaves most of the disk to clients.
const PURGE_PAUSE: Duration = Duration::from_millis(2);

/// Runs until the daemon has to end. `Ok` after a signal, an error where it cannot go on.
pub(super) async fn until_the_end(
    running: &mut Running<'_>,
    mut daemon_requests: mpsc::Receiver<DaemonRequest>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let mut fatal = running.service.store().fatal();
    // It goes on where it is when the settings are read again.
    let (service, pace) = (Arc::clone(&running.service), running.settings.scrub);
    let mut scrub = pin!(async move { scrub::run(&service, pace).await });
    loop {
        let peers = running.peers.as_ref().map(PeerThread::ended);
        let mut without_peers = pin!(async {
            match peers {
                Some(ended) => ended.await,
                None => std::future::pending().await,
            }
        });
        let mesh_is_down = running.peers.is_none() && running.settings.mesh.is_some();
        let store = running.service.store();
        let asked_by = tokio::select! {
            () = unix::accept(running.socket.listener(), &running.shards, &running.limiter, &running.limits) => {
                bail!("the listener ended");
            }
            () = &mut without_peers => bail!("the thread of the mesh ended"),
            () = upkeep(store) => bail!("the upkeep ended"),
            () = &mut scrub => bail!("the scrub ended"),
            () = watchdog(store, running.socket.path()) => bail!("the watchdog ended"),
            fault = fatal.wait_for(Option::is_some) => {
                let fault = fault.ok().and_then(|fault| fault.clone());
                bail!("the store has stopped: {}", fault.map_or_else(String::new, |f| f.to_string()));
            }
            _ = terminate.recv() => return ended_by("SIGTERM"),
            _ = interrupt.recv() => return ended_by("SIGINT"),
            _ = hang_up.recv() => None,
            request = daemon_requests.recv() => request,
            () = sleep(MESH_RETRY), if mesh_is_down => {
                running.enter_mesh().await;
                if running.peers.is_some() {
                    notify_ready(&running.status_line());
                }
                continue;
            }
        };
        match asked_by {
            Some(DaemonRequest::Settings(reply)) => {
                let _hung_up = reply.send(running.settings.all());
            }
            Some(DaemonRequest::Reload(reply)) => {
                let outcome = reload(running).await;
                let _hung_up = reply.send(outcome.map_err(|error| format!("{error:#}")));
            }
            None => {
                let _logged = reload(running).await;
            }
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an arm of the select, beside those that fail")]
fn ended_by(signal: &str) -> Result<()> {
    info!(signal, "ending: {signal}");
    Ok(())
}

/// Nothing is wrong with the settings; some of them wait for the next start.
#[derive(Debug, thiserror::Error)]
#[error("a restart is needed to change {0}")]
struct NeedsRestart(String);

/// Reads the settings again. Those that cannot be changed while running, or that are wrong, leave
/// everything as it was.
async fn reload(running: &mut Running<'_>) -> Result<()> {
    let reloading = NotifyState::monotonic_usec_now().map(|now| [NotifyState::Reloading, now]);
    match reloading {
        Ok(states) => notify(&states),
        Err(error) => warn!(%error, "cannot notify systemd of the reload: {error}"),
    }
    let outcome = try_reload(running).await;
    match &outcome {
        Ok(()) => info!("the settings were read again"),
        Err(error) if error.is::<NeedsRestart>() => warn!(
            MESSAGE_ID = journal::CONFIGURATION_REJECTED,
            error = format!("{error:#}"),
            "the settings were not changed: {error:#}"
        ),
        Err(error) => error!(
            MESSAGE_ID = journal::CONFIGURATION_REJECTED,
            error = format!("{error:#}"),
            "the settings were not changed: {error:#}"
        ),
    }
    notify_ready(&running.status_line());
    outcome
}

async fn try_reload(running: &mut Running<'_>) -> Result<()> {
    let new = Settings::gather(running.args, running.env)?;
    let mut fixed = running.settings.fixed_changes(&new);
    if running.peers.is_none() {
        // What keeps a mesh down may be mended.
        fixed.retain(|name| !name.starts_with("mesh."));
    }
    if !fixed.is_empty() {
        return Err(NeedsRestart(fixed.join(", ")).into());
    }
    // What can fail comes first: until all of it has not, nothing changes.
    let up = new.mesh.as_ref().filter(|_| running.peers.is_some());
    let mesh = up.map(MeshSettings::load).transpose()?;
    if let Some(mesh) = &mesh {
        let signer = Arc::clone(mesh.credentials());
        running.service.join(signer).await.map_err(|failure| super::refused(&failure))?;
    }
    running.level.set(&new.log)?;
    if let (Some(peers), Some(mesh)) = (&running.peers, mesh) {
        peers.replace(mesh);
    }
    running.service.set_bounds(new.conn.bounds());
    running.limits.store(new.conn.into());
    running.service.store().set_limits(new.limits);
    running.settings = new;
    running.enter_mesh().await;
    Ok(())
}

/// Removes the rows of dropped tables, a few at a time.
async fn upkeep(store: &Store) {
    loop {
        match store.execute(UpkeepCommand::Purge).await {
            Ok(UpkeepOutcome::Purged { more: true }) => sleep(PURGE_PAUSE).await,
            Ok(_) => sleep(UPKEEP).await,
            Err(failure) => {
                warn!(%failure, "rows of dropped tables could not be removed, trying again later: {failure}");
                sleep(UPKEEP).await;
            }
        }
    }
}

/// Tells systemd that the daemon is alive, as long as it answers a client and the writer answers
/// it. Rests for ever where no watchdog is asked for.
async fn watchdog(store: &Store, socket: &Path) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let Pace { probe: longest, rest } = Pace::within(interval);
    loop {
        match timeout(longest, probe(store, socket)).await {
            Ok(Ok(())) => notify(&[NotifyState::Watchdog]),
            Ok(Err(error)) => {
                warn!(error = format!("{error:#}"), "the daemon's own probe failed: {error:#}");
            }
            Err(_) => warn!("the daemon's own probe got no answer in time"),
        }
        sleep(rest).await;
    }
}

/// How the time from one heartbeat to the next is spent.
struct Pace {
    /// The longest that a probe may take.
    probe: Duration,
    /// Between the end of a probe and the next one.
    rest: Duration,
}

impl Pace {
    /// So that a probe which is nearly too slow still is in time.
    fn within(interval: Duration) -> Self {
        Self { probe: interval / 2, rest: interval / 4 }
    }
}

/// Asks what a client would ask: a ping through the socket, and a turn of the writer.
async fn probe(store: &Store, socket: &Path) -> Result<()> {
    /// `[0, 1, "ping", []]`
    const PING: [u8; 9] = [0x94, 0, 1, 0xa4, b'p', b'i', b'n', b'g', 0x90];
    let mut stream =
        UnixStream::connect(socket).await.context("cannot connect to the own socket")?;
    stream.write_all(&PING).await.context("cannot ask on the own socket")?;
    let answered = stream.read_u8().await.context("no answer on the own socket");
    // Any other failure is an answer: a full disk is no reason to be killed and started again.
    if let Err(CommandError::Faulted(StoreError::Closed)) =
        store.execute(UpkeepCommand::Purge).await
    {
        bail!("the writer has ended");
    }
    answered.map(|_| ())
}

/// The service is up: systemd starts what waits for it, `systemctl status` shows the text.
pub(super) fn notify_ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub(super) fn notify_stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("ending the requests under way")]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// holds D1
    #[test]
    fn the_slowest_probe_is_in_time_for_the_watchdog() {
        let interval = Duration::from_secs(30);
        let Pace { probe, rest } = Pace::within(interval);
        assert!(rest + probe < interval);
    }
}
