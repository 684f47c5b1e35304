use std::collections::BTreeSet;

use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::subject::SubjectNames;

use super::config::{ConfigError, accounts};
use super::{Action, Installation, Proof, Role, Rule, rules};

fn installation(prefix: &str, types: &[&str]) -> Installation {
    Installation {
        names: SubjectNames::new(prefix).unwrap(),
        worker_types: types
            .iter()
            .map(|name| WorkerType::new(*name).unwrap())
            .collect(),
        queues: ["any", "gpu"]
            .map(|name| Queue::new(name).unwrap())
            .to_vec(),
        direct_starts: true,
    }
}

/// Whether a rule covers a subject.
fn covers(rule: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in rule.split('.') {
        match (token, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

fn may(rules: &[Rule], action: Action, subject: &str) -> bool {
    rules
        .iter()
        .any(|rule| rule.action == action && covers(&rule.subject, subject))
}

#[test]
fn a_worker_may_nothing_about_other_types() {
    let installation = installation("ktrdr", &["dummy", "training"]);
    let worker = rules(
        &installation,
        &Role::Worker(WorkerType::new("dummy").unwrap()),
    );

    for subject in [
        "ktrdr.op.training.x",
        "ktrdr.start.training.any",
        "ktrdr.start.dummy.any",
        "ktrdr.cancel.training.x",
        "ktrdr.key.training.concurrency.x",
        "ktrdr.key.dummy.unique.x",
        "ktrdr.metrics.training.x",
        "ktrdr.progress.training.x",
        "ktrdr.heartbeat.training.w1",
        "$KV.KTRDR_WORKER_TYPES.training",
        "$KV.KTRDR_WORKER_TYPES.domain.training",
        "$KV.KTRDR_WORKER_TYPES.queues.dummy",
        "$KV.KTRDR_CHECKPOINTS.training.x",
        "$KV.KTRDR_CHECKPOINTS.x",
        "$O.KTRDR_RESULTS.M.x",
        "$JS.API.STREAM.INFO.KTRDR",
        "$JS.API.STREAM.MSG.GET.KTRDR",
        "$JS.API.DIRECT.GET.KTRDR",
        "$JS.API.DIRECT.GET.KTRDR.ktrdr.op.training.x",
        "$JS.API.DIRECT.GET.KTRDR.ktrdr.key.dummy.unique.x",
        "$JS.API.DIRECT.GET.KTRDR_LOGS",
        "$JS.API.DIRECT.GET.KTRDR_LOGS.ktrdr.logs.training.x",
        "$JS.API.DIRECT.GET.KTRDR.ktrdr.start.dummy.any",
        "$JS.API.CONSUMER.MSG.NEXT.KTRDR.training-any",
        "$JS.ACK.KTRDR.training-any.1.2.3.4.5",
        "$JS.API.CONSUMER.CREATE.KTRDR.dummy-any.ktrdr.start.dummy.any",
    ] {
        assert!(!may(&worker, Action::Publish, subject), "{subject}");
    }
    for subject in [
        "ktrdr.op.training.x",
        "ktrdr.start.dummy.any",
        "_INBOX.x",
        "_INBOX_backend.x",
        "_INBOX_worker-training.x",
        "$KV.KTRDR_CHECKPOINTS.dummy.x",
        "$JS.EVENT.ADVISORY.CONSUMER.CREATED.KTRDR.training-any",
    ] {
        assert!(!may(&worker, Action::Subscribe, subject), "{subject}");
    }
}

#[test]
fn no_line_is_there_twice_or_covered_by_another() {
    let installation = installation("ktrdr", &["dummy", "training"]);
    for role in installation.roles() {
        let rules = rules(&installation, &role);
        let lines: BTreeSet<_> = rules
            .iter()
            .map(|rule| (rule.action, &rule.subject))
            .collect();
        assert_eq!(lines.len(), rules.len(), "{role:?}");

        for rule in &rules {
            let covering = rules.iter().find(|other| {
                other.subject != rule.subject
                    && other.action == rule.action
                    && covers(&other.subject, &rule.subject)
            });
            assert_eq!(covering, None, "covers {}", rule.subject);
        }
    }
}

#[test]
fn every_subject_is_below_the_prefix() {
    let installation = installation("acme.prod", &["dummy"]);
    for role in installation.roles() {
        for rule in rules(&installation, &role) {
            let subject = &rule.subject;
            let is_ours = subject.starts_with("acme.prod.")
                || subject.contains("ACME_PROD")
                || subject.starts_with(&role.inbox_prefix())
                || subject.starts_with("$SRV.")
                || subject == "$JS.API.INFO"
                || subject == "$JS.FC.>";
            assert!(is_ours, "{subject}");
            assert!(!subject.contains("KTRDR") && !subject.starts_with("ktrdr"));
        }
    }
}

#[test]
fn two_types_never_share_a_password() {
    let error = accounts(&installation("ktrdr", &["a-b", "a_b"]), Proof::Password).unwrap_err();

    assert_eq!(
        error,
        ConfigError::SameVariable(
            "worker-a-b".to_owned(),
            "worker-a_b".to_owned(),
            "KTRDR_NATS_WORKER_A_B_PASSWORD".to_owned()
        )
    );
}
