//! The key that this backend signs start requests with, and the keys that it trusts.

use std::time::Duration;

use ktrdr_bus::signing::{KeyError, SigningOptions, StartSigner, TrustedKeys};

/// Signing and checking, as far as the settings ask for it.
#[derive(Debug, Default)]
pub struct Signatures {
    signer: Option<StartSigner>,
    trusted: Option<TrustedKeys>,
}

impl Signatures {
    /// Reads the keys. `retention` is that of the operations stream.
    ///
    /// # Errors
    /// [`KeyError`] when one cannot be used.
    pub fn from_options(options: &SigningOptions, retention: Duration) -> Result<Self, KeyError> {
        let Some(path) = &options.signing_key else {
            return Ok(Self::default());
        };
        let signer = StartSigner::from_file(path)?;
        let key = signer.public_key();
        tracing::info!(key, "signing start requests");

        let others = options.verify.verify_keys.as_deref().unwrap_or_default();
        let trusted = TrustedKeys::with(key, others, retention)?;
        Ok(Self {
            trusted: Some(trusted),
            signer: Some(signer),
        })
    }

    /// Takes another retention: the retention in force has changed.
    pub fn set_retention(&self, retention: Duration) {
        if let Some(trusted) = &self.trusted {
            trusted.set_retention(retention);
        }
    }

    /// What signs start requests, if they are signed.
    pub fn signer(&self) -> Option<&StartSigner> {
        self.signer.as_ref()
    }

    /// The keys whose operations may be run again; `None` for all operations.
    pub fn trusted(&self) -> Option<&TrustedKeys> {
        self.trusted.as_ref()
    }
}
