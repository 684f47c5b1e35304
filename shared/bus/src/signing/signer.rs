//! Signing start requests.

use std::path::Path;

use async_nats::HeaderName;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::signed_start::{KEY, SIGNATURE, TIME, statement};
use ktrdr_protocol::time::Timestamp;
use sha2::{Digest, Sha256};

use super::keys::{self, KeyError};
use crate::secret_file;

/// Signs start requests with one key.
pub struct StartSigner {
    key: SigningKey,
    public: String,
}

impl StartSigner {
    /// A signer with the seed in a file. Warns when others may read the file.
    ///
    /// # Errors
    /// [`KeyError`] when it holds none.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let (key, public) = keys::signing_key(path)?;
        secret_file::warn_if_open(path, "KTRDR_SIGNING_KEY");
        Ok(Self { key, public })
    }

    /// The public key, which workers must know.
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// The headers that make `body` a signed start request on `subject`.
    pub(crate) fn headers(
        &self,
        subject: &str,
        operation_id: &OperationId,
        body: &[u8],
        at: Timestamp,
    ) -> [(HeaderName, String); 3] {
        let digest = Sha256::digest(body).into();
        let text = statement(subject, operation_id, at, &digest);
        let signature = self.key.sign(text.as_bytes()).to_bytes();

        [
            (
                HeaderName::from_static(SIGNATURE),
                URL_SAFE_NO_PAD.encode(signature),
            ),
            (HeaderName::from_static(KEY), self.public.clone()),
            (HeaderName::from_static(TIME), at.as_millis().to_string()),
        ]
    }
}

impl std::fmt::Debug for StartSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartSigner({})", self.public)
    }
}
