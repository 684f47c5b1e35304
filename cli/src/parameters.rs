//! The parameters of a start: one JSON object, a file with one, or words like `steps=3`.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The most that is read from a file; a backend accepts no larger body.
const LARGEST_FILE: u64 = 2 * 1024 * 1024;

/// Reads the parameters. Words count more than the file, so that a file can be a template.
///
/// # Errors
/// [`Failure::Usage`] when something is no JSON object and no `key=value`, [`Failure::File`] when
/// the file cannot be read.
pub fn read(file: Option<&Path>, words: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut parameters = match file {
        Some(path) => object(&read_file(path)?, &path.display().to_string())?,
        None => Map::new(),
    };

    for word in words {
        if word.trim_start().starts_with('{') {
            parameters.extend(object(word, "the parameters")?);
        } else {
            let (key, value) = pair(word)?;
            parameters.insert(key, value);
        }
    }
    Ok(parameters)
}

/// The parameters of one line of a file: those that all lines have, and its own.
///
/// # Errors
/// [`Failure::Usage`] when the line is no JSON object.
pub fn line(
    text: &str,
    common: &Map<String, Value>,
    number: usize,
) -> Result<Map<String, Value>, Failure> {
    let mut parameters = common.clone();
    parameters.extend(object(text, &format!("line {number}"))?);
    Ok(parameters)
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::File {
        path: path.to_owned(),
        source,
    };
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };

    let mut text = String::new();
    let length = (&mut source)
        .take(LARGEST_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if length as u64 > LARGEST_FILE {
        return Err(Failure::Usage(format!(
            "{} is larger than {LARGEST_FILE} bytes; a backend accepts no such body",
            path.display()
        )));
    }
    Ok(text)
}

fn object(text: &str, what: &str) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::Usage(format!("{what}: not a JSON object"))),
        Err(error) => Err(Failure::Usage(format!("{what}: not JSON: {error}"))),
    }
}

/// One `key=value`. The value is JSON when it can be read as JSON, otherwise a text: `steps=3` is a
/// number, `symbol=GOOG` a text, and `name='"3"'` a text, too.
fn pair(word: &str) -> Result<(String, Value), Failure> {
    let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(Failure::Usage(format!(
            "{word:?} is neither a JSON object nor key=value"
        )));
    };
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from_words(words: &[&str]) -> Result<Value, Failure> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        read(None, &words).map(Value::Object)
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        let read = from_words(&[
            "steps=3",
            "symbol=GOOG",
            "text=\"3\"",
            "list=[1,2]",
            "equation=a=b",
            "empty=",
        ]);

        assert_eq!(
            read.unwrap(),
            json!({"steps": 3, "symbol": "GOOG", "text": "3", "list": [1, 2], "equation": "a=b", "empty": ""})
        );
    }

    #[test]
    fn later_words_count_more() {
        let read = from_words(&[r#"{"steps": 3, "step_ms": 1}"#, "steps=4"]);

        assert_eq!(read.unwrap(), json!({"steps": 4, "step_ms": 1}));
    }

    #[test]
    fn what_is_neither_is_refused_with_the_word() {
        for word in ["steps", "=3", "{steps: 3}", "[1]"] {
            let error = from_words(&[word]).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{word}: {error}");
        }
    }
}
