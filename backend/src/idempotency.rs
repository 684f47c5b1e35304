//! The operation id behind an `Idempotency-Key`.

use ktrdr_protocol::id::OperationId;

use crate::error::{ApiError, ErrorCode};

/// Namespace of ids that are made from idempotency keys.
const IDEMPOTENCY: uuid::Uuid = uuid::uuid!("6f4e0c5a-5f0b-4a0e-9b8e-3d1c1b0f7a52");

/// Length of an idempotency key in bytes, at most.
const MAX_KEY: usize = 255;

/// The operation id behind an `Idempotency-Key`. The same key and domain give the same id at every
/// backend.
///
/// # Errors
/// 400 when the key is empty, too long, or not printable ASCII.
pub fn id_from_key(domain: &str, key: &[u8]) -> Result<OperationId, ApiError> {
    if key.is_empty()
        || key.len() > MAX_KEY
        || !key
            .iter()
            .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    {
        let text =
            format!("The header Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters");
        return Err(ApiError::new(ErrorCode::InvalidHeader, text));
    }

    let name = [domain.as_bytes(), b"\0", key].concat();
    OperationId::new(uuid::Uuid::new_v5(&IDEMPOTENCY, &name).simple().to_string())
        .map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_always_the_same_id() {
        let id = |domain, key: &str| id_from_key(domain, key.as_bytes()).map(|id| id.to_string());
        assert_eq!(id("dummy", "k").unwrap(), id("dummy", "k").unwrap());
        assert_ne!(id("dummy", "k").unwrap(), id("training", "k").unwrap());
        for bad in ["", "ü", "\n", &"x".repeat(256)] {
            assert!(id("dummy", bad).is_err(), "{bad:?}");
        }
    }
}
