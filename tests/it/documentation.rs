//! The documentation agrees with the code: every cited test exists, every setting is listed.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Args, CommandFactory};
use ktrdr_bus::settings::AskedSettings;
use ktrdr_tests::settings::repository;

/// Every function in the Rust files below `directory`.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_is_named_in_the_docs_exists() {
    let mut known = BTreeSet::new();
    for directory in ["shared", "worker", "backend/src", "tests/src", "tests/it"] {
        functions(&repository().join(directory), &mut known);
    }

    let read = |page| std::fs::read_to_string(repository().join("docs").join(page)).unwrap();
    let page = read("reliability.md") + &read("security.md");
    let quoted = page.split('`').skip(1).step_by(2);
    let names = quoted.filter(|text| {
        text.contains("::")
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    });
    let cited: Vec<&str> = names.filter_map(|text| text.rsplit("::").next()).collect();
    assert!(cited.len() > 20, "{cited:?}");

    let missing: Vec<_> = cited
        .iter()
        .filter(|name| !known.contains(**name))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn the_python_package_has_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");

    for (file, line) in [
        ("pyproject.toml", format!("\nversion = \"{version}\"\n")),
        (
            "src/ktrdr/__init__.py",
            format!("\n__version__ = \"{version}\"\n"),
        ),
    ] {
        let path = repository().join("clients/python").join(file);
        let text = std::fs::read_to_string(&path).unwrap();

        assert!(text.contains(&line), "{} has no {line:?}", path.display());
    }
}

/// The settings of programs that a worker runs.
fn programs() -> clap::Command {
    ktrdr_exec::ExecOptions::augment_args(clap::Command::new("programs"))
}

/// The variables of both programs. `WORKER_TYPE` chooses the engine, so the worker's own settings
/// do not hold it.
fn variables() -> BTreeSet<String> {
    let commands = [
        ktrdr_backend::Config::command(),
        ktrdr_worker::Config::command(),
        programs(),
    ];
    let read = commands
        .iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(clap::Arg::get_env);
    read.map(|name| name.to_string_lossy().into_owned())
        .chain(["WORKER_TYPE".to_owned()])
        .collect()
}

#[test]
fn the_example_environment_lists_exactly_the_variables_there_are() {
    let example = std::fs::read_to_string(repository().join(".env.example")).unwrap();
    let assigned = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='));
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let listed: BTreeSet<String> = assigned
        .map(|(name, _)| name.to_owned())
        .filter(|name| is_name(name))
        .collect();
    assert_eq!(listed, variables());
}

/// The variables of what lives with the streams.
fn variables_of_streams() -> BTreeSet<String> {
    let of_streams = AskedSettings::augment_args(clap::Command::new("streams"));

    of_streams
        .get_arguments()
        .filter_map(clap::Arg::get_env)
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// The rows of the tables of settings: variable, flag and default, without their code marks.
fn setting_rows(page: &str) -> impl Iterator<Item = [String; 3]> {
    page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let variable = cells.next().filter(|cell| cell.starts_with('`'))?;

        Some([variable, cells.next()?, cells.next()?].map(|cell| cell.replace('`', "")))
    })
}

