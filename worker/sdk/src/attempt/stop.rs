//! Why an attempt is asked to stop before its engine has finished.

/// Why an engine is asked to stop. The first reason stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// A user cancelled the operation.
    Cancel,
    /// The attempt ran longer than its time limit.
    Timeout,
    /// The engine gave no sign of life for longer than its stall timeout.
    Stalled,
    /// The worker is stopping.
    Shutdown,
    /// Another attempt took over, or the operation ended without this one.
    Lost(Lost),
}

/// The attempt is lost: another attempt took over, or the operation ended without this one. See
/// [`crate::attempt::ownership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Whether the operation has ended. Then its request may be acknowledged.
    pub(crate) terminal: bool,
}
