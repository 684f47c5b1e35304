//! The table as part of a configuration file of nats-server.
//!
//! The problem: permissions of a user are about the subjects on which it publishes. They do not look
//! at the reply subject of a message, and the server publishes its own answers there whatever the
//! user may do. A worker that may store one message and read it back could thus make the server
//! publish anything on any subject, requests that delete streams among them. A user with
//! `allow_responses` could do the same itself: it sends itself a message with any reply subject.
//!
//! How it is solved: each role has an account of its own. The streams are in the account of backends,
//! and every other account imports what the table lists, line by line. An answer goes back into the
//! account that asked, where no other subject leads anywhere. The permissions of the users say the
//! same once more: so the server refuses everything else with a message, which programs log.
//!
//! Rejected: one account with permissions alone, for the reason above.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Action, Installation, Proof, Role, Rule, rules};

/// Longest line of subjects, in characters.
const LINE: usize = 112;

/// A request about the account itself. An account that imports it gets no JetStream interface of its
/// own, which would answer the imported requests, too.
const ACCOUNT_INFO: &str = "$JS.API.INFO";

/// Why no configuration can be printed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two users would have the same password or key.
    #[error("the users {0} and {1} have the same variable, {2}: rename one of the worker types")]
    SameVariable(String, String, String),
}

/// The block `accounts { … }` with one account and user per role, and everything refused that is not
/// in the table.
///
/// nats-server takes the passwords, or the public keys, from the environment. It does not start when a
/// variable is missing. An empty one would be a user without a password, so each variable is also
/// named as a subject that its user may not publish on: an empty subject is an error. An empty key is
/// one anyway.
///
/// # Errors
/// [`ConfigError`].
pub fn accounts(installation: &Installation, proof: Proof) -> Result<String, ConfigError> {
    check_variables(installation, proof)?;

    let mut text = "accounts {\n".to_owned();
    for role in installation.roles() {
        text += &account(installation, &role, proof);
    }
    text += "}\n";
    Ok(text)
}

fn check_variables(installation: &Installation, proof: Proof) -> Result<(), ConfigError> {
    let mut variables = BTreeMap::new();
    for role in installation.roles() {
        let variable = role.variable(proof);
        if let Some(other) = variables.insert(variable.clone(), role.user()) {
            return Err(ConfigError::SameVariable(other, role.user(), variable));
        }
    }
    Ok(())
}

/// The name of a role's account: `KTRDR`, `KTRDR_worker-training`, `KTRDR_observer`.
fn name(installation: &Installation, role: &Role) -> String {
    let own = installation.names.stream();
    match role {
        Role::Backend => own,
        Role::Worker(_) | Role::Observer => format!("{own}_{}", role.user()),
    }
}

/// What one account gives to others, or takes from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Requests, and messages that others publish.
    Service,
    /// Messages that others receive.
    Stream,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Stream => "stream",
        }
    }
}

/// A line in the imports of a role.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    kind: Kind,
    from: Role,
    subject: String,
}

/// What a role takes from the accounts of others, in the order of the table.
fn imports(installation: &Installation, role: &Role) -> Vec<Import> {
    let workers = || installation.worker_types.iter().cloned().map(Role::Worker);
    let import = |kind, from, subject: &str| Import {
        kind,
        from,
        subject: subject.to_owned(),
    };
    let is_backend = *role == Role::Backend;

    let mut found = Vec::new();
    for rule in rules(installation, role) {
        let subject = rule.subject.as_str();
        let is_asked = installation.names.is_asked_of_workers(subject);
        match rule.action {
            Action::Publish if is_asked => {
                found.extend(workers().map(|worker| import(Kind::Service, worker, subject)));
            }
            // Answers of others, the role's own inboxes, and its own services.
            _ if is_backend || is_asked || subject.starts_with("_INBOX") => {}
            Action::Publish => found.push(import(Kind::Service, Role::Backend, subject)),
            Action::Subscribe => {
                found.push(import(Kind::Stream, Role::Backend, subject));
                // What has come from one account is not passed on to a third.
                if *role == Role::Observer {
                    found.extend(workers().map(|worker| import(Kind::Stream, worker, subject)));
                }
            }
        }
    }
    if !is_backend {
        found.push(import(Kind::Service, Role::Backend, ACCOUNT_INFO));
    }
    found
}

