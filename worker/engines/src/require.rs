//! One condition of a request, and what to say when it does not hold.

use ktrdr_worker::OperationError;

/// Succeeds when the condition holds.
///
/// # Errors
/// [`OperationError::invalid`] with the message. A later attempt would fail the same way, so there
/// is none.
pub(crate) fn require(holds: bool, message: &str) -> Result<(), OperationError> {
    if holds {
        Ok(())
    } else {
        Err(OperationError::invalid(message))
    }
}
