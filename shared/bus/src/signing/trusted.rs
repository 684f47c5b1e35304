//! Checking the signatures of start requests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::signed_start::{KEY, SIGNATURE, TIME, is_timely, statement};
use ktrdr_protocol::time::Timestamp;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};

use super::keys::{KeyError, public_key};
use crate::file_stamp::FileStamp;
use crate::followed::Followed;
use crate::secret_file;
use crate::telemetry::chain;

/// How often the file of keys is looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

type Keys = HashMap<String, VerifyingKey>;

/// A start request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The subject on which it must have been published.
    pub subject: &'a str,
    /// The operation id in its body.
    pub operation_id: &'a OperationId,
    /// Its payload.
    pub body: &'a [u8],
    /// Its headers.
    pub headers: Option<&'a HeaderMap>,
    /// When the stream stored it.
    pub stored_at: Timestamp,
}

/// Why a start request is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no signature.
    #[error("it is not signed")]
    NotSigned,
    /// The key is not trusted. It may be a new one that this program does not know yet.
    #[error("its signature is of the key {0}, which is not in KTRDR_VERIFY_KEYS")]
    UnknownKey(String),
    /// The signature is not about this message.
    #[error("its signature is not about this message")]
    WrongSignature,
    /// It is a copy of an old message, or a clock is wrong.
    #[error(
        "it was signed at {signed_at} and stored at {stored_at}: it is a copy of an old message, or a clock is wrong"
    )]
    Time {
        /// The time that was signed.
        signed_at: Timestamp,
        /// When the stream stored it.
        stored_at: Timestamp,
    },
}

/// The public keys whose signatures count.
#[derive(Debug)]
pub struct TrustedKeys {
    /// A backend's own key.
    own: Option<(String, VerifyingKey)>,
    keys: RwLock<Arc<Keys>>,
    file: Option<KeyFile>,
    retention: RwLock<Duration>,
}

#[derive(Debug)]
struct KeyFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked_at: Instant,
    file: Followed<Option<FileStamp>>,
}

impl TrustedKeys {
    /// The keys of `KTRDR_VERIFY_KEYS`: public keys separated by commas, or the path of a file.
    /// `retention` is that of the operations stream.
    ///
    /// # Errors
    /// [`KeyError`] when there is no key, or something else than keys.
    pub fn from_setting(setting: &str, retention: Duration) -> Result<Self, KeyError> {
        let (keys, file) = match parse(setting.split(',')) {
            Ok(keys) => (keys, None),
            // What looks like keys was meant as keys.
            Err(error) if setting.contains(',') || setting.trim().len() == 56 => return Err(error),
            Err(_) => {
                let path = PathBuf::from(setting.trim());
                let file = Followed::using(FileStamp::of(&path).ok());
                let keys = read(&path)?;
                let looked_at = Instant::now();
                let seen = Mutex::new(Seen { looked_at, file });
                (keys, Some(KeyFile { path, seen }))
            }
        };
        if keys.is_empty() {
            return Err(KeyError::NoKeys);
        }
        Ok(Self {
            own: None,
            keys: RwLock::new(Arc::new(keys)),
            file,
            retention: RwLock::new(retention),
        })
    }

    /// The key `own`, and those of `others`, which may be empty.
    ///
    /// # Errors
    /// Those of [`Self::from_setting`].
    pub fn with(own: &str, others: &str, retention: Duration) -> Result<Self, KeyError> {
        let own = Some((own.to_owned(), public_key(own)?));
        if others.trim().is_empty() {
            return Ok(Self {
                own,
                keys: RwLock::default(),
                file: None,
                retention: RwLock::new(retention),
            });
        }
        Ok(Self {
            own,
            ..Self::from_setting(others, retention)?
        })
    }

    /// Takes another retention of the operations stream.
    pub fn set_retention(&self, retention: Duration) {
        *self.retention.write() = retention;
    }

    /// The public keys, as texts.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.keys.read().keys().cloned().collect();
        names.sort();
        names
    }

    /// Checks the signature. It takes about 40 µs, and as much again for each 50 KiB of the body.
    ///
    /// # Errors
    /// [`Refusal`]: it must not be run.
    pub fn check(&self, start: Received<'_>) -> Result<(), Refusal> {
        self.look_again();
        let headers = start.headers.ok_or(Refusal::NotSigned)?;
        let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let (Some(signature), Some(name), Some(time)) =
            (header(SIGNATURE), header(KEY), header(TIME))
        else {
            return Err(Refusal::NotSigned);
        };

        let Some(key) = self.find(name) else {
            let is_key = public_key(name).is_ok();
            return Err(if is_key {
                Refusal::UnknownKey(name.to_owned())
            } else {
                Refusal::WrongSignature
            });
        };
        let signed_at = time.parse().map(Timestamp::from_millis);
        let signed_at = signed_at.map_err(|_| Refusal::WrongSignature)?;
        let signature = decode(signature).ok_or(Refusal::WrongSignature)?;
        let digest = Sha256::digest(start.body).into();
        let text = statement(start.subject, start.operation_id, signed_at, &digest);
        key.verify_strict(text.as_bytes(), &signature)
            .map_err(|_| Refusal::WrongSignature)?;

        if is_timely(signed_at, start.stored_at, *self.retention.read()) {
            Ok(())
        } else {
            Err(Refusal::Time {
                signed_at,
                stored_at: start.stored_at,
            })
        }
    }

    fn find(&self, name: &str) -> Option<VerifyingKey> {
        match &self.own {
            Some((own, key)) if own == name => Some(*key),
            _ => self.keys.read().get(name).copied(),
        }
    }

    /// Reads the file again when it has changed. A file that cannot be used changes nothing.
    fn look_again(&self) {
        let Some(file) = &self.file else {
            return;
        };
        // Somebody else is looking.
        let Some(mut seen) = file.seen.try_lock() else {
            return;
        };
        if seen.looked_at.elapsed() < LOOK_INTERVAL {
            return;
        }
        seen.looked_at = Instant::now();
        let state = FileStamp::of(&file.path).ok();
        if !seen.file.must_read(&state) {
            return;
        }

        let outcome = self.read_again(&file.path);
        if let Some(error) = seen.file.note(state, outcome) {
            tracing::warn!(
                error = chain(&error),
                "the file of trusted keys cannot be used; the keys that were read before still count"
            );
        }
    }

    fn read_again(&self, path: &Path) -> Result<(), KeyError> {
        let keys = read(path)?;
        if keys.is_empty() {
            return Err(KeyError::NoKeys);
        }
        *self.keys.write() = Arc::new(keys);
        tracing::info!(path = %path.display(), keys = ?self.names(), "read the trusted keys again");
        Ok(())
    }
}

