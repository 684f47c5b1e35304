//! Requests that wait for the projection to reach a sequence, or for an operation to end.
//!
//! Each waits on a channel of its own, so a change wakes only the requests it concerns. A request
//! that gives up, because its client has gone, drops its waiter and is forgotten at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use ktrdr_protocol::id::OperationId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// All waiting requests.
#[derive(Debug, Default)]
pub struct Waiters {
    next: AtomicU64,
    sequences: Mutex<BTreeMap<(u64, u64), oneshot::Sender<()>>>,
    operations: Mutex<HashMap<OperationId, HashMap<u64, oneshot::Sender<()>>>>,
}

impl Waiters {
    /// Waits for `sequence`. Check after this call whether it was reached already, then await.
    pub fn sequence(&self, sequence: u64) -> SequenceWaiter<'_> {
        let (sender, receiver) = oneshot::channel();
        let key = (sequence, self.next.fetch_add(1, Ordering::Relaxed));
        self.sequences.lock().insert(key, sender);
        SequenceWaiter {
            waiters: self,
            key,
            receiver,
        }
    }

    /// Waits for the end of an operation. Check after this call whether it has ended already, then
    /// await, then check again.
    pub fn operation(&self, id: &OperationId) -> OperationWaiter<'_> {
        let (sender, receiver) = oneshot::channel();
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.operations
            .lock()
            .entry(id.clone())
            .or_default()
            .insert(key, sender);
        OperationWaiter {
            waiters: self,
            id: id.clone(),
            key,
            receiver,
        }
    }

    /// Wakes all that wait for `sequence` or an earlier one.
    pub fn reached(&self, sequence: u64) {
        let mut waiting = self.sequences.lock();
        while let Some(entry) = waiting.first_entry()
            && entry.key().0 <= sequence
        {
            // Fails when the waiter has just gone.
            let _ = entry.remove().send(());
        }
    }

    /// Wakes all that wait for one of these operations.
    pub fn ended(&self, ids: &[OperationId]) {
        if ids.is_empty() {
            return;
        }
        let mut waiting = self.operations.lock();
        if waiting.is_empty() {
            return;
        }
        for id in ids {
            for (_, sender) in waiting.remove(id).into_iter().flatten() {
                let _ = sender.send(());
            }
        }
    }

    /// Wakes all that wait for an operation: some operations may be gone.
    pub fn wake_all(&self) {
        for (_, sender) in std::mem::take(&mut *self.operations.lock())
            .into_values()
            .flatten()
        {
            let _ = sender.send(());
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.sequences.lock().len()
            + self
                .operations
                .lock()
                .values()
                .map(HashMap::len)
                .sum::<usize>()
    }
}

/// A request that waits for a sequence.
#[derive(Debug)]
pub struct SequenceWaiter<'a> {
    waiters: &'a Waiters,
    key: (u64, u64),
    receiver: oneshot::Receiver<()>,
}

impl SequenceWaiter<'_> {
    /// Resolves when the sequence was reached.
    pub async fn woken(&mut self) {
        // An error would mean that the sender was dropped unsent; only this waiter's own drop does
        // that.
        let _ = (&mut self.receiver).await;
    }
}

impl Drop for SequenceWaiter<'_> {
    fn drop(&mut self) {
        self.waiters.sequences.lock().remove(&self.key);
    }
}

/// A request that waits for the end of an operation.
#[derive(Debug)]
pub struct OperationWaiter<'a> {
    waiters: &'a Waiters,
    id: OperationId,
    key: u64,
    receiver: oneshot::Receiver<()>,
}

impl OperationWaiter<'_> {
    /// Resolves when the operation has ended or may be gone.
    pub async fn woken(&mut self) {
        let _ = (&mut self.receiver).await;
    }
}

impl Drop for OperationWaiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.operations.lock();
        if let Some(waiters) = waiting.get_mut(&self.id) {
            waiters.remove(&self.key);
            if waiters.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exactly_those_concerned_are_woken() {
        let waiters = Waiters::default();
        let mut early = waiters.sequence(5);
        let mut late = waiters.sequence(9);
        waiters.reached(7);
        early.woken().await;
        assert!(late.receiver.try_recv().is_err());
        let (a, b) = (
            OperationId::new("a").unwrap(),
            OperationId::new("b").unwrap(),
        );
        let mut first = waiters.operation(&a);
        let mut second = waiters.operation(&a);
        let mut other = waiters.operation(&b);
        waiters.ended(std::slice::from_ref(&a));
        first.woken().await;
        second.woken().await;
        assert!(other.receiver.try_recv().is_err());
    }

    #[test]
    fn one_that_leaves_is_forgotten() {
        let waiters = Waiters::default();
        let id = OperationId::new("a").unwrap();
        drop((waiters.sequence(1), waiters.operation(&id)));
        assert_eq!(waiters.count(), 0);
    }
}
