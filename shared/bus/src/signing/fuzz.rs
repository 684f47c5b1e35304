//! Attacks on the headers that carry the signature of a start request, and on lists of keys.

use std::time::Duration;

use async_nats::HeaderMap;
use ktrdr_fuzz::Attack;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::signed_start::{KEY, SIGNATURE, TIME};
use ktrdr_protocol::time::Timestamp;
use nkeys::KeyPair;

use super::*;

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const SUBJECT: &str = "a.start.dummy.any";

fn signer() -> StartSigner {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("seed");
    write_new_seed(&path).expect("a seed");
    StartSigner::from_file(&path).expect("a signer")
}

/// Damages one header at a time. Only the three that belong to the message are believed.
#[test]
fn signature_headers() {
    let signer = signer();
    let keys = TrustedKeys::with(signer.public_key(), "", WEEK).expect("a key");
    let (id, body) = (OperationId::new("op-1").expect("an id"), b"{}");
    let now = Timestamp::now();
    let own: Vec<(String, String)> = signer
        .headers(SUBJECT, &id, body, now)
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();

    let seeds = own.iter().map(|(_, value)| value.clone());
    Attack::on("signature headers").with(seeds).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let Ok(value) = text.parse::<async_nats::HeaderValue>() else {
            return;
        };
        for damaged in [SIGNATURE, KEY, TIME] {
            let mut headers = HeaderMap::new();
            for (name, value) in &own {
                headers.insert(name.as_str(), value.as_str());
            }
            headers.insert(damaged, value.clone());
            let is_own = own.iter().any(|(name, own)| {
                // A number may be written with zeros in front.
                let same_time = || value.as_str().parse::<i64>() == own.parse();
                name == damaged && (own == value.as_str() || (damaged == TIME && same_time()))
            });

            let checked = keys.check(Received {
                subject: SUBJECT,
                operation_id: &id,
                body,
                headers: Some(&headers),
                stored_at: now,
            });

            assert_eq!(checked.is_ok(), is_own, "{damaged}: {text:?}: {checked:?}");
        }
    });
}

#[test]
fn lists_of_keys() {
    let (one, two) = (KeyPair::new_service(), KeyPair::new_service());
    let seeds = [
        one.public_key(),
        format!("{},{}", one.public_key(), two.public_key()),
    ];
    Attack::on("lists of keys").with(seeds).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        // A text that is no list of keys is taken for the path of a file.
        if let Ok(keys) = TrustedKeys::from_setting(text, WEEK) {
            assert!(!keys.names().is_empty());
        }
    });
}
