//! Passwords and tokens in the environment stay there: no help text and no log line shows them.

use std::process::Command;

use clap::CommandFactory;
use ktrdr_tests::process::program;
use ktrdr_tests::{BackendProcess, LIMIT, NatsServer, Settings, WorkerProcess, wait_for};

/// A word that only the secrets hold.
const SECRET: &str = "hunter2";

/// Variables with a secret, as somebody might set them.
const VARIABLES: [(&str, &str); 4] = [
    ("NATS_URL", "nats://bob:hunter2@127.0.0.1:1"),
    ("NATS_USER", "bob"),
    ("NATS_PASSWORD", "hunter2"),
    ("NATS_TOKEN", "hunter2"),
];

#[test]
fn help_shows_no_secret_of_the_environment() {
    for (name, before) in [
        ("ktrdr-backend", &[][..]),
        ("ktrdr-worker", &[]),
        ("ktrdr-bench", &[]),
        ("ktrdr-chaos", &[]),
        ("ktrdr-chaos", &["stamp-worker"]),
    ] {
        let output = Command::new(program(name))
            .args(before)
            .arg("--help")
            .envs(VARIABLES)
            .output()
            .unwrap();
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8_lossy(&shown);

        assert!(shown.contains("--help"), "{name} {before:?}: {shown}");
        assert!(!shown.contains(SECRET), "{name} {before:?}: {shown}");
    }
}

#[test]
fn help_says_how_to_pass_a_secret() {
    for command in [
        ktrdr_backend::Config::command(),
        ktrdr_worker::Config::command(),
    ] {
        let hidden: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.is_hide_env_values_set())
            .collect();

        assert!(hidden.len() >= 3, "{hidden:?}");
        for argument in hidden {
            let help = argument.get_help().unwrap().to_string();
            assert!(help.contains("variable, not the flag"), "{help}");
        }
    }
}

#[tokio::test]
async fn the_log_shows_no_secret_also_when_the_addresses_are_wrong() {
    let nats = NatsServer::start().await;
    let port = nats.port();

    for (url, shown) in [
        (
            format!("nats://bob:hunter2@127.0.0.1:{port}"),
            format!("nats://***@127.0.0.1:{port}"),
        ),
        (
            "nats://hunter2@127.0.0.1:1".to_owned(),
            "nats://***@127.0.0.1:1".to_owned(),
        ),
        (
            "nats://bob:x,hunter2@127.0.0.1:1".to_owned(),
            "nats://***".to_owned(),
        ),
        (
            "nats://127.0.0.1:1?password=hunter2".to_owned(),
            "nats://127.0.0.1:1?***".to_owned(),
        ),
        ("nats://bob:hunter2".to_owned(), "nats://***".to_owned()),
        ("nats://bob:hunter2@[::".to_owned(), "nats://***".to_owned()),
    ] {
        let mut settings = Settings::fast(url.clone());
        settings.log = "trace".to_owned();
        let mut backend = BackendProcess::launch(&settings);
        let mut worker = WorkerProcess::launch(&settings, "dummy", "w1");

        for process in [&mut backend.process, &mut worker.process] {
            wait_for("the address in the log", LIMIT, async || {
                let log = process.log();
                if log.contains(&shown) {
                    Ok(())
                } else {
                    Err(log)
                }
            })
            .await;
            // Whatever follows: it serves and tries to connect, or it ends.
            wait_for("what follows", LIMIT, async || {
                let log = process.log();
                if log.contains("limits of open files") || process.exited().is_some() {
                    Ok(())
                } else {
                    Err(log)
                }
            })
            .await;
            let log = process.log();
            assert!(!log.contains(SECRET), "{url}: {log}");
        }
    }
}
