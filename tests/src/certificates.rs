//! A certificate authority of a test's own. It uses the `openssl` program.

use std::path::PathBuf;
use std::process::Command;

use crate::scratch::Scratch;

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
    own: Certificate,
    scratch: Scratch,
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// When there is no `openssl`.
    pub fn new() -> Self {
        let scratch = Scratch::new("authority");
        let own = Certificate {
            certificate: scratch.join("authority.pem"),
            key: scratch.join("authority.key"),
        };

        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority \
             -addext keyUsage=critical,keyCertSign -keyout {} -out {}",
            own.key.display(),
            own.certificate.display()
        ));
        Self { own, scratch }
    }

    /// Its certificate, which others must know.
    pub fn certificate(&self) -> &PathBuf {
        &self.own.certificate
    }

    /// A certificate for servers and clients, for one name: `DNS:localhost`, `IP:127.0.0.1`.
    ///
    /// # Panics
    /// When there is no `openssl`.
    pub fn issue(&self, name: &str) -> Certificate {
        self.issue_for_days(name, 1)
    }

    /// The same with another time of validity; with -1 it has expired since yesterday.
    ///
    /// # Panics
    /// When there is no `openssl`.
    pub fn issue_for_days(&self, name: &str, days: i32) -> Certificate {
        let label = format!("{}-{days}", name.replace([':', '.', '*'], "-"));
        let new = Certificate {
            certificate: self.scratch.join(format!("{label}.pem")),
            key: self.scratch.join(format!("{label}.key")),
        };
        let request = self.scratch.join(format!("{label}.csr"));
        let extensions = self.scratch.join(format!("{label}.ext"));
        std::fs::write(
            &extensions,
            format!("subjectAltName={name}\nextendedKeyUsage=serverAuth,clientAuth\n"),
        )
        .expect("a file of extensions");

        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test -keyout {} -out {}",
            new.key.display(),
            request.display()
        ));
        openssl(&format!(
            "x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days {days} -extfile {} -out {}",
            request.display(),
            self.own.certificate.display(),
            self.own.key.display(),
            extensions.display(),
            new.certificate.display()
        ));
        new
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn openssl(arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .output()
        .expect("the program openssl");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
