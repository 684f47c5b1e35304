//! Who this program is to NATS.
//!
//! The problem: credentials change while a program runs. A JWT expires and is renewed, a password is
//! rotated. Credentials that are read once work until the next reconnect, and then never again.
//!
//! How it is solved: [`Credentials`] holds the paths. [`Credentials::answer`] reads the files at each
//! connect, also at each reconnect. [`Credentials::from_options`] reads them once at the start, so
//! that a wrong path or an empty file is an error there and not a connection that never comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::{Auth, AuthError, ServerAddr};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;

use super::settings_error::SettingsError;
use crate::secret_file;
use crate::settings::NatsOptions;

/// The only kind of credentials that is set.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    /// None: the server must let everybody in, or know the client by its certificate.
    None,
    /// A `.creds` file: a JWT and the seed of its key.
    Jwt { file: PathBuf, expired: Expiry },
    /// A file with the seed of an nkey.
    Nkey(PathBuf),
    /// User and password.
    User(String, Secret),
    /// A token.
    Token(Secret),
}

/// A password or token. `Debug` does not show it.
#[derive(Clone)]
pub(super) enum Secret {
    /// The secret itself.
    Value(String),
    /// The file that holds it.
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("***"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// When the JWT that was sent last expires, in Unix seconds; 0 when it does not.
#[derive(Debug, Clone, Default)]
pub(super) struct Expiry(Arc<AtomicI64>);

impl Credentials {
    /// The credentials that the settings name, and the server addresses without any.
    ///
    /// # Errors
    /// When several kinds are set, half of a pair is missing, or a file cannot be used.
    pub(super) fn from_options(
        options: &NatsOptions,
        addresses: &[ServerAddr],
    ) -> Result<Self, SettingsError> {
        let password = match (
            set(options.nats_password.as_ref()),
            &options.nats_password_file,
        ) {
            (Some(_), Some(_)) => {
                return Err(SettingsError::Both("NATS_PASSWORD", "NATS_PASSWORD_FILE"));
            }
            (Some(value), None) => Some(Secret::Value(value)),
            (None, Some(path)) => Some(Secret::File(path.clone())),
            (None, None) => None,
        };
        let user = match (set(options.nats_user.as_ref()), password) {
            (Some(user), Some(password)) => Some(Self::User(user, password)),
            (Some(_), None) => {
                let password = "NATS_PASSWORD or NATS_PASSWORD_FILE";
                return Err(SettingsError::Missing("NATS_USER", password));
            }
            (None, Some(Secret::Value(_))) => {
                return Err(SettingsError::Missing("NATS_PASSWORD", "NATS_USER"));
            }
            (None, Some(Secret::File(_))) => {
                return Err(SettingsError::Missing("NATS_PASSWORD_FILE", "NATS_USER"));
            }
            (None, None) => None,
        };

        let jwt = options.nats_creds.clone().map(|file| Self::Jwt {
            file,
            expired: Expiry::default(),
        });
        let nkey = options.nats_nkey.clone().map(Self::Nkey);
        let token = set(options.nats_token.as_ref()).map(|token| Self::Token(Secret::Value(token)));
        let url = in_addresses(addresses)?;

        let kinds = [
            ("NATS_CREDS", jwt),
            ("NATS_NKEY", nkey),
            ("NATS_USER", user),
            ("NATS_TOKEN", token),
            ("a user or token in NATS_URL", url),
        ];
        let mut kinds = kinds
            .into_iter()
            .filter_map(|(name, kind)| kind.map(|kind| (name, kind)));
        let credentials = match (kinds.next(), kinds.next()) {
            (Some((one, _)), Some((other, _))) => return Err(SettingsError::Both(one, other)),
            (Some((_, only)), None) => only,
            (None, _) => Self::None,
        };

        credentials.try_files()?;
        Ok(credentials)
    }

    /// Whether there are any.
    pub(super) fn are_set(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Why the JWT that was sent last is of no use, when it is not.
    pub(super) fn expired(&self) -> Option<String> {
        let Self::Jwt { file, expired } = self else {
            return None;
        };
        let at = u64::try_from(expired.0.load(Ordering::Relaxed)).ok()?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at))?;

        (at > SystemTime::UNIX_EPOCH && at < SystemTime::now()).then(|| {
            let (file, at) = (file.display(), humantime::format_rfc3339_seconds(at));
            format!("the JWT in {file} (NATS_CREDS) expired at {at}: renew the file")
        })
    }

    /// What to answer to the server's `nonce`. Reads the files again.
    pub(super) async fn answer(self, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        // Files may be on a slow disk or a network.
        let answered = tokio::task::spawn_blocking(move || self.answer_now(&nonce)).await;
        answered
            .map_err(AuthError::new)?
            .map_err(|error| AuthError::new(crate::telemetry::chain(&error)))
    }

    fn answer_now(&self, nonce: &[u8]) -> Result<Auth, SettingsError> {
        let mut auth = Auth::new();
        match self {
            Self::None => {}
            Self::Jwt { file, expired } => {
                let text = secret_file::read(file)?;
                let (jwt, pair) = parse_creds(&text).ok_or_else(|| SettingsError::NothingIn {
                    path: file.clone(),
                    what: "JWT with its seed",
                })?;

                expired
                    .0
                    .store(expiry(jwt).unwrap_or_default(), Ordering::Relaxed);
                auth.signature = Some(sign(&pair, nonce, file)?);
                auth.jwt = Some(jwt.to_owned());
            }
            Self::Nkey(file) => {
                let text = secret_file::read(file)?;
                let pair = seed(&text).ok_or_else(|| SettingsError::NothingIn {
                    path: file.clone(),
                    what: "nkey seed",
                })?;

                auth.signature = Some(sign(&pair, nonce, file)?);
                auth.nkey = Some(pair.public_key());
            }
            Self::User(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.read()?);
            }
            Self::Token(token) => auth.token = Some(token.read()?),
        }
        Ok(auth)
    }

