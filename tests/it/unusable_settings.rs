//! Settings that cannot work: a program says which and what to do, and ends or goes on without them.

use std::process::{Command, Output};

use ktrdr_tests::process::program;
use ktrdr_tests::settings::repository;
use ktrdr_tests::{BackendProcess, LIMIT, NatsServer, Scratch, Settings, WorkerProcess, wait_for};

#[tokio::test]
async fn more_copies_than_servers_end_the_backend_with_the_cause() {
    let nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url()).with("KTRDR_STREAM_REPLICAS", "3");
    let mut backend = BackendProcess::launch(&settings);

    let status = backend.process.wait(LIMIT).await;

    assert_eq!(status.code(), Some(2), "{status}");
    let log = backend.process.log();
    assert!(log.contains("set KTRDR_STREAM_REPLICAS=1"), "{log}");
}

#[tokio::test]
async fn what_delays_a_start_stands_in_ready() {
    // An account may be given JetStream later, so the backend waits.
    let account = |jetstream| {
        format!(
            "accounts {{ APP {{ {jetstream} users: [{{user: a, password: a}}] }} }}\nno_auth_user: a\n"
        )
    };
    let mut nats = NatsServer::launch(&account(""));
    let mut backend = BackendProcess::launch(&Settings::fast(nats.listens().await));

    backend
        .api
        .wait_for_answer("/ready", "the cause", |ready| {
            ready.status == 503 && ready.text.contains("cannot provision stream KTRDR")
        })
        .await;

    nats.reconfigure(&account("jetstream: enabled,"));
    backend.ready().await;
}

#[tokio::test]
async fn a_variable_that_is_no_setting_is_named_with_what_was_meant() {
    let nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url())
        .with("KTRDR_RETENTON", "7d")
        .with("WORKER_CONCURENCY", "4")
        .with("KTRDR_API_URL", "http://backend:8000");
    let backend = BackendProcess::start(&settings).await;
    let worker = WorkerProcess::start(&settings, "dummy", "w1").await;

    for process in [&backend.process, &worker.process] {
        wait_for("the warnings", LIMIT, async || {
            let log = process.log();
            let expected = [
                "KTRDR_RETENTON is no setting and has no effect; KTRDR_RETENTION is one",
                "WORKER_CONCURENCY is no setting and has no effect; WORKER_CONCURRENCY is one",
                "KTRDR_API_URL is not used",
            ];
            if expected.iter().all(|text| log.matches(text).count() == 1) {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_certificate_authority_that_is_not_there_ends_both_programs() {
    let settings = Settings::fast("nats://127.0.0.1:1").with("NATS_CA", "/nope");
    let mut backend = BackendProcess::launch(&settings);
    let mut worker = WorkerProcess::launch(&settings, "dummy", "w1");

    for process in [&mut backend.process, &mut worker.process] {
        let status = process.wait(LIMIT).await;
        assert_eq!(status.code(), Some(2), "{status}");
        assert!(process.log().contains("/nope"), "{}", process.log());
    }
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_has_an_exit_code_of_its_own() {
    let nowhere = "nats://127.0.0.1:1";
    let of_both = [
        ("NATS_URL", "foo://x"),
        ("NATS_USER", "alone"),
        ("NATS_NKEY", "/nope"),
        ("NATS_CERT", "/nope"),
        ("KTRDR_TOKENS_FILE", "/nope"),
        ("KTRDR_TLS_CERT", "/nope"),
    ];
    let of_the_backend = [
        ("KTRDR_API_ADDR", "0.0.0.0:0"),
        ("KTRDR_SIGNING_KEY", "/nope"),
        ("KTRDR_ARCHIVE", "sqlite:/nope/archive"),
    ];
    let of_the_worker = [
        ("WORKER_HOST", "0.0.0.0"),
        ("KTRDR_OUTPUT_DIR", "../out"),
        ("KTRDR_VERIFY_KEYS", "nonsense"),
    ];

    for (name, value) in of_both.into_iter().chain(of_the_backend) {
        let settings = Settings::fast(nowhere).with(name, value);
        let mut backend = BackendProcess::launch(&settings);
        let status = backend.process.wait(LIMIT).await;
        assert_eq!(status.code(), Some(2), "{name}: {}", backend.process.log());
    }
    for (name, value) in of_both.into_iter().chain(of_the_worker) {
        let settings = Settings::fast(nowhere).with(name, value);
        let mut worker = WorkerProcess::launch(&settings, "dummy", "w1");
        let status = worker.process.wait(LIMIT).await;
        assert_eq!(status.code(), Some(2), "{name}: {}", worker.process.log());
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_with_the_cause() {
    let backend = BackendProcess::launch(&Settings::fast("nats://127.0.0.1:1"));

    wait_for("the cause", LIMIT, async || {
        let log = backend.process.log();
        let parts = [
            "127.0.0.1:1",
            "Connection refused (os error",
            "nobody listens",
        ];
        let mut lines = log.lines();
        if lines.any(|line| parts.iter().all(|part| line.contains(part))) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

fn run(arguments: &[&str], variable: (&str, &str)) -> Output {
    Command::new(program("ktrdr-backend"))
        .args(arguments)
        .env(variable.0, variable.1)
        .output()
        .unwrap()
}

#[test]
fn a_bad_setting_for_serving_does_not_stop_a_sub_command() {
    let scratch = Scratch::new("tokens");
    let file = scratch.join("tokens.toml").display().to_string();
    let bad = ("KTRDR_LEASE", "soon");
    let arguments = ["token", "new", "ci", "--scopes", "read", "--file", &file];

    let made = run(&arguments, bad);
    let served = run(&[], bad);

    assert!(made.status.success(), "{made:?}");
    assert_eq!(served.status.code(), Some(2), "{served:?}");

    // A sub-command still reads its own variables.
    let own = run(&arguments[..5], ("KTRDR_TOKENS_FILE", &file));
    assert!(
        String::from_utf8_lossy(&own.stderr).contains("ci"),
        "{own:?}"
    );
}

/// Every word in `text` that looks like a variable of ours.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(move |c| !is_part(c)).filter(|word| {
        let mut beginnings = ["KTRDR_", "WORKER_", "NATS_"].iter();
        beginnings.any(|beginning| word.len() > beginning.len() && word.starts_with(beginning))
            && !word.ends_with('_')
    })
}

#[test]
fn the_variables_of_the_repositorys_own_files_are_known() {
    let read = |path| std::fs::read_to_string(repository().join(path)).unwrap();
    let compose = read("docker-compose.yml");
    // Those that the file itself reads, and those that it gives to the programs.
    let names = compose
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split([':', '}', '-', '?']).next())
        .map(str::to_owned);
    let example = read(".env.example");
    let names: Vec<String> = names
        .chain(variables(&example).map(str::to_owned))
        .collect();
    assert!(names.len() > 40, "{names:?}");

    let unknown = ktrdr_bus::settings::unknown_variables(names);

    assert!(
        unknown.is_empty(),
        "shared/bus/src/settings/unknown.rs does not know {unknown:?}"
    );
}
