use super::*;

fn refused(line: &str) -> String {
    match read(line.as_bytes()) {
        Ok(message) => panic!("{message:?}"),
        Err(why) => why.to_string(),
    }
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    for (line, why) in [
        ("Traceback (most recent call last):", "no JSON object"),
        ("[]", "no JSON object"),
        ("{\"run\":1}", "missing field `type`"),
        ("{\"type\":\"done\",\"run\":1}", "\"done\" is unknown"),
        (
            "{\"type\":\"progress\",\"run\":1}",
            "missing field `percentage`",
        ),
        ("{\"type\":\"alive\",\"run\":-1}", "invalid value"),
        (
            "{\"type\":\"alive\",\"run\":1,\"rum\":1}",
            "unknown field `rum`",
        ),
        (
            "{\"type\":\"completed\",\"run\":1,\"result\":NaN}",
            "expected value",
        ),
        (
            "{\"type\":\"failed\",\"run\":1,\"message\":\"\",\"code\":\"a b\"}",
            "an error code has",
        ),
    ] {
        let told = refused(line);
        assert!(told.contains(why), "{line}: {told}");
    }
    assert!(matches!(read(b"\xff{}"), Err(NoMessage::Text(_))));
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!("{{\"type\":\"completed\",\"run\":1,\"result\":{open}{close}}}")
    };
    assert!(read(deep(MAX_DEPTH - 1).as_bytes()).is_ok());
    assert!(refused(&deep(MAX_DEPTH)).contains("nested deeper"));

    let text = "[".repeat(MAX_MESSAGE);
    let line = format!("{{\"type\":\"completed\",\"run\":1,\"result\":\"\\\"{text}\"}}");
    assert!(read(line.as_bytes()).is_ok(), "brackets in a text are none");
    let line = format!("{{\"type\":\"checkpoint\",\"run\":1,\"state\":\"{text}\"}}");
    assert!(read(line.as_bytes()).is_ok(), "the worker does not save it");
    let line = format!("{{\"type\":\"failed\",\"run\":1,\"message\":\"{text}\"}}");
    assert!(refused(&line).contains("only a result"));
}

#[test]
fn a_line_for_the_program_begins_with_its_type() {
    let line = line("cancel", &Cancel { run: 3 });
    assert_eq!(line, b"{\"type\":\"cancel\",\"run\":3}\n");
}

/// The lines of the examples on the page: `<` from the worker, `>` from the program.
fn examples(direction: char) -> Vec<Value> {
    let page = include_str!("../../../../docs/exec.md");
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix(direction)?.strip_prefix(' '))
        .filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

#[test]
fn the_examples_of_the_page_match_the_schemas_and_are_read() {
    let schemas = schemas();
    for (direction, key) in [('<', "from_worker"), ('>', "from_program")] {
        let examples = examples(direction);
        for kind in schemas[key].as_object().unwrap().keys() {
            assert!(
                examples.iter().any(|example| example["type"] == **kind),
                "no example of {kind}"
            );
        }

        for example in examples {
            let kind = example["type"].as_str().unwrap();
            let schema = &schemas[key][kind];
            let found = jsonschema::validate(schema, &example);
            assert!(found.is_ok(), "{example}: {found:?}");
            if direction == '>' {
                read(example.to_string().as_bytes()).unwrap();
            }
        }
    }
}

#[test]
fn the_file_of_schemas_is_what_these_types_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exec.schema.json");
    let made = format!("{:#}\n", schemas());

    let found = std::fs::read_to_string(path).unwrap_or_default();

    if std::env::var_os("KTRDR_TEST_WRITE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    assert!(
        found == made,
        "docs/exec.schema.json is not up to date: KTRDR_TEST_WRITE=1 cargo test -p ktrdr-exec writes it again"
    );
}
