//! How everything that runs learns that it should end.

use synod_runtime::watch;

/// Asks for an orderly stop. Dropping it without a word asks for nothing.
#[derive(Debug)]
pub struct StopTrigger(watch::Sender<bool>);

/// Waits for an orderly stop to be asked for. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<bool>);

/// A trigger and the signal it gives.
pub fn stop_pair() -> (StopTrigger, StopSignal) {
    let (sender, receiver) = watch::channel(false);
    (StopTrigger(sender), StopSignal(receiver))
}

impl StopTrigger {
    /// Asks; asking again changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl StopSignal {
    /// Returns once the stop was asked for; never when its trigger was dropped before.
    pub async fn stopped(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the stop was asked for.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }
}
