//! Which slots of a worker no operation uses.

use std::collections::VecDeque;
use std::time::Duration;

use ktrdr_worker::OperationError;
use parking_lot::Mutex;

/// The slots of a worker, by number.
pub(crate) struct Slots(Mutex<State>);

struct State {
    /// The one that is free for the longest time comes first.
    free: VecDeque<usize>,
    /// Whether an operation can begin in a slot at once, by number.
    is_ready: Vec<bool>,
}

/// A slot that an operation uses; free again when dropped.
pub(crate) struct Taken<'a> {
    slots: &'a Slots,
    pub(crate) number: usize,
}

impl Slots {
    /// This many slots, all free.
    pub(crate) fn new(count: usize) -> Self {
        Self(Mutex::new(State {
            free: (0..count).collect(),
            is_ready: vec![false; count],
        }))
    }

    /// Notes whether an operation can begin in a slot at once, or would wait for its process to start.
    pub(crate) fn set_ready(&self, number: usize, is_ready: bool) {
        if let Some(known) = self.0.lock().is_ready.get_mut(number) {
            *known = is_ready;
        }
    }

    /// A free slot, one that is ready if there is any.
    ///
    /// # Errors
    /// A retry while all are taken: a process that was killed may need a moment to end.
    pub(crate) fn take(&self) -> Result<Taken<'_>, OperationError> {
        let mut state = self.0.lock();
        let ready = state
            .free
            .iter()
            .position(|&number| state.is_ready.get(number) == Some(&true));
        let number = state.free.remove(ready.unwrap_or(0)).ok_or_else(|| {
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
        self.slots.0.lock().free.push_back(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_ready_is_taken_before_one_whose_process_starts() {
        let slots = Slots::new(3);
        slots.set_ready(1, true);
        slots.set_ready(2, true);

        let taken: Vec<_> = (0..3).map(|_| slots.take().unwrap()).collect();

        let numbers: Vec<_> = taken.iter().map(|taken| taken.number).collect();
        assert_eq!(numbers, [1, 2, 0]);
        assert!(slots.take().is_err());
        drop(taken);
        assert_eq!(slots.take().unwrap().number, 1);
    }

    #[test]
    fn a_slot_that_was_used_comes_after_the_others() {
        let slots = Slots::new(2);

        let numbers = [(); 3].map(|()| slots.take().unwrap().number);

        assert_eq!(numbers, [0, 1, 0]);
    }
}
