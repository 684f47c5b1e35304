//! The operation id behind an `Idempotency-Key`.

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::token_name::TokenName;

use crate::error::{ApiError, ErrorCode};

/// Namespace of ids that are made from idempotency keys.
const IDEMPOTENCY: uuid::Uuid = uuid::uuid!("6f4e0c5a-5f0b-4a0e-9b8e-3d1c1b0f7a52");

/// Length of an idempotency key in bytes, at most.
const MAX_KEY: usize = 255;

/// The operation id behind an `Idempotency-Key`. The same token, key and domain give the same id at
/// every backend. Keys of different tokens never meet: one client cannot ask for the operation of
/// another by guessing its key.
///
/// # Errors
/// 400 when the key is empty, too long, or not printable ASCII.
pub fn id_from_key(
    token: Option<&TokenName>,
    domain: &str,
    key: &[u8],
) -> Result<OperationId, ApiError> {
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

    let namespace = match token {
        None => IDEMPOTENCY,
        Some(token) => uuid::Uuid::new_v5(&IDEMPOTENCY, token.as_str().as_bytes()),
    };
    let name = [domain.as_bytes(), b"\0", key].concat();
    OperationId::new(uuid::Uuid::new_v5(&namespace, &name).simple().to_string())
        .map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_always_the_same_id() {
        let id =
            |domain, key: &str| id_from_key(None, domain, key.as_bytes()).map(|id| id.to_string());
        assert_eq!(id("dummy", "k").unwrap(), id("dummy", "k").unwrap());
        assert_ne!(id("dummy", "k").unwrap(), id("training", "k").unwrap());
        for bad in ["", "ü", "\n", &"x".repeat(256)] {
            assert!(id("dummy", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_of_different_tokens_are_different_operations() {
        let (alice, bob) = (
            TokenName::new("alice").unwrap(),
            TokenName::new("bob").unwrap(),
        );
        let id = |token| id_from_key(token, "dummy", b"k").unwrap().to_string();

        assert_eq!(id(Some(&alice)), id(Some(&alice)));
        assert_ne!(id(Some(&alice)), id(Some(&bob)));
        assert_ne!(id(Some(&alice)), id(None));
    }

    /// Backends of earlier releases make the same ids: a client may repeat its request at any of
    /// them.
    #[test]
    fn without_tokens_the_ids_are_those_of_earlier_releases() {
        let id = |domain, key: &[u8]| id_from_key(None, domain, key).unwrap().to_string();

        assert_eq!(id("dummy", b"k"), "93a77ca3672d55fbb11c4bfe7603f6cd");
        assert_eq!(id("retry op-1", b"a b"), "d2ef28f8727350a689666551073d7649");
    }
}
