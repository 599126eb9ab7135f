//! One value that many wait for: tokio's `watch`, except that those who wait are woken in the order in
//! which they began to. tokio draws that order by chance, and no simulated run would be like another.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use synod_runtime::watch;
//!
//! let (level, mut seen) = watch::channel(1);
//! level.send_replace(2);
//! assert_eq!(seen.changed().await, Ok(()));
//! assert_eq!(*seen.borrow(), 2);
//! drop(level);
//! assert!(seen.wait_for(|level| *level > 2).await.is_err(), "it will not be");
//! # }
//! ```

#![expect(clippy::disallowed_types, reason = "what this is made of")]

use std::sync::Arc;

pub use tokio::sync::watch::Ref;
use tokio::sync::{Notify, watch};

/// Nobody is left who could change the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left who changes it")]
pub struct Gone;

/// Who changes the value. Once it is gone nobody waits any more.
#[derive(Debug)]
pub struct Sender<T> {
    value: watch::Sender<T>,
    /// Behind the value: when the last that is left is dropped, those who wait hear of it.
    bell: Bell,
}

/// Who waits for changes.
#[derive(Debug)]
pub struct Receiver<T> {
    value: watch::Receiver<T>,
    rung: Arc<Notify>,
}

#[derive(Debug, Default, Clone)]
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// Somebody who changes a value, and the first who waits for that.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Nobody waits yet.
    pub fn new(value: T) -> Self {
        Self { value: watch::Sender::new(value), bell: Bell::default() }
    }

    /// Sets the value, whether or not anybody waits; answers the one before.
    pub fn send_replace(&self, value: T) -> T {
        let before = self.value.send_replace(value);
        self.bell.0.notify_waiters();
        before
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.value.send_modify(change);
        self.bell.0.notify_waiters();
    }

    /// Changes the value; nobody hears of it if `change` says that it did not. Answers what it says.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = self.value.send_if_modified(change);
        if changed {
            self.bell.0.notify_waiters();
        }
        changed
    }

    /// The value. It cannot be changed while this is held.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }

    /// One more who waits, and has seen the value as it is.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { value: self.value.subscribe(), rung: Arc::clone(&self.bell.0) }
    }
}

impl<T> Receiver<T> {
    /// The value. It cannot be changed while this is held.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }

    /// The value, which counts as seen from now on. It cannot be changed while this is held.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.value.borrow_and_update()
    }

    /// Whether the value changed since it was seen last.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn has_changed(&self) -> Result<bool, Gone> {
        self.value.has_changed().map_err(|_| Gone)
    }

    /// The value as it is counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.value.mark_unchanged();
    }

    /// Waits until the value is another than the one seen last, and counts it as seen. Dropped before,
    /// nothing is.
    ///
    /// # Errors
    /// [`Gone`], once the last value was seen.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        self.until(|value| value.has_changed()).await
    }

    /// Waits until `holds` says so of the value, which may be the one that is there. It is answered as
    /// it is by then: a sender on another thread may have changed it again.
    ///
    /// # Errors
    /// [`Gone`], when it does not hold of the last value.
    pub async fn wait_for(
        &mut self,
        mut holds: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Gone> {
        self.until(|value| holds(value)).await?;
        Ok(self.value.borrow())
    }

    async fn until(&mut self, mut holds: impl FnMut(&Ref<'_, T>) -> bool) -> Result<(), Gone> {
        loop {
            // Begun before the look: a change in between is not missed.
            let rung = self.rung.notified();
            // Asked before the value: what was sent last counts, and nothing comes after.
            let gone = self.has_changed().is_err();
            if holds(&self.value.borrow_and_update()) {
                return Ok(());
            }
            if gone {
                return Err(Gone);
            }
            rung.await;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), bell: self.bell.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), rung: Arc::clone(&self.rung) }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_longest_is_woken_first() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (value, seen) = channel(0_u32);
                let order = Rc::new(RefCell::new(Vec::new()));
                let waiting: Vec<_> = (0..40)
                    .map(|number| {
                        let (mut seen, order) = (seen.clone(), Rc::clone(&order));
                        tokio::task::spawn_local(async move {
                            while seen.changed().await.is_ok() {
                                order.borrow_mut().push(number);
                            }
                        })
                    })
                    .collect();
                for turn in 1..=20 {
                    tokio::task::yield_now().await;
                    value.send_replace(turn);
                    tokio::task::yield_now().await;
                    assert_eq!(order.take(), (0..40).collect::<Vec<_>>(), "turn {turn}");
                }
                drop(value);
                for one in waiting {
                    one.await.unwrap();
                }
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_value_is_seen_before_the_end() {
        let (value, mut seen) = channel(0);
        let mut other = seen.clone();
        assert!(!value.send_if_modified(|_| false));
        assert_eq!(seen.has_changed(), Ok(false));
        value.send_modify(|value| *value += 1);
        assert_eq!(seen.has_changed(), Ok(true));
        assert_eq!(value.send_replace(7), 1);
        drop(value);
        assert_eq!(other.wait_for(|value| *value == 7).await.map(|value| *value), Ok(7));
        assert_eq!(other.wait_for(|value| *value == 7).await.map(|value| *value), Ok(7), "still");
        assert!(other.wait_for(|value| *value == 8).await.is_err());
        assert_eq!(seen.changed().await, Ok(()));
        assert!(seen.changed().await.is_err());
    }

    #[test]
    fn what_another_thread_sends_is_not_missed() {
        let (value, mut seen) = channel(0_u32);
        let sender = std::thread::spawn(move || {
            for next in 1..=10_000 {
                value.send_replace(next);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let last = runtime.block_on(async {
            let last = seen.wait_for(|value| *value == 10_000).await.map(|last| *last);
            while seen.changed().await.is_ok() {}
            last
        });
        sender.join().unwrap();
        assert_eq!(last, Ok(10_000));
    }
}
