//! Which slots of a worker no operation uses.

use std::collections::BTreeSet;
use std::time::Duration;

use ktrdr_worker::OperationError;
use parking_lot::Mutex;

/// The free slots, by number.
pub(crate) struct Slots(Mutex<BTreeSet<usize>>);

/// A slot that an operation uses; free again when dropped.
pub(crate) struct Taken<'a> {
    slots: &'a Slots,
    pub(crate) number: usize,
}

impl Slots {
    /// This many slots, all free.
    pub(crate) fn new(count: usize) -> Self {
        Self(Mutex::new((0..count).collect()))
    }

    /// The first free slot.
    ///
    /// # Errors
    /// A retry while all are taken: a process that was killed may need a moment to end.
    pub(crate) fn take(&self) -> Result<Taken<'_>, OperationError> {
        let number = self.0.lock().pop_first().ok_or_else(|| {
            OperationError::retry_after(
                "no_slot",
                "every slot of the worker still has a program at work",
                Duration::from_secs(1),
            )
        })?;
        Ok(Taken {
            slots: self,
            number,
        })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.slots.0.lock().insert(self.number);
    }
}
