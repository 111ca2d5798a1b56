//! The one signal that ends a gateway's tasks.

use tokio::sync::watch;

/// Told to every task once.
pub(crate) type Stop = watch::Receiver<bool>;

/// Waits until the gateway ends, or is gone.
pub(crate) async fn stopped(stop: &mut Stop) {
    // The guard of the value is dropped here, so that callers may be moved between threads.
    let _ = stop.wait_for(|stop| *stop).await;
}