#[test]
fn the_page_on_configuration_says_what_help_says() {
    let page = repository().join("docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<_> = setting_rows(&page).collect();

    let listed: BTreeSet<String> = rows.iter().map(|[name, ..]| name.clone()).collect();
    assert_eq!(listed, variables());
    assert_eq!(listed.len(), rows.len(), "a setting has two rows");

    let of_streams = variables_of_streams();
    for command in [
        ktrdr_backend::Config::command(),
        ktrdr_worker::Config::command(),
        programs(),
    ] {
        for setting in command.get_arguments() {
            let (Some(variable), Some(flag)) = (setting.get_env(), setting.get_long()) else {
                continue;
            };
            let variable = variable.to_string_lossy();
            let [_, listed_flag, listed_default] = rows
                .iter()
                .find(|[name, ..]| *name == variable)
                .expect("listed");
            assert_eq!(*listed_flag, format!("--{flag}"), "{variable}");

            // A process that is not asked for something follows the streams, whatever their default.
            if !of_streams.contains(variable.as_ref()) {
                let default = setting.get_default_values().first();
                let default = default.map_or("".into(), |text| text.to_string_lossy());
                assert_eq!(*listed_default, default, "{variable}");
            }
        }
    }
}

/// The settings of one block of docker-compose.yml, with those of the blocks that it takes over.
fn compose_settings(compose: &str, anchor: &str) -> BTreeSet<String> {
    let (_, rest) = compose
        .split_once(&format!(": &{anchor}\n"))
        .unwrap_or_else(|| panic!("docker-compose.yml has no &{anchor}"));
    let block = rest
        .lines()
        .take_while(|line| line.starts_with(' ') || line.is_empty());

    let mut names = BTreeSet::new();
    for line in block {
        match line.trim().split_once(':') {
            Some(("<<", other)) => {
                names.extend(compose_settings(
                    compose,
                    other.trim().trim_start_matches('*'),
                ));
            }
            Some((name, _)) if !name.starts_with('#') => {
                names.insert(name.to_owned());
            }
            _ => {}
        }
    }
    names
}

/// `scripts/compose-check` sees them in the containers; this test needs no Docker engine.
#[test]
fn docker_compose_passes_every_setting() {
    let compose = std::fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    // Workers are scaled, so none has an id or an address of its own. The type and the port stand
    // at each service.
    let left_out = [
        "WORKER_ID",
        "WORKER_ENDPOINT_URL",
        "WORKER_TYPE",
        "WORKER_PORT",
    ];

    // A worker follows the settings of the streams, whatever it is given.
    let of_streams = variables_of_streams();

    let programs = [
        ("backend-settings", ktrdr_backend::Config::command()),
        ("worker-settings", ktrdr_worker::Config::command()),
    ];
    for (anchor, command) in programs {
        let is_left_out = |name: &String| {
            left_out.contains(&name.as_str())
                || anchor == "worker-settings" && of_streams.contains(name)
        };
        let passed = compose_settings(&compose, anchor);
        let read = command.get_arguments().filter_map(clap::Arg::get_env);
        let missing: Vec<_> = read
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| !passed.contains(name) && !is_left_out(name))
            .collect();
        assert!(
            missing.is_empty(),
            "&{anchor} of docker-compose.yml does not pass {missing:?}"
        );
    }
}

/// The lines of one service of docker-compose.yml.
fn compose_service<'a>(compose: &'a str, service: &str) -> &'a str {
    let (_, rest) = compose
        .split_once(&format!("\n  {service}:\n"))
        .unwrap_or_else(|| panic!("docker-compose.yml has no service {service}"));
    rest.split_once("\n\n").map_or(rest, |(block, _)| block)
}

#[test]
fn docker_compose_passes_every_setting_of_programs_to_the_worker_that_runs_one() {
    let compose = std::fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let service = compose_service(&compose, "exec-worker");

    let programs = programs();
    let read = programs.get_arguments().filter_map(clap::Arg::get_env);
    let missing: Vec<_> = read
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !service.contains(&format!("\n      {name}:")))
        .collect();

    assert!(missing.is_empty(), "exec-worker does not pass {missing:?}");
}

/// The seconds that follow each `mark`.
fn seconds_after(text: &str, mark: &str) -> Vec<u64> {
    let rests = text.split(mark).skip(1);
    let digits = rests.map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        &rest[..end.unwrap_or(rest.len())]
    });
    digits.map(|digits| digits.parse().expect(mark)).collect()
}

/// A key at the margin of a YAML file, with everything below it.
fn block<'t>(text: &'t str, key: &str) -> &'t str {
    let start = text.find(&format!("\n{key}:")).expect(key) + 1;
    let rest = &text[start..];
    let ends_at = |(at, _): &(usize, &str)| {
        let next = rest[at + 1..].chars().next();
        next.is_some_and(|first| !first.is_whitespace() && first != '#')
    };
    let end = rest.match_indices('\n').find(ends_at);
    &rest[..end.map_or(rest.len(), |(at, _)| at)]
}