fn decode(text: &str) -> Option<Signature> {
    let bytes: [u8; 64] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(Signature::from_bytes(&bytes))
}

fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Keys, KeyError> {
    texts
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| Ok((text.to_owned(), public_key(text)?)))
        .collect()
}

/// One key a line; what follows a `#` is a comment.
fn read(path: &Path) -> Result<Keys, KeyError> {
    let text = secret_file::read(path)?;
    parse(
        text.lines()
            .map(|line| line.split('#').next().unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;

    use super::super::{StartSigner, write_new_seed};
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    struct Message {
        subject: &'static str,
        id: OperationId,
        body: Vec<u8>,
        headers: HeaderMap,
        stored_at: Timestamp,
    }

    impl Message {
        fn signed_by(signer: &StartSigner) -> Self {
            let (subject, body) = ("a.start.dummy.any", br#"{"a":1}"#.to_vec());
            let id = OperationId::new("op-1").unwrap();
            let now = Timestamp::now();
            let headers = signer.headers(subject, &id, &body, now);
            Self {
                subject,
                id,
                body,
                headers: headers
                    .into_iter()
                    .fold(HeaderMap::new(), |mut all, (name, value)| {
                        all.insert(name, value);
                        all
                    }),
                stored_at: now,
            }
        }

        fn checked_by(&self, keys: &TrustedKeys) -> Result<(), Refusal> {
            keys.check(Received {
                subject: self.subject,
                operation_id: &self.id,
                body: &self.body,
                headers: Some(&self.headers),
                stored_at: self.stored_at,
            })
        }
    }

    fn signer() -> StartSigner {
        let name = format!("ktrdr-signer-{}", KeyPair::new_user().public_key());
        let path = std::env::temp_dir().join(name);
        let public = write_new_seed(&path).unwrap();
        assert!(matches!(write_new_seed(&path), Err(KeyError::Write { .. })));
        let signer = StartSigner::from_file(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(signer.public_key(), public);
        signer
    }

    #[test]
    fn a_message_is_believed_only_as_it_was_signed() {
        let signer = signer();
        let keys = TrustedKeys::with(signer.public_key(), "", WEEK).unwrap();
        let message = || Message::signed_by(&signer);
        let refusal = |change: fn(&mut Message)| {
            let mut changed = message();
            change(&mut changed);
            changed.checked_by(&keys).unwrap_err()
        };

        assert_eq!(message().checked_by(&keys), Ok(()));

        assert_eq!(
            refusal(|it| it.headers = HeaderMap::new()),
            Refusal::NotSigned
        );
        let changes: [fn(&mut Message); 6] = [
            |it| it.body.push(b' '),
            |it| it.subject = "a.start.dummy.gpu",
            |it| it.id = OperationId::new("op-2").unwrap(),
            |it| it.headers.insert(TIME, "1"),
            |it| it.headers.insert(TIME, "x"),
            |it| it.headers.insert(SIGNATURE, "AAAA"),
        ];
        for change in changes {
            assert_eq!(refusal(change), Refusal::WrongSignature);
        }
        let late = refusal(|it| it.stored_at = it.stored_at.plus(WEEK));
        assert!(matches!(late, Refusal::Time { .. }));

        let other = self::signer();
        let other = TrustedKeys::with(other.public_key(), "", WEEK).unwrap();
        assert_eq!(
            message().checked_by(&other),
            Err(Refusal::UnknownKey(signer.public_key().to_owned()))
        );
    }

    #[test]
    fn a_setting_is_keys_or_a_file() {
        let (one, two) = (KeyPair::new_service(), KeyPair::new_service());
        let (one, two) = (one.public_key(), two.public_key());

        let both = TrustedKeys::from_setting(&format!(" {one}, {two} "), WEEK).unwrap();
        assert_eq!(both.names().len(), 2);

        for bad in [
            KeyPair::new_user().public_key(),
            format!("{one},x"),
            "/nowhere/keys".to_owned(),
            ",".to_owned(),
            String::new(),
        ] {
            assert!(TrustedKeys::from_setting(&bad, WEEK).is_err(), "{bad}");
        }
    }
}
