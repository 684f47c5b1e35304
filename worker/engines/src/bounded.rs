//! Reads files from outside within bounds.
//!
//! A parser that looks for the end of a record, or of a file, takes what it reads into memory. A
//! file can be larger than the memory: a sparse file of gigabytes takes no room on the disk. And a
//! parser in the middle of a record does not look whether the operation was cancelled. So every
//! reader of an engine reads through [`Bounded`], which does both.

use std::io::{self, Read};

use ktrdr_worker::Context;

/// The longest accepted record of a CSV file, in bytes.
pub(crate) const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// Why [`Bounded`] stopped to read. It is the cause of the [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    /// More bytes were read than were allowed.
    #[error("it is too long")]
    TooLong,
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Stopped {
    /// The cause of `error`, if it is this one.
    pub(crate) fn cause_of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

/// Reads from `input` as many bytes as were allowed, until the operation is cancelled.
pub(crate) struct Bounded<'a, R> {
    input: R,
    ctx: &'a Context,
    left: u64,
}

impl<'a, R: Read> Bounded<'a, R> {
    /// Allows `bytes` to be read from `input`.
    pub(crate) fn new(ctx: &'a Context, input: R, bytes: u64) -> Self {
        Self {
            input,
            ctx,
            left: bytes,
        }
    }

    /// Allows `bytes` to be read from now on.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.left = bytes;
    }
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ctx.is_cancelled() {
            return Err(io::Error::other(Stopped::Cancelled));
        }

        let read = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(Stopped::TooLong))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use ktrdr_worker::testing::TestRun;

    /// Endless zeros, which counts the bytes that were read and cancels after `cancel_after`.
    struct Zeros<'a> {
        run: &'a TestRun,
        read: &'a Cell<u64>,
        cancel_after: u64,
    }

    impl Read for Zeros<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(0);
            self.read.set(self.read.get() + buffer.len() as u64);
            if self.read.get() >= self.cancel_after {
                self.run.cancel();
            }
            Ok(buffer.len())
        }
    }

    fn read_record(cancel_after: u64) -> (Stopped, u64) {
        let (run, read) = (TestRun::new(), Cell::new(0));
        let zeros = Zeros {
            run: &run,
            read: &read,
            cancel_after,
        };
        let mut reader = csv::Reader::from_reader(Bounded::new(run.ctx(), zeros, MAX_RECORD));

        let error = reader
            .read_record(&mut csv::StringRecord::new())
            .unwrap_err();

        let csv::ErrorKind::Io(error) = error.into_kind() else {
            panic!("another error");
        };
        (Stopped::cause_of(&error).unwrap(), read.get())
    }

    #[test]
    fn an_endless_record_is_read_up_to_the_limit() {
        let (stopped, read) = read_record(u64::MAX);

        assert_eq!(stopped, Stopped::TooLong);
        assert!(read <= MAX_RECORD + 64 * 1024, "{read}");
    }

    #[test]
    fn a_cancel_is_seen_in_the_middle_of_a_record() {
        let (stopped, read) = read_record(1024 * 1024);

        assert_eq!(stopped, Stopped::Cancelled);
        assert!(read <= 1024 * 1024 + 64 * 1024, "{read}");
    }
}
