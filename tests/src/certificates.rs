//! A certificate authority of a test's own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::scratch::Scratch;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate and its private key, both PEM files.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// An authority that signs certificates. Its files are gone when it is dropped.
#[derive(Debug)]
pub struct Authority {
    certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    scratch: Scratch,
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn new() -> Self {
        let scratch = Scratch::new("authority");
        let certificate = scratch.join("authority.pem");
        let mut parameters = valid_for("authority", 2);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];

        let key = KeyPair::generate().expect("a key");
        let own = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(&certificate, own.pem()).expect("a file");

        Self {
            certificate,
            issuer: Issuer::new(parameters, key),
            scratch,
        }
    }

    /// Its certificate, which others must know.
    pub fn certificate(&self) -> &PathBuf {
        &self.certificate
    }

    /// A certificate for servers and clients, for one name: `DNS:localhost`, `IP:127.0.0.1`.
    ///
    /// # Panics
    /// When the name is neither, or its files cannot be written.
    pub fn issue(&self, name: &str) -> Certificate {
        self.issue_for_days(name, 1)
    }

    /// The same with another time of validity; with -1 it has expired since yesterday.
    ///
    /// # Panics
    /// When the name is neither, or its files cannot be written.
    pub fn issue_for_days(&self, name: &str, days: i32) -> Certificate {
        let label = format!("{}-{days}", name.replace([':', '.', '*'], "-"));
        let new = Certificate {
            certificate: self.scratch.join(format!("{label}.pem")),
            key: self.scratch.join(format!("{label}.key")),
        };
        let mut parameters = valid_for("test", days);
        parameters.subject_alt_names = vec![subject_name(name)];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];

        let key = KeyPair::generate().expect("a key");
        let signed = parameters.signed_by(&key, &self.issuer);
        std::fs::write(&new.certificate, signed.expect("a certificate").pem()).expect("a file");
        std::fs::write(&new.key, key.serialize_pem()).expect("a file");
        let only_owner = Permissions::from_mode(0o600);
        std::fs::set_permissions(&new.key, only_owner).expect("its owner");
        new
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// The parameters of a certificate that was valid two days ago and is until so many days from now.
fn valid_for(common_name: &str, days: i32) -> CertificateParams {
    let now = SystemTime::now();
    let distance = DAY * days.unsigned_abs();
    let end = if days < 0 {
        now - distance
    } else {
        now + distance
    };

    let mut parameters = CertificateParams::default();
    parameters.not_before = (now - DAY * 2).into();
    parameters.not_after = end.into();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    parameters
}

fn subject_name(name: &str) -> SanType {
    match name.split_once(':') {
        Some(("DNS", name)) => SanType::DnsName(name.try_into().expect("a name")),
        Some(("IP", address)) => SanType::IpAddress(address.parse().expect("an address")),
        _ => panic!("{name} is neither DNS:… nor IP:…"),
    }
}
