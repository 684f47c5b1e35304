//! The printed configuration, and the tables of the documentation.

use std::process::Command;

use ktrdr_bus::permissions::{Proof, Role, markdown, rules};
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_tests::nats::find_program;
use ktrdr_tests::process::program;
use ktrdr_tests::secure::{installation, violations};
use ktrdr_tests::settings::repository;
use ktrdr_tests::{BackendProcess, NatsServer, Scratch, Settings, WorkerProcess};
use serde_json::json;

use super::TYPES;

/// What `ktrdr-backend` prints.
fn run(arguments: &[&str]) -> String {
    let output = Command::new(program("ktrdr-backend"))
        .args(arguments)
        .env_remove("KTRDR_SUBJECT_PREFIX")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `ktrdr-backend nats-config` prints for the built-in types.
fn printed() -> String {
    run(&["nats-config", "--types", &TYPES.join(",")])
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let output = Command::new(program("ktrdr-backend"))
        .args(["nats-config", "--types", "dummy"])
        .env_remove("KTRDR_SUBJECT_PREFIX")
        .stdout(writer)
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_shipped_configuration_and_the_tables_are_those_of_the_code() {
    let shipped = std::fs::read_to_string(repository().join("deploy/nats.secure.conf")).unwrap();
    assert!(
        shipped == printed(),
        "deploy/nats.secure.conf is not what `ktrdr-backend nats-config --types {}` prints",
        TYPES.join(",")
    );

    let page = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    let mut table = installation(&["TYPE"]);
    table.queues = vec![Queue::new("QUEUE").unwrap()];
    for role in table.roles() {
        let name = match &role {
            Role::Backend => "backend",
            Role::Worker(_) => "worker",
            Role::Observer => "observer",
        };
        let wanted = markdown(&rules(&table, &role));
        let begin = format!("<!-- table of {name} -->\n");
        let shown = page.split_once(&begin).unwrap().1;
        let shown = shown.split_once("<!-- end of table -->").unwrap().0;
        assert!(
            shown.trim() == wanted.trim(),
            "docs/security.md must have this table of {name}:\n{wanted}"
        );
    }
}

#[test]
fn nobody_gets_in_without_a_password() {
    let scratch = Scratch::new("config");
    let file = scratch.join("nats.conf");
    std::fs::write(&file, printed()).unwrap();
    let roles = installation(&TYPES).roles();
    let variables: Vec<String> = roles.iter().map(Role::password_variable).collect();
    let accepts = |change: &dyn Fn(&str) -> Option<&'static str>| {
        let mut server = Command::new(find_program());
        server.arg("-c").arg(&file).arg("-t");
        server.env("NATS_STORE_DIR", "nats-data");
        for variable in &variables {
            match change(variable) {
                Some(password) => server.env(variable, password),
                None => server.env_remove(variable),
            };
        }
        let output = server.output().unwrap();
        output.status.success()
    };

    assert!(accepts(&|_| Some("p4ssw0rd")));
    for chosen in &variables {
        for wrong in [None, Some(""), Some("\"\""), Some("''")] {
            let change = |variable: &str| match variable == chosen {
                true => wrong,
                false => Some("p4ssw0rd"),
            };
            assert!(!accepts(&change), "{chosen} may be {wrong:?}");
        }
    }
}

#[tokio::test]
async fn programs_with_keys_do_their_work_and_the_server_knows_no_secret() {
    let scratch = Scratch::new("keys");
    let mut users = run(&["nats-config", "--types", "dummy", "--nkeys"]);
    for role in installation(&["dummy"]).roles() {
        let seed = scratch.join(role.user()).display().to_string();
        let public = run(&["nats-key", "new", &seed]);
        let variable = format!("${}\n", role.variable(Proof::Nkey));
        assert_eq!(users.matches(&variable).count(), 1, "{variable}");
        users = users.replace(&variable, &public);
    }

    let (_, users) = users.split_once("accounts {").unwrap();
    assert!(!users.contains("password"), "{users}");
    let mut nats = NatsServer::launch(&format!("accounts {{{users}"));
    let address = nats.listens().await;

    let settings = |role: &Role| {
        let seed = scratch.join(role.user()).display().to_string();
        Settings {
            secure: false,
            ..Settings::fast(&*address)
        }
        .with("NATS_NKEY", seed)
        .with("NATS_INBOX_PREFIX", role.inbox_prefix())
        .with("KTRDR_OLD_CHECKPOINT_KEYS", "false")
    };

    let backend = BackendProcess::start(&settings(&Role::Backend)).await;
    let worker = Role::Worker(WorkerType::new("dummy").unwrap());
    let _worker = WorkerProcess::start(&settings(&worker), "dummy", "d1").await;
    backend.api.wait_for_worker("d1", "AVAILABLE").await;
    let large = json!({"steps": 2, "result_bytes": 600_000});
    let id = backend.api.started("dummy", &large).await;

    backend.api.wait_for_status(&id, "completed").await;
    assert_eq!(violations(&nats.log()), Vec::<&str>::new());
}