/// What a role gives to the accounts of others: each takes a part of it. Nobody else can, because
/// accounts take only what this file says.
fn exports(installation: &Installation, role: &Role) -> BTreeSet<(Kind, String)> {
    let others = installation.roles().into_iter();
    others
        .flat_map(|other| imports(installation, &other))
        .filter(|import| import.from == *role)
        .map(|import| (import.kind, of_all_consumers(&import.subject)))
        .collect()
}

/// One line instead of hundreds for the consumers of a stream. The imports name each.
fn of_all_consumers(subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    match tokens.as_slice() {
        ["$JS", "API", "CONSUMER", "MSG", "NEXT", stream, _] => {
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*")
        }
        ["$JS", "ACK", stream, ..] => format!("$JS.ACK.{stream}.>"),
        _ => subject.to_owned(),
    }
}

fn account(installation: &Installation, role: &Role, proof: Proof) -> String {
    let mut text = format!("  \"{}\" {{\n", name(installation, role));
    if *role == Role::Backend {
        text += "    jetstream: enabled\n";
    }
    text += "    users = [\n";
    text += &user(installation, role, proof);
    text += "    ]\n";

    text += "    exports = [\n";
    for (kind, subject) in exports(installation, role) {
        let answers = if has_many_answers(&subject) {
            ", response_type: stream"
        } else {
            ""
        };
        let kind = kind.as_str();
        let _ = writeln!(text, "      {{ {kind}: \"{subject}\"{answers} }}");
    }
    text += "    ]\n    imports = [\n";
    for import in imports(installation, role) {
        let (kind, from) = (import.kind.as_str(), name(installation, &import.from));
        let _ = writeln!(
            text,
            "      {{ {kind}: {{ account: \"{from}\", subject: \"{}\" }} }}",
            import.subject
        );
    }
    text += "    ]\n  }\n";
    text
}

/// Whether one request may have several answers.
fn has_many_answers(subject: &str) -> bool {
    subject.starts_with("$JS.API.CONSUMER.MSG.NEXT.") || subject.starts_with("$SRV.")
}

/// The subjects in quotes, several in a line when they are short.
fn lines(rules: &[&Rule]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for rule in rules {
        let subject = format!("\"{}\"", rule.subject);
        match lines.last_mut() {
            Some(line) if line.len() + subject.len() < LINE => {
                line.push_str(", ");
                line.push_str(&subject);
            }
            _ => lines.push(subject),
        }
    }
    lines
}

fn user(installation: &Installation, role: &Role, proof: Proof) -> String {
    let (user, variable) = (role.user(), role.variable(proof));
    let rules = rules(installation, role);

    let who = match proof {
        Proof::Password => format!("user: \"{user}\", password: ${variable}"),
        Proof::Nkey => format!("nkey: ${variable}"),
    };
    let mut text = format!("      {{\n        {who}\n        permissions: {{\n");
    for action in [Action::Publish, Action::Subscribe] {
        let _ = writeln!(text, "          {action}: {{\n            allow: [");
        let of_action: Vec<&Rule> = rules.iter().filter(|rule| rule.action == action).collect();
        for same_reason in of_action.chunk_by(|a, b| a.why == b.why) {
            let _ = writeln!(text, "              # {}", same_reason[0].why);
            for line in lines(same_reason) {
                let _ = writeln!(text, "              {line}");
            }
        }
        text += "            ]\n";
        if action == Action::Publish && proof == Proof::Password {
            // See the comment of `accounts`.
            let _ = writeln!(text, "            deny: [${variable}]");
        }
        text += "          }\n";
    }
    if matches!(role, Role::Worker(_)) {
        text += "          # Answers to requests: the NATS service of each worker.\n";
        text += "          allow_responses: { max: 1, expires: \"1m\" }\n";
    }
    text += "        }\n      }\n";
    text
}
