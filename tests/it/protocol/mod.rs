//! The AsyncAPI document against the messages of a running system: every message belongs to one channel
//! and matches one of its messages, and every message of every channel is seen.
//!
//! | module | holds |
//! |---|---|
//! | [`document`] | the document: channels, and which message something is |
//! | [`recorder`] | everything that is published |
//! | [`workload`] | what uses all of it |

mod document;
mod recorder;
mod workload;

use std::collections::BTreeMap;

use ktrdr_bus::permissions::{Action, Role, rules};
use ktrdr_protocol::id::WorkerType;
use ktrdr_tests::secure::installation;
use ktrdr_tests::{LIMIT, Scratch, wait_for};

use self::document::Document;
use self::recorder::Recorded;
use self::workload::{NO_QUESTION, System};

/// Messages that this test need not see, as channel, message and reason.
const MAY_BE_MISSING: [(&str, &str, &str); 1] =
    [("events", "tailQuestion", "only when a log seems too short")];

#[tokio::test]
async fn every_message_is_in_the_document_and_every_message_of_it_is_seen() {
    let data = Scratch::new("protocol");
    let mut system = System::start(&data).await;

    system.use_everything().await;

    // What was published last may not have been heard yet.
    let document = Document::read();
    wait_for("every message", LIMIT, async || {
        let mut recorded = system.recorder.messages();
        recorded.extend(system.rings().await);
        recorded.retain(|message| *message.payload != *NO_QUESTION);
        missing_of(&document, &recorded)
    })
    .await;
}

/// Whether every message of the document was seen.
///
/// # Panics
/// When one was seen that the document does not describe.
fn missing_of(document: &Document, recorded: &[Recorded]) -> Result<(), String> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut unknown: BTreeMap<String, &Recorded> = BTreeMap::new();
    for message in recorded {
        match document.find(message) {
            Ok(found) => *seen.entry(found).or_default() += 1,
            Err(why) => drop(unknown.insert(why, message)),
        }
    }

    assert!(
        unknown.is_empty(),
        "messages that docs/asyncapi.json does not describe: {unknown:#?}"
    );
    let all = document.channels.iter().flat_map(|channel| {
        let names = channel.messages.iter();
        names.map(|message| (channel.id.as_str(), message.name.as_str()))
    });
    let is_missing = |message: &(&str, &str)| {
        let mut excused = MAY_BE_MISSING.iter();
        let is_excused = excused.any(|(channel, name, _)| (*channel, *name) == *message);
        !seen.contains_key(message) && !is_excused
    };
    let missing: Vec<_> = all.filter(is_missing).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("not seen: {missing:#?}\nseen: {seen:#?}")),
    }
}

/// Whether a rule of the server allows a subject of this address.
fn allows(rule: &str, address: &str) -> bool {
    let mut address = address.split('.');
    for token in rule.split('.') {
        match (token, address.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (token, Some(other)) if token == other || other.starts_with('{') => {}
            _ => return false,
        }
    }
    address.next().is_none()
}

#[test]
fn the_writers_in_the_document_are_those_with_the_right_to_publish() {
    let installation = installation(&["dummy"]);
    let worker = Role::Worker(WorkerType::new("dummy").unwrap());
    let table = [("backend", Role::Backend), ("worker", worker)]
        .map(|(name, role)| (name, rules(&installation, &role)));

    for channel in Document::read().channels {
        let Some(address) = &channel.address else {
            continue;
        };
        // Workers of version 0.1.0 alone may need it: users of the server have no right to it.
        if channel.id == "checkpointsOf010" {
            continue;
        }
        let address = address.replace("{worker_type}", "dummy");
        for (name, rules) in &table {
            let may = rules
                .iter()
                .any(|rule| rule.action == Action::Publish && allows(&rule.subject, &address));
            let is_listed = channel.writers.iter().any(|writer| writer == name);
            assert_eq!(may, is_listed, "{}: {name}", channel.id);
        }
    }
}