/// A worker that is killed earlier has not given its operations back: they wait for the lease, and the
/// last checkpoint of an engine is lost.
#[test]
fn no_deployment_kills_a_worker_before_it_had_all_of_its_time() {
    // What the worker does after its engines have stopped, with some time to spare.
    const REST: u64 = 10;
    let command = ktrdr_worker::Config::command();
    let stop_grace = command
        .get_arguments()
        .find(|setting| {
            setting
                .get_env()
                .is_some_and(|name| name == "WORKER_STOP_GRACE")
        })
        .expect("a setting")
        .get_default_values()[0]
        .to_string_lossy()
        .trim_end_matches('s')
        .parse::<u64>()
        .unwrap();

    for (path, grace, killed) in [
        (
            "docker-compose.yml",
            "${WORKER_SHUTDOWN_GRACE:-",
            "\n  stop_grace_period: ",
        ),
        (
            "deploy/systemd/ktrdr-worker@.service",
            "WORKER_SHUTDOWN_GRACE=",
            "TimeoutStopSec=",
        ),
        (
            "deploy/kubernetes/workers.yaml",
            "WORKER_SHUTDOWN_GRACE, value: ",
            "terminationGracePeriodSeconds: ",
        ),
    ] {
        let text = std::fs::read_to_string(repository().join(path)).unwrap();
        let graces = seconds_after(&text, grace);
        // The same file has other programs, too.
        let of_workers = match path {
            "docker-compose.yml" => block(&text, "x-any-worker"),
            _ => &text,
        };
        let kills = seconds_after(of_workers, killed);
        assert!(!graces.is_empty() && graces.len() == kills.len(), "{path}");
        for (grace, kill) in graces.into_iter().zip(kills) {
            assert!(
                kill >= grace + stop_grace + REST,
                "{path} kills a worker after {kill} s; it may take {grace} + {stop_grace} s and some"
            );
        }
    }
}

/// The links of a Markdown page as (text, target).
#[test]
fn the_unit_of_a_worker_leaves_its_programs_to_it() {
    let unit = repository().join("deploy/systemd/ktrdr-worker@.service");
    let unit = std::fs::read_to_string(unit).unwrap();

    // By default, systemd sends SIGTERM to all processes of a unit.
    assert!(unit.lines().any(|line| line == "KillMode=mixed"), "{unit}");
}

fn links(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split('[').skip(1).filter_map(|rest| {
        let (text, rest) = rest.split_once("](")?;
        let (target, _) = rest.split_once(')')?;

        Some((text, target))
    })
}

/// Whether Rust code defines a function or type of this name.
fn defines(code: &str, name: &str) -> bool {
    let words = ["fn ", "struct ", "enum ", "trait ", "type ", "const "];

    words.iter().any(|word| {
        code.match_indices(&format!("{word}{name}"))
            .any(|(at, found)| {
                let next = code[at + found.len()..].chars().next();
                next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
            })
    })
}

#[test]
fn every_function_that_the_code_tour_links_is_in_the_linked_file() {
    let docs = repository().join("docs");
    let page = std::fs::read_to_string(docs.join("code-tour.md")).unwrap();

    let code: Vec<(&str, &str)> = links(&page)
        .filter(|(_, target)| target.ends_with(".rs"))
        .collect();

    assert!(code.len() > 40, "{code:?}");
    for (text, target) in code {
        let file = std::fs::read_to_string(docs.join(target))
            .unwrap_or_else(|error| panic!("{target}: {error}"));

        // Other texts name the file itself.
        if let Some(path) = text.strip_prefix('`') {
            let path = path.trim_end_matches('`');
            let name = path.rsplit("::").next().unwrap_or(path);
            assert!(defines(&file, name), "{target} has no {text}");
        }
    }
}
