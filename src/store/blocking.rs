//! Work that may wait for the disk, away from the threads that serve connections.

use super::error::StoreError;

/// Runs the work on a thread for such. A panic in it goes on in the caller.
///
/// # Errors
/// The work's own, and [`StoreError::Closed`] where the runtime ends before the work has begun.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(StoreError::Closed.into()),
        },
    }
}
