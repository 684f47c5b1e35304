//! What each program may do on the bus: one table, for people, for nats-server, and for the tests.
//!
//! The problem: permissions that are written by hand are wrong soon. A program that needs one more
//! subject is locked out, and a subject that is no longer needed stays open.
//!
//! How it is solved: [`rules`] is the only list. `ktrdr-backend nats-config` prints it as a
//! configuration of nats-server ([`config`]), `docs/security.md` shows it as a table, and
//! `tests/it/permissions.rs` runs everything that the programs do under it. The test fails when the
//! server refuses anything, and when a line is not used that is not marked as rare.
//!
//! There is one user for all backends, one for the workers of each type, and one for people who only
//! look, each in an account of its own. Everything that is not listed is refused.
//!
//! Rejected: users for single workers. A worker id is not known before the worker starts, and workers
//! of one type share their queue in any case.

mod backend;
pub mod config;
mod observer;
mod worker;

use std::fmt;

use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::subject::SubjectNames;

/// Whom the permissions are for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// All backends.
    Backend,
    /// The workers of one type.
    Worker(WorkerType),
    /// People and monitoring: reads everything, changes nothing.
    Observer,
}

impl Role {
    /// The name of its user: `backend`, `worker-<type>`, `observer`.
    ///
    /// ```
    /// use ktrdr_bus::permissions::Role;
    /// use ktrdr_protocol::id::WorkerType;
    ///
    /// let role = Role::Worker(WorkerType::new("training")?);
    /// assert_eq!(role.user(), "worker-training");
    /// assert_eq!(role.inbox_prefix(), "_INBOX_worker-training");
    /// assert_eq!(role.password_variable(), "KTRDR_NATS_WORKER_TRAINING_PASSWORD");
    /// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
    /// ```
    pub fn user(&self) -> String {
        match self {
            Self::Backend => "backend".to_owned(),
            Self::Worker(worker_type) => format!("worker-{worker_type}"),
            Self::Observer => "observer".to_owned(),
        }
    }

    /// The prefix of the inboxes on which only this user gets its answers; the programs read it from
    /// `NATS_INBOX_PREFIX`.
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.user())
    }

    /// The environment variable from which nats-server takes the password of the user.
    pub fn password_variable(&self) -> String {
        self.variable(Proof::Password)
    }

    /// The environment variable from which nats-server takes what it knows the user by.
    pub fn variable(&self, proof: Proof) -> String {
        let user = self.user().to_ascii_uppercase().replace('-', "_");
        let what = match proof {
            Proof::Password => "PASSWORD",
            Proof::Nkey => "NKEY",
        };
        format!("KTRDR_NATS_{user}_{what}")
    }
}

/// How a user shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By a password, which the server knows, too.
    Password,
    /// By a key, of which the server knows the public part alone.
    Nkey,
}

/// What a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// To send messages.
    Publish,
    /// To receive messages.
    Subscribe,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it allows.
    pub action: Action,
    /// On which subject, possibly with wildcards.
    pub subject: String,
    /// What the program needs it for.
    pub why: &'static str,
    /// When it is needed, if that is not in the daily course of things.
    pub rare: Option<&'static str>,
}

/// What the table is made for.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The names below the subject prefix.
    pub names: SubjectNames,
    /// The worker types; only those get a user.
    pub worker_types: Vec<WorkerType>,
    /// The queues of each worker type. A wildcard cannot stand for them, because the worker type and
    /// the queue are in one token of a consumer's subjects.
    pub queues: Vec<Queue>,
    /// Whether the workers' own REST interfaces take starts and cancels (`WORKER_HTTP=full`).
    pub direct_starts: bool,
}

impl Installation {
    /// All users, in the order in which they are printed.
    pub fn roles(&self) -> Vec<Role> {
        let workers = self.worker_types.iter().cloned().map(Role::Worker);
        std::iter::once(Role::Backend)
            .chain(workers)
            .chain(std::iter::once(Role::Observer))
            .collect()
    }
}

/// What a role may do, line by line.
///
/// ```
/// use ktrdr_bus::permissions::{Action, Installation, Role, rules};
/// use ktrdr_protocol::id::WorkerType;
/// use ktrdr_protocol::requirements::Requirements;
/// use ktrdr_protocol::subject::SubjectNames;
///
/// let dummy = WorkerType::new("dummy")?;
/// let installation = Installation {
///     names: SubjectNames::new("acme")?,
///     worker_types: vec![dummy.clone()],
///     queues: vec![Requirements::default().queue()],
///     direct_starts: false,
/// };
/// let rules = rules(&installation, &Role::Worker(dummy));
/// assert!(rules.iter().any(|rule| rule.subject == "acme.op.dummy.*"));
/// assert!(rules.iter().any(|rule| rule.action == Action::Subscribe));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rules(installation: &Installation, role: &Role) -> Vec<Rule> {
    let mut rules = match role {
        Role::Backend => backend::rules(installation),
        Role::Worker(worker_type) => worker::rules(installation, worker_type),
        Role::Observer => observer::rules(installation),
    };
    rules.push(subscribe(
        format!("{}.>", role.inbox_prefix()),
        "answers to its own requests",
    ));
    rules.sort_by_key(|rule| rule.action);
    rules
}

/// The table as Markdown, for the documentation.
pub fn markdown(rules: &[Rule]) -> String {
    let mut text = "| may | subject | for |\n|---|---|---|\n".to_owned();
    for rule in rules {
        let rare = match rule.rare {
            Some(when) => format!("; {when}"),
            None => String::new(),
        };
        text += &format!(
            "| {} | `{}` | {}{rare} |\n",
            rule.action, rule.subject, rule.why
        );
    }
    text
}

fn publish(subject: impl Into<String>, why: &'static str) -> Rule {
    Rule {
        action: Action::Publish,
        subject: subject.into(),
        why,
        rare: None,
    }
}

fn subscribe(subject: impl Into<String>, why: &'static str) -> Rule {
    Rule {
        action: Action::Subscribe,
        ..publish(subject, why)
    }
}

impl Rule {
    fn rare(self, when: &'static str) -> Self {
        Self {
            rare: Some(when),
            ..self
        }
    }
}

/// Subjects of JetStream's own interface.
fn api(rest: impl fmt::Display) -> String {
    format!("$JS.API.{rest}")
}

#[cfg(test)]
mod tests;
