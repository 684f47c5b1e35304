//! A certificate with its key, ready for connections.

use std::fmt;
use std::sync::Arc;

use ktrdr_bus::secret_file;
use ktrdr_protocol::time::Timestamp;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::TlsError;
use super::files::Files;

/// The only protocol inside of TLS. A client that offers others alone is refused in the handshake.
const HTTP1: &[u8] = b"http/1.1";

/// A certificate with its key.
pub(super) struct Pair {
    pub(super) acceptor: TlsAcceptor,
    /// When the certificate expires; `None` when it cannot be read.
    pub(super) expires_at: Option<Timestamp>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Pair {
    /// Reads both files, and checks that they belong together.
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        let cert = secret_file::read(&files.cert)?;
        let key = secret_file::read(&files.key)?;
        let missing = |path: &std::path::Path, what| TlsError::Missing {
            path: path.display().to_string(),
            what,
        };

        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| missing(&files.cert, "certificate in PEM form"))?;
        let expires_at = match chain.first() {
            Some(own) => expiry(own),
            None => return Err(missing(&files.cert, "certificate in PEM form")),
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
            missing(
                &files.key,
                "private key in PEM form; an encrypted one cannot be used",
            )
        })?;

        let config = config(chain, key).map_err(|source| TlsError::Pair {
            cert: files.cert.display().to_string(),
            key: files.key.display().to_string(),
            source,
        })?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            expires_at,
        })
    }
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    // Named, because a program with a worker in it may bring a second library for cryptography.
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(config)
}

/// When a certificate expires.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let since_1970 = certificate
        .tbs_certificate
        .validity
        .not_after
        .to_unix_duration();
    let millis = i64::try_from(since_1970.as_millis()).ok()?;
    Some(Timestamp::from_millis(millis))
}
