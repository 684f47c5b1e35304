//! A client that speaks TLS, and plain HTTP inside of it. It can do what a good client does not.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use crate::wait::LIMIT;

/// What a client offers in the handshake.
#[derive(Clone)]
pub struct TlsClient(ClientConfig);

impl TlsClient {
    /// Trusts only this authority.
    ///
    /// # Panics
    /// When the file has no certificate.
    pub fn trusting(authority: &Path) -> Self {
        Self::with_versions(authority, &[&version::TLS13, &version::TLS12])
    }

    /// The same with these versions of TLS alone.
    ///
    /// # Panics
    /// When the file has no certificate.
    pub fn with_versions(authority: &Path, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(authority).expect("a certificate");
        roots.add(certificate).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that exist")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(config)
    }

    /// Offers these protocols inside of TLS.
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
        self
    }

    /// Connects to `127.0.0.1:port`, and expects a certificate for that address.
    ///
    /// # Errors
    /// When the connection or the handshake fails.
    pub async fn connect(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = address.split(':').next().unwrap_or(address).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(self.0.clone()));
        let work = async {
            connector
                .connect(name, TcpStream::connect(address).await?)
                .await
        };
        timeout(LIMIT, work).await?
    }

    /// The certificate that the server shows to a new connection.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn certificate(&self, address: &str) -> io::Result<Vec<u8>> {
        let stream = self.connect(address).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let own = chain.and_then(|chain| chain.first());
        Ok(own.map(|own| own.to_vec()).unwrap_or_default())
    }

    /// Sends a request with these further header lines, and returns the whole answer as text.
    ///
    /// # Errors
    /// When there is no connection, or no answer.
    pub async fn ask(
        &self,
        address: &str,
        line: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<String> {
        let mut stream = self.connect(address).await?;
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        let work = async {
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_end(&mut answer).await
        };
        timeout(LIMIT, work).await??;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The whole answer to `GET path`, as text.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn get(&self, address: &str, path: &str) -> io::Result<String> {
        self.ask(address, &format!("GET {path}"), &[], "").await
    }
}
