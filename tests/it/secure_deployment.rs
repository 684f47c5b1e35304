//! The commands of docs/secure-deployment.md, run as they are printed. Only names of ports are
//! replaced, so that the test can run beside others.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use ktrdr_tests::process::{Process, free_port, program};
use ktrdr_tests::settings::{blocks, repository};
use ktrdr_tests::{NatsServer, Scratch};

/// How long all of it may take. The commands end by themselves before that.
const LIMIT: Duration = Duration::from_secs(180);

/// What is checked besides, by somebody who has no token, no TLS, or no user of NATS.
const ATTACKS: &str = r#"
status() { curl -s -o answer -w '%{http_code}' --cacert authority.pem "$@"; }
test "$(status "https://$HOST_NAME:$API_PORT/api/v1/operations")" = 401
test "$(status -H 'Authorization: Bearer wrong' "https://$HOST_NAME:$API_PORT/api/v1/operations")" = 401
test "$(status "http://$HOST_NAME:$API_PORT/api/v1/operations")" = 400
grep -q tls_required answer
test "$(status -X POST "https://localhost:$WORKER_PORT/dummy/start" -d '{}')" = 404
if curl -s "https://$HOST_NAME:$API_PORT/health"; then exit 1; fi
if grep -r "$(cat me.token)" tokens.toml; then exit 1; fi
test "$(find . -type f -perm /077)" = ""
echo ALL-DONE
"#;

/// A `PATH` in which the programs of this build and of the harness come first.
fn path(scratch: &Scratch) -> String {
    let own = program("ktrdr-backend");
    let own = own.parent().unwrap();
    // The harness may have a server with another name.
    let directory = scratch.join("programs");
    std::fs::create_dir(&directory).unwrap();
    let server = std::path::absolute(NatsServer::program()).unwrap();
    symlink(server, directory.join("nats-server")).unwrap();

    let others = std::env::var("PATH").unwrap_or_default();
    format!("{}:{}:{others}", directory.display(), own.display())
}

#[tokio::test]
async fn the_ten_commands_work_as_printed() {
    let page = std::fs::read_to_string(repository().join("docs/secure-deployment.md")).unwrap();
    let blocks = blocks(&page, "sh");
    assert_eq!(page.matches("\n**10.**").count(), 1);
    assert_eq!(blocks.len(), 1 + 10 + 3, "names, commands, use");

    let scratch = Scratch::new("deployment");
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) && wait' EXIT\n");
    for block in &blocks {
        let mut block = (*block).to_owned();
        for port in ["8000", "5006", "4222", "8222"] {
            block = block.replace(&format!("_PORT={port}"), &format!("_PORT={}", free_port()));
        }
        writeln!(script, "{block}").unwrap();
    }
    script.push_str(ATTACKS);
    let file = scratch.join("script");
    std::fs::write(&file, &script).unwrap();

    let mut command = Command::new("bash");
    command
        .arg(&file)
        .current_dir(scratch.path())
        .env("PATH", path(&scratch));
    let mut process = Process::spawn("the ten commands", command, &scratch.join("log"));
    let status = process.wait(LIMIT).await;

    let log = process.log();
    assert!(status.success(), "{log}");
    assert!(log.contains("\"status\":\"completed\""), "{log}");
    assert!(log.contains("ALL-DONE"), "{log}");
    for bad in ["Violation", "Permissions"] {
        assert!(!log.contains(bad), "{bad}: {log}");
    }
}
