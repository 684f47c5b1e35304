//! The clients of the Python package (`clients/python`), against real servers.

use std::process::Command;
use std::time::Duration;

use ktrdr_tests::process::{Process, program};
use ktrdr_tests::settings::repository;
use ktrdr_tests::{
    Authority, BackendProcess, LIMIT, NatsServer, Scratch, Settings, Stack, TokensFile, wait_for,
};

/// How long a script may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A script of `tests/data/python`; `None` when the client cannot run here.
fn script(name: &str, url: &str) -> Option<Command> {
    // CI installs httpx where it can.
    let has_httpx = Command::new("python3")
        .args(["-c", "import httpx"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_httpx {
        eprintln!("SKIPPED: the clients of the Python package, because httpx is not installed");
        return None;
    }

    let package = repository().join("clients/python");
    let paths = std::env::join_paths([package.join("src"), package.join("examples")]).unwrap();
    let mut command = Command::new("python3");
    command
        .arg(repository().join("tests/data/python").join(name))
        .env("PYTHONPATH", paths)
        .env("KTRDR_URL", url)
        .env("NO_PROXY", "*");
    Some(command)
}

/// Waits for the end of a script.
async fn works(mut process: Process) {
    let status = process.wait(PATIENCE).await;
    let log = process.log();
    assert!(status.success(), "{log}");
    assert!(log.ends_with("all of it works\n"), "{log}");
}

#[tokio::test]
async fn both_clients_do_what_the_rest_interface_does() {
    let stack = Stack::start().await;
    let scratch = Scratch::new("python-client");
    let Some(mut command) = script("client_session.py", stack.api().base()) else {
        return;
    };
    let _dummy = stack.worker("dummy", "w1").await;
    let mut counting = Command::new("python3");
    counting
        .arg(repository().join("clients/python/examples/word_count.py"))
        .envs(stack.settings.worker_env("word_count_py"))
        .envs(stack.settings.extra.clone())
        .env("PYTHONPATH", repository().join("clients/python/src"))
        .env("KTRDR_WORKER_BIN", program("ktrdr-worker"))
        .env("WORKER_ID", "p1")
        .current_dir(scratch.path());
    let _counting = Process::spawn("p1", counting, &scratch.join("worker.log"));
    stack.api().wait_for_worker("p1", "AVAILABLE").await;

    command.env("WORDS", "messy/titanic.csv");
    works(Process::spawn("the session", command, &scratch.join("log"))).await;
}

#[tokio::test]
async fn a_client_needs_a_token_and_trusts_the_authority_that_it_is_given() {
    let (nats, file, authority) = (
        NatsServer::start().await,
        TokensFile::new(),
        Authority::new(),
    );
    let reader = file.set("reader", "scopes = [\"read\"]");
    let own = authority.issue("IP:127.0.0.1");
    let settings = Settings::fast(nats.url())
        .tokens(&file)
        .with("KTRDR_TLS_CERT", own.certificate.display().to_string())
        .with("KTRDR_TLS_KEY", own.key.display().to_string());
    let backend = BackendProcess::launch(&settings);
    let scratch = Scratch::new("python-client");

    // The client repeats its requests until the backend is ready.
    let url = backend.api.base().replace("http://", "https://");
    let Some(mut command) = script("secure_session.py", &url) else {
        return;
    };
    command
        .env("AUTHORITY", authority.certificate())
        .env("KTRDR_TOKEN", file.token("test"))
        .env("READER", reader);
    works(Process::spawn("the session", command, &scratch.join("log"))).await;
}

#[tokio::test]
async fn events_and_waits_go_on_when_a_backend_was_killed() {
    let mut stack = Stack::start().await;
    let _dummy = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("python-client");
    let Some(mut command) = script("restart_session.py", stack.api().base()) else {
        return;
    };
    let id = scratch.join("id");
    command.arg(&id);
    let process = Process::spawn("the session", command, &scratch.join("log"));
    let events = async |count: usize| {
        wait_for("progress in the events", LIMIT, async || {
            let log = process.log();
            let found = log.matches("event progress").count();
            if found >= count { Ok(found) } else { Err(log) }
        })
        .await
    };

    let before = events(1).await;
    stack.backend.restart().await;
    events(before + 1).await;

    let id = std::fs::read_to_string(id).unwrap();
    stack.api().cancel(&id).await.expect(200);
    works(process).await;
}
