//! Why an attempt is asked to stop before its engine has finished.

/// Why an engine is asked to stop. The first reason stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// A user cancelled the operation.
    Cancel,
    /// The attempt ran longer than its time limit.
    Timeout,
    /// The worker is stopping.
    Shutdown,
    /// The attempt is no longer this worker's.
    Lost(Lost),
}

/// The attempt is no longer this worker's: another attempt took over, or the operation ended
/// without this one. See [`crate::attempt::ownership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The operation has ended, so its request may be acknowledged.
    pub(crate) terminal: bool,
}
