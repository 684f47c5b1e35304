//! Keys in the form of nkeys: reading them, and making new ones.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{SigningKey, VerifyingKey};
use nkeys::{KeyPair, KeyPairType};

use crate::secret_file::{self, SecretFileError};

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file holds no seed of a signing key.
    #[error(
        "{} holds no seed of a signing key (SV…); make one with `ktrdr-backend signing-key new`",
        path.display()
    )]
    NoSeed {
        /// Path of the file.
        path: PathBuf,
    },
    /// A text is not a public key of a signing key. It is not shown: it may be a seed.
    #[error(
        "KTRDR_VERIFY_KEYS has something that is not the public key of a signing key (V…, 56 characters)"
    )]
    NoPublicKey,
    /// There are no public keys.
    #[error("KTRDR_VERIFY_KEYS has no public key, so nothing could ever be run")]
    NoKeys,
    /// The new file cannot be written. An existing one is not replaced.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
}

/// The key of a seed file, and its public key as text. The file may have comments.
pub(super) fn signing_key(path: &Path) -> Result<(SigningKey, String), KeyError> {
    let text = secret_file::read(path)?;
    let found = text.split_whitespace().find_map(|word| {
        let pair = KeyPair::from_seed(word).ok()?;
        let (_, seed) = nkeys::decode_seed(word).ok()?;
        (pair.key_pair_type() == KeyPairType::Service)
            .then(|| (SigningKey::from_bytes(&seed), pair.public_key()))
    });
    found.ok_or_else(|| KeyError::NoSeed {
        path: path.to_owned(),
    })
}

/// A public key.
pub(super) fn public_key(text: &str) -> Result<VerifyingKey, KeyError> {
    let parse = || {
        let (prefix, bytes) = nkeys::from_public_key(text).ok()?;
        if KeyPairType::from(prefix) != KeyPairType::Service {
            return None;
        }
        VerifyingKey::from_bytes(&bytes).ok()
    };
    parse().ok_or(KeyError::NoPublicKey)
}

/// Makes a key, writes its seed into a new file that only its owner can read, and returns the public
/// key.
///
/// # Errors
/// [`KeyError::Write`], also when the file exists.
pub fn write_new_seed(path: &Path) -> Result<String, KeyError> {
    write_seed(path, &KeyPair::new_service())
}

/// The same with a key of a NATS user.
///
/// # Errors
/// [`KeyError::Write`], also when the file exists.
pub fn write_new_user_seed(path: &Path) -> Result<String, KeyError> {
    write_seed(path, &KeyPair::new_user())
}

fn write_seed(path: &Path, pair: &KeyPair) -> Result<String, KeyError> {
    let write = || {
        let seed = pair.seed().map_err(std::io::Error::other)?;
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        writeln!(file, "{seed}")?;
        file.sync_all()
    };
    write().map_err(|cause| KeyError::Write {
        path: path.to_owned(),
        cause,
    })?;
    Ok(pair.public_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_nats_users_are_refused() {
        let user = KeyPair::new_user();
        assert!(public_key(&user.public_key()).is_err());
        assert!(public_key(&KeyPair::new_service().public_key()).is_ok());
        for bad in ["", "V", &"V".repeat(56), &"ä".repeat(28)] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }
}
