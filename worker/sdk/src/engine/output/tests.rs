use std::io::Write;

use super::*;
use crate::testing::TestRun;
use ktrdr_protocol::id::OperationId;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn output(run: &TestRun) -> Output {
    run.ctx().output("out", NamedBy::Request, false).unwrap()
}

#[test]
fn a_target_on_another_device_gets_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let run = TestRun::in_dir(dir.path());

    // The copy of an attempt that was killed.
    std::fs::write(path(".test.1.tmp"), "half a tab").unwrap();
    std::fs::write(path("table"), "whole").unwrap();

    output(&run).publish_copy(Path::new("table")).unwrap();

    assert_eq!(std::fs::read_to_string(path("out")).unwrap(), "whole");
    assert_eq!(names(dir.path()), ["out", "table"]);

    // What it wrote it may replace.
    std::fs::write(path("table"), "more").unwrap();
    output(&run).publish_copy(Path::new("table")).unwrap();
    run.cancel();
    std::fs::write(path("table"), "most").unwrap();

    assert!(output(&run).publish_copy(Path::new("table")).is_err());

    assert_eq!(std::fs::read_to_string(path("out")).unwrap(), "more");
    assert_eq!(names(dir.path()), ["out", "table"]);
}

/// An old worker wrote the file, or the file system keeps no marks.
#[test]
fn a_repeated_run_keeps_a_file_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestRun::in_dir(dir.path());
    let second = first.next_attempt();
    std::fs::write(dir.path().join("out"), "the same").unwrap();
    let write = |run: &TestRun, text: &'static str| {
        output(run).write(|file| file.write_all(text.as_bytes()))
    };

    assert!(matches!(
        first.ctx().output("out", NamedBy::Request, false),
        Err(OutputError::Exists { .. })
    ));
    write(&second, "the same").unwrap();
    for other in ["the Same", "the same and more", ""] {
        assert!(matches!(
            write(&second, other),
            Err(OutputError::Exists { .. })
        ));
    }

    assert_eq!(
        std::fs::read_to_string(dir.path().join("out")).unwrap(),
        "the same"
    );
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn a_link_is_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let run = TestRun::in_dir(dir.path());
    std::fs::write(dir.path().join("target"), "the user's").unwrap();
    std::os::unix::fs::symlink("target", dir.path().join("out")).unwrap();

    let refused = run.ctx().output("out", NamedBy::Request, false);
    assert!(matches!(refused, Err(OutputError::Exists { .. })));

    let allowed = run.ctx().output("out", NamedBy::Request, true).unwrap();
    allowed.write(|file| file.write_all(b"new")).unwrap();

    let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(
        (read("out"), read("target")),
        ("new".into(), "the user's".into())
    );
}

/// The one that ends first keeps the file. The other is told, also when it may overwrite.
#[test]
fn two_operations_do_not_replace_the_output_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestRun::in_dir(dir.path());
    let second = first.another(OperationId::new("second").unwrap());
    let open = |run: &TestRun, overwrite| {
        let named = if overwrite {
            NamedBy::Request
        } else {
            NamedBy::Engine
        };
        run.ctx().output("out", named, overwrite).unwrap()
    };
    let read = || std::fs::read_to_string(dir.path().join("out")).unwrap();

    for overwrite in [true, false] {
        for before in [None, Some("earlier")] {
            let _ = std::fs::remove_file(dir.path().join("out"));
            if let Some(text) = before {
                open(&first, overwrite)
                    .write(|file| file.write_all(text.as_bytes()))
                    .unwrap();
            }
            let (one, other) = (open(&first, overwrite), open(&second, overwrite));

            one.write(|file| file.write_all(b"first")).unwrap();
            let error = other.write(|file| file.write_all(b"second")).unwrap_err();

            assert!(
                error
                    .to_string()
                    .contains("written by operation test while"),
                "{error}"
            );
            assert_eq!(
                (read(), names(dir.path())),
                ("first".into(), vec!["out".into()])
            );

            // One after the other is fine, and so is an earlier attempt of the same operation.
            open(&second, true)
                .write(|file| file.write_all(b"second"))
                .unwrap();
            let again = second.next_attempt();
            let (late, early) = (open(&again, true), open(&second, true));
            early.write(|file| file.write_all(b"once")).unwrap();
            late.write(|file| file.write_all(b"twice")).unwrap();

            assert_eq!(read(), "twice");
        }
    }
}

/// Writes the output of this attempt in one of the two ways.
fn write_as(run: &TestRun, way: &str, text: &str) -> Result<(), OutputError> {
    let output = run.ctx().output("out", NamedBy::Request, false)?;
    if way == "write" {
        return output.write(|file| file.write_all(text.as_bytes()));
    }
    let draft = format!("draft.{}.{}", run.ctx().operation_id(), run.ctx().attempt());
    let path = run.ctx().data_dir().root().join(&draft);
    std::fs::write(&path, text).unwrap();
    output.publish(&File::open(&path).unwrap(), Path::new(&draft))
}

/// The first attempt is suspended behind its last look at the log, and wakes up when the second one
/// has completed the operation.
#[test]
fn a_late_attempt_does_not_replace_what_its_successor_wrote() {
    // The look at the log needs a runtime.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();

    for way in ["write", "publish"] {
        for resumed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let first = TestRun::in_dir(dir.path());
            let second = if resumed {
                first.resumed_as(OperationId::new("resumed").unwrap())
            } else {
                first.next_attempt()
            };
            let first = first.before_publishing(move || write_as(&second, way, "second").unwrap());

            let late = write_as(&first, way, "first");

            assert!(late.is_err(), "{way}, resumed: {resumed}");
            let text = std::fs::read_to_string(dir.path().join("out")).unwrap();
            assert_eq!(text, "second", "{way}, resumed: {resumed}");
            drop(first);
            assert!(
                names(dir.path()).iter().all(|name| !name.starts_with('.')),
                "{:?}",
                names(dir.path())
            );
        }
    }
}

/// A later attempt that only begins is enough: it may end without an output.
#[test]
fn a_late_attempt_gives_its_file_no_name_when_its_successor_has_begun() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();

    for way in ["write", "publish"] {
        let dir = tempfile::tempdir().unwrap();
        let first = TestRun::in_dir(dir.path());
        let second = first.next_attempt();
        let first = first.before_publishing(move || drop(output(&second)));

        assert!(write_as(&first, way, "first").is_err(), "{way}");
        assert!(!dir.path().join("out").exists(), "{way}");
    }
}
