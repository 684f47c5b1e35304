//! TLS to NATS: which settings turn it on, and what they name.

use std::path::Path;

use async_nats::ServerAddr;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::settings_error::SettingsError;
use crate::secret_file;
use crate::settings::{NatsOptions, masked_urls};

/// Whether a setting turns TLS on.
///
/// # Errors
/// When a file that it names cannot be used. The library would only find out at each connect.
pub(super) fn is_on(options: &NatsOptions) -> Result<bool, SettingsError> {
    match (&options.nats_cert, &options.nats_key) {
        (Some(_), None) => return Err(SettingsError::Missing("NATS_CERT", "NATS_KEY")),
        (None, Some(_)) => return Err(SettingsError::Missing("NATS_KEY", "NATS_CERT")),
        _ => {}
    }

    for path in [&options.nats_ca, &options.nats_cert].into_iter().flatten() {
        let has_one = CertificateDer::pem_slice_iter(secret_file::read(path)?.as_bytes())
            .next()
            .is_some_and(|first| first.is_ok());
        if !has_one {
            return Err(nothing_in(path, "certificate (PEM)"));
        }
    }
    if let Some(path) = &options.nats_key {
        secret_file::warn_if_open(path, "NATS_KEY");
        PrivateKeyDer::from_pem_slice(secret_file::read(path)?.as_bytes())
            .map_err(|_| nothing_in(path, "private key (PEM)"))?;
    }

    Ok(options.nats_ca.is_some() || options.nats_cert.is_some() || options.nats_tls_first)
}

fn nothing_in(path: &Path, what: &'static str) -> SettingsError {
    SettingsError::NothingIn {
        path: path.to_owned(),
        what,
    }
}

/// Warns when credentials may go over a network that others can listen to. A server may ask for
/// TLS by itself, but whoever sits in between can remove that.
pub(super) fn warn_if_in_the_clear(addresses: &[ServerAddr], tls: bool) {
    let is_near = |host: &str| {
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    };
    for address in addresses {
        if !tls && !address.tls_required() && !is_near(address.host()) {
            tracing::warn!(
                server = %masked_urls(address.as_url_str()),
                "credentials for NATS go over the network without TLS; write tls:// in NATS_URL or set NATS_CA"
            );
        }
    }
}
