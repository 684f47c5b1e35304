//! The parameters of a start: one JSON object, a file with one, or words like `steps=3`.

use std::io::{self, BufRead, BufReader, Read};
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
        Some(path) => named_object(&read_file(path)?, &path.display().to_string())?,
        None => Map::new(),
    };

    for word in words {
        if word.trim_start().starts_with('{') {
            parameters.extend(named_object(word, "the parameters")?);
        } else {
            let (key, value) = pair(word)?;
            parameters.insert(key, value);
        }
    }
    Ok(parameters)
}

/// A file with the parameters of one operation in each line.
pub struct Lines<'a> {
    path: &'a Path,
    reader: Box<dyn BufRead>,
    /// Lines that were read.
    read: usize,
    /// The parameters that all lines have.
    common: &'a Map<String, Value>,
}

/// One line: its own parameters and the common ones, or what is wrong with it.
pub struct Line {
    /// Counted from 1, also over empty lines.
    pub number: usize,
    /// The parameters.
    pub parameters: Result<Map<String, Value>, String>,
}

impl<'a> Lines<'a> {
    /// Opens the file; `-` is standard input.
    ///
    /// # Errors
    /// [`Failure::File`].
    pub fn open(path: &'a Path, common: &'a Map<String, Value>) -> Result<Self, Failure> {
        Ok(Self {
            path,
            reader: Box::new(BufReader::new(open(path)?)),
            read: 0,
            common,
        })
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// [`Failure::File`], when the file cannot be read on.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let Some(text) = self.text().map_err(|source| file(self.path, source))? else {
                return Ok(None);
            };
            self.read += 1;
            let parameters = match text {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => object(text.trim_end())
                    .map(|own| {
                        let mut parameters = self.common.clone();
                        parameters.extend(own);
                        parameters
                    })
                    // The caller names the line of the file.
                    .map_err(|wrong| wrong.replace(" at line 1 column ", " at column ")),
                Err(wrong) => Err(wrong),
            };
            return Ok(Some(Line {
                number: self.read,
                parameters,
            }));
        }
    }

    /// The text of the next line.
    fn text(&mut self) -> io::Result<Option<Result<String, String>>> {
        let mut bytes = Vec::new();
        let mut reader = (&mut self.reader).take(LARGEST_FILE + 1);
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        if bytes.len() as u64 > LARGEST_FILE && !bytes.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Err(too_large("it"))));
        }
        let text = String::from_utf8(bytes);
        Ok(Some(text.map_err(|_| "not a text in UTF-8".to_owned())))
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let opened = std::fs::File::open(path);
    Ok(Box::new(opened.map_err(|source| file(path, source))?))
}

fn file(path: &Path, source: io::Error) -> Failure {
    Failure::File {
        path: path.to_owned(),
        source,
    }
}

fn too_large(what: &str) -> String {
    format!("{what} is larger than {LARGEST_FILE} bytes; a backend accepts no such body")
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let mut source = open(path)?;
    let mut text = String::new();
    let length = (&mut source)
        .take(LARGEST_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|source| file(path, source))?;
    if length as u64 > LARGEST_FILE {
        return Err(Failure::Usage(too_large(&path.display().to_string())));
    }
    Ok(text)
}

fn named_object(text: &str, what: &str) -> Result<Map<String, Value>, Failure> {
    object(text).map_err(|wrong| Failure::Usage(format!("{what}: {wrong}")))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
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
    fn what_is_wrong_with_a_line_keeps_none_of_the_others() {
        let common = Map::from_iter([("a".to_owned(), json!(1))]);
        let long = " ".repeat(LARGEST_FILE as usize + 9);
        let mut bytes = b"{\"b\": 2}\n\n  \n{\n\xff\n[]\n".to_vec();
        bytes.extend(format!("{{{long}}}\n{{\"a\": 3}}").as_bytes());
        let mut lines = Lines {
            path: Path::new("x"),
            reader: Box::new(io::Cursor::new(bytes)),
            read: 0,
            common: &common,
        };

        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.number, line.parameters.map(Value::Object)));
        }

        assert_eq!(found[0], (1, Ok(json!({"a": 1, "b": 2}))));
        for (place, number, wrong) in [
            (1, 4, "not JSON"),
            (2, 5, "UTF-8"),
            (3, 6, "not a JSON object"),
            (4, 7, "larger than"),
        ] {
            let (line, parameters) = &found[place];
            assert_eq!(*line, number);
            let error = parameters.as_ref().unwrap_err();
            assert!(error.contains(wrong) && !error.contains("line"), "{error}");
        }
        assert_eq!(found[5], (8, Ok(json!({"a": 3}))));
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
