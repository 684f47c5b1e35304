//! TLS of a REST interface: certificate and key from files, which are read again when they change.
//!
//! The problem: without TLS, everybody on the way reads tokens and results. With it, a certificate
//! must be renewed every few weeks, and a renewal must neither interrupt anything nor need a
//! restart. Files are renewed one after the other, so for a moment they do not fit together.
//!
//! How it is solved: each new connection takes the pair of certificate and key that is current
//! then. A task looks at the files every two seconds, reads both when one has changed, and puts the
//! new pair into use only when it works. Otherwise the old one stays, and the log says why when the
//! files are still the same at the next look.

mod files;
mod pair;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use ktrdr_bus::followed::Followed;
use ktrdr_bus::secret_file::{self, SecretFileError};
use ktrdr_protocol::time::Timestamp;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, rustls};

use self::files::{Files, Stamp};
use self::pair::Pair;
use crate::metrics::register_gauge;

/// The variable of the certificate.
const CERT: &str = "KTRDR_TLS_CERT";

/// The variable of the key.
const KEY: &str = "KTRDR_TLS_KEY";

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// From how long before its end a certificate is warned about.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How often the warning is repeated.
const WARNING: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a REST interface speaks TLS.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsOptions {
    /// Certificate of the REST interface and those that vouch for it: a PEM file, its own
    /// certificate first. With it and a key, the interface speaks only HTTPS. The file is read
    /// again when it changes.
    #[arg(long, env = "KTRDR_TLS_CERT", value_parser = path())]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate: a PEM file that is not encrypted. Nobody else should be able
    /// to read it.
    #[arg(long, env = "KTRDR_TLS_KEY", value_parser = path())]
    pub tls_key: Option<PathBuf>,
}

/// A path that may be empty: a variable that is set to nothing counts as not set.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|text: OsString| PathBuf::from(text))
}

/// How the URLs of a REST interface begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The scheme of a URL; [`Scheme::Http`] when it has none of the two.
    pub fn of_url(url: &str) -> Self {
        match url.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Self::Https,
            _ => Self::Http,
        }
    }

    /// As it is written in a URL, in front of `://`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of the two settings is there.
    #[error("{set} is set and {missing} is not; set both, or none for plain HTTP")]
    Half {
        /// The variable that is set.
        set: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] SecretFileError),
    /// A file is not what its setting says.
    #[error("{path} has no {what}")]
    Missing {
        /// Path of the file.
        path: String,
        /// What should be in it.
        what: &'static str,
    },
    /// The two do not work together, or the library cannot use them.
    #[error("the certificate in {cert} and the key in {key} cannot be used together")]
    Pair {
        /// Path of the certificate.
        cert: String,
        /// Path of the key.
        key: String,
        /// The error of the TLS library.
        #[source]
        source: rustls::Error,
    },
    /// A new certificate is worse than the one in use.
    #[error("the new certificate in {path} has expired at {at}")]
    Expired {
        /// Path of the file.
        path: String,
        /// When.
        at: Timestamp,
    },
}

impl TlsOptions {
    /// How the URLs of the interface begin.
    pub fn scheme(&self) -> Scheme {
        match self.files() {
            Ok(Some(_)) => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// Reads the files. `None` when none is configured.
    ///
    /// # Errors
    /// [`TlsError`] when only one is configured or they cannot be used.
    pub fn load(&self) -> Result<Option<Tls>, TlsError> {
        let Some(files) = self.files()? else {
            return Ok(None);
        };
        let stamp = files.stamp();
        let pair = Pair::read(&files)?;

        let tls = Tls(Arc::new(Shared {
            files,
            first: stamp,
            pair: RwLock::new(pair),
        }));
        tls.warn();
        Ok(Some(tls))
    }

    fn files(&self) -> Result<Option<Files>, TlsError> {
        let set = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let half = |set, missing| Err(TlsError::Half { set, missing });
        match (set(&self.tls_cert), set(&self.tls_key)) {
            (Some(cert), Some(key)) => Ok(Some(Files { cert, key })),
            (None, None) => Ok(None),
            (Some(_), None) => half(CERT, KEY),
            (None, Some(_)) => half(KEY, CERT),
        }
    }
}

/// The TLS of one REST interface. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    /// The state of the files from which the first pair was read.
    first: Stamp,
    pair: RwLock<Pair>,
}

impl Tls {
    /// What a new connection uses.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.pair.read().acceptor.clone()
    }

    /// When the certificate in use expires; `None` when it does not say so in a readable way.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.pair.read().expires_at
    }

    /// Adds the metrics to the page.
    pub fn register(&self, page: &mut Registry) {
        if let Some(at) = self.expires_at() {
            register_gauge(
                page,
                "ktrdr_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of the REST interface expires, in seconds since 1970.",
                at.as_millis() as f64 / 1000.0,
            );
        }
    }

    /// Keeps the pair in use current. Never ends.
    pub(crate) async fn follow_files(&self) {
        self.follow_files_every(LOOK).await;
    }

    async fn follow_files_every(&self, interval: Duration) {
        let mut files = Followed::using(self.0.first.clone());
        let mut next_warning = Instant::now() + WARNING;

        loop {
            tokio::time::sleep(interval).await;
            if Instant::now() >= next_warning {
                next_warning += WARNING;
                self.warn_of_expiry();
            }

            let Some(stamp) = self.in_background(|tls| tls.0.files.stamp()).await else {
                return;
            };
            if !files.must_read(&stamp) {
                continue;
            }
            let Some(outcome) = self.in_background(Self::read_again).await else {
                return;
            };
            if outcome.is_ok() {
                let expires_at = self.expires_at().map(tracing::field::display);
                tracing::info!(expires_at, "a new TLS certificate is in use");
                self.warn();
            }
            // A renewal writes one file after the other: only what stays is a fault.
            if let Some(error) = files.note(stamp, outcome) {
                let error = ktrdr_bus::telemetry::chain(&error);
                tracing::warn!(
                    error,
                    "the new TLS certificate cannot be used; the old one stays"
                );
            }
        }
    }

    /// Runs `work` where it may wait for a disk. `None` when the runtime is ending.
    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.ok()
    }

    /// Puts the pair that is in the files into use.
    fn read_again(&self) -> Result<(), TlsError> {
        let new = Pair::read(&self.0.files)?;
        let now = Timestamp::now();
        let has_expired = |at: Option<Timestamp>| at.filter(|at| *at <= now);
        if let Some(at) = has_expired(new.expires_at)
            && has_expired(self.expires_at()).is_none()
        {
            let path = self.0.files.cert.display().to_string();
            return Err(TlsError::Expired { path, at });
        }

        *self.0.pair.write() = new;
        Ok(())
    }

    /// Says what is wrong with a pair that works.
    fn warn(&self) {
        self.warn_of_expiry();
        secret_file::warn_if_open(&self.0.files.key, KEY);
    }

    fn warn_of_expiry(&self) {
        let path = self.0.files.cert.display();
        let Some(at) = self.expires_at() else {
            tracing::warn!(%path, "the TLS certificate does not say when it expires");
            return;
        };
        let now = Timestamp::now();
        if at <= now {
            tracing::warn!(%path, expired_at = %at, "the TLS certificate has expired: clients refuse it; renew it");
        } else if at.minus(SOON) <= now {
            tracing::warn!(%path, expires_at = %at, "the TLS certificate expires soon; renew it");
        }
    }
}
