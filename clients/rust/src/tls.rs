//! TLS: whose certificates a client believes.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::Error;
use crate::client::SILENCE;

/// An HTTP client that believes the authorities of this machine.
pub(crate) fn with_authorities_of_the_machine() -> Result<reqwest::Client, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    client(roots)
}

/// An HTTP client for plain HTTP. Built with TLS, `reqwest` makes none without a TLS library, and panics
/// when the program has not installed one.
pub(crate) fn without_authorities() -> Result<reqwest::Client, Error> {
    client(RootCertStore::empty())
}

/// An HTTP client that believes only the authorities in this PEM text.
pub(crate) fn with_authority(pem: &[u8]) -> Result<reqwest::Client, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::InvalidAuthority(error.to_string());

    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| invalid(&error))?;
        roots.add(certificate).map_err(|error| invalid(&error))?;
    }
    if roots.is_empty() {
        return Err(invalid(&"it has no certificate (PEM)"));
    }
    client(roots)
}

fn client(roots: RootCertStore) -> Result<reqwest::Client, Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();

    reqwest::Client::builder()
        .read_timeout(SILENCE)
        .tls_backend_preconfigured(config)
        .build()
        .map_err(|error| Error::Tls(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bad in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let refused = with_authority(bad.as_bytes());

            assert!(matches!(refused, Err(Error::InvalidAuthority(_))), "{bad}");
        }
    }
}