    /// Reads the files once, and warns when others may do so, too.
    fn try_files(&self) -> Result<(), SettingsError> {
        let file = match self {
            Self::Jwt { file, .. } => Some((file, "NATS_CREDS")),
            Self::Nkey(file) => Some((file, "NATS_NKEY")),
            Self::User(_, Secret::File(file)) => Some((file, "NATS_PASSWORD_FILE")),
            _ => None,
        };
        if let Some((file, setting)) = file {
            secret_file::warn_if_open(file, setting);
        }
        self.answer_now(&[]).map(drop)
    }
}

impl Secret {
    fn read(&self) -> Result<String, SettingsError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => {
                let text = secret_file::read(path)?;
                // Editors and `echo` end the line.
                let line = text.trim_end_matches(['\r', '\n']);
                if line.is_empty() {
                    return Err(SettingsError::NothingIn {
                        path: path.clone(),
                        what: "password",
                    });
                }
                Ok(line.to_owned())
            }
        }
    }
}

/// A setting that is there and not empty. Compose files pass unset variables as empty ones.
fn set(value: Option<&String>) -> Option<String> {
    value.filter(|value| !value.is_empty()).cloned()
}

/// User and password, or a token, as `nats://user:password@host` and `nats://token@host` have them.
/// The client library ignores them.
fn in_addresses(addresses: &[ServerAddr]) -> Result<Option<Credentials>, SettingsError> {
    let mut found: Option<(String, Option<String>)> = None;
    for address in addresses {
        let Some(user) = address.username() else {
            continue;
        };
        let here = (decoded(user), address.password().map(decoded));
        if found.get_or_insert_with(|| here.clone()) != &here {
            return Err(SettingsError::DifferentInAddresses);
        }
    }

    Ok(found.map(|(user, password)| match password {
        Some(password) => Credentials::User(user, Secret::Value(password)),
        None => Credentials::Token(Secret::Value(user)),
    }))
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

fn sign(pair: &KeyPair, nonce: &[u8], file: &Path) -> Result<Vec<u8>, SettingsError> {
    pair.sign(nonce).map_err(|error| SettingsError::CannotSign {
        path: file.to_owned(),
        why: error.to_string(),
    })
}

/// JWT and key pair of a `.creds` file. Each stands in a line of its own between two lines of
/// dashes.
fn parse_creds(text: &str) -> Option<(&str, KeyPair)> {
    let jwt = text
        .lines()
        .map(str::trim)
        .skip_while(|line| !(line.starts_with("---") && line.contains("JWT")))
        .skip(1)
        .find(|line| !line.is_empty())?;
    if jwt.split('.').count() != 3 {
        return None;
    }
    Some((jwt, seed(text)?))
}

/// The key pair of the first seed in a text. A seed file may have comments, or lines of dashes
/// around the seed.
fn seed(text: &str) -> Option<KeyPair> {
    text.split_whitespace()
        .find_map(|word| KeyPair::from_seed(word).ok())
}

/// The `exp` of a JWT. The server checks it; here it only explains a refusal.
fn expiry(jwt: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("exp")?.as_i64()
}
