//! Asking whether an attempt still owns its operation, on behalf of an engine.

use std::sync::Arc;
use std::time::Duration;

use crate::attempt::claim::{Claimer, Ended, Hold};
use crate::engine::context::OwnerCheck;
use crate::engine::error::OperationError;
use crate::worker::core::Core;
use crate::worker::running::{Execution, StopReason};

/// Pause before asking again who owns the operation, while NATS is away.
const OWNER_RETRY: Duration = Duration::from_millis(500);

/// The check behind [`crate::Context::ensure_owner`].
pub(crate) fn owner_check(core: Arc<Core>, execution: Arc<Execution>, hold: Hold) -> OwnerCheck {
    Box::new(move || {
        let (core, execution, hold) = (core.clone(), execution.clone(), hold.clone());
        Box::pin(async move {
            let claimer = Claimer { core: &core };
            loop {
                match claimer.verify(&hold).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(Ended::Fenced { terminal })) => {
                        execution.stop(StopReason::Fenced { terminal });
                        return Err(OperationError::Cancelled);
                    }
                    Ok(Some(Ended::Accepted)) | Err(_) if execution.cancel.is_cancelled() => {
                        return Err(OperationError::Cancelled);
                    }
                    Ok(Some(Ended::Accepted)) | Err(_) => tokio::time::sleep(OWNER_RETRY).await,
                }
            }
        })
    })
}
