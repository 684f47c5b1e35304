//! A nats-server with the users and permissions of [`ktrdr_bus::permissions`].
//!
//! Programs that the test starts connect as `backend` or `worker-<type>`. The test's own connection
//! gives no user and may everything, so that a test can look at what it wants.
//!
//! With `KTRDR_TEST_SECURE=1`, all tests that need no configuration of their own run like this, and
//! fail when the server has refused anything.

use async_nats::ConnectOptions;
use ktrdr_bus::permissions::config::accounts;
use ktrdr_bus::permissions::{Installation, Proof, Role};
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::queue_class;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::subject::SubjectNames;

/// The password of every user.
pub const PASSWORD: &str = "only-for-tests";

/// The worker types of the built-in engines and of the engines of tests.
pub const WORKER_TYPES: [&str; 11] = [
    "dummy",
    "data_processing",
    "backtesting",
    "training",
    "gate",
    "versioned",
    "blocking",
    "flaky",
    "limited",
    "stamp",
    "quiet",
];

/// Whether this test run is to have all tests under permissions.
pub fn is_wanted() -> bool {
    std::env::var_os("KTRDR_TEST_SECURE").is_some_and(|value| value == "1")
}

/// The table for the default prefix.
///
/// # Panics
/// When a name is invalid.
pub fn installation(worker_types: &[&str]) -> Installation {
    Installation {
        names: SubjectNames::new("ktrdr").expect("a valid prefix"),
        worker_types: worker_types
            .iter()
            .map(|name| WorkerType::new(*name).expect("a worker type"))
            .collect(),
        queues: queues(),
        direct_starts: true,
    }
}

fn queues() -> Vec<Queue> {
    let classes = queue_class::all();
    classes.iter().map(Requirements::queue).collect()
}

/// The configuration of a server with the users of an installation, and one for the test itself.
///
/// # Panics
/// When the table cannot be written.
pub fn configuration(installation: &Installation) -> String {
    let mut text = accounts(installation, Proof::Password).expect("a table");
    for role in installation.roles() {
        let variable = format!("${}", role.password_variable());
        text = text.replace(&variable, &format!("\"{PASSWORD}\""));
    }
    let admin = format!("users = [\n    {{ user: \"admin\", password: \"{PASSWORD}\" }}\n");
    text = text.replacen("users = [\n", &admin, 1);
    format!("no_auth_user: admin\n{text}")
}

/// The environment with which a program connects as `role`.
pub fn environment(role: &Role) -> [(&'static str, String); 3] {
    [
        ("NATS_USER", role.user()),
        ("NATS_PASSWORD", PASSWORD.to_owned()),
        ("NATS_INBOX_PREFIX", role.inbox_prefix()),
    ]
}

/// The lines in which a server's log says that it refused something.
pub fn violations(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains("Violation"))
        .collect()
}

/// The options to connect as a user whose programs are in hostile hands.
pub fn connect_as(role: &Role) -> ConnectOptions {
    ConnectOptions::with_user_and_password(role.user(), PASSWORD.to_owned())
        .custom_inbox_prefix(role.inbox_prefix())
        .max_reconnects(1)
}
