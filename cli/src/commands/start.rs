//! Starting an operation, or many.

use std::io;
use std::path::Path;

use ktrdr_client::{Client, ErrorCode, InvalidName, OneStarted, OperationId, Start, StartResponse};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::watch;
use crate::args::StartArgs;
use crate::failure::{Failure, is_away};
use crate::parameters::{self, Line, Lines};
use crate::text::{complain, print, print_json, printable, remark};

/// How many operations of a file are started with one request.
const AT_ONCE: usize = 1000;

/// Starts an operation, and follows it with `--wait`.
///
/// # Errors
/// [`Failure`]; with `--wait` also when the operation does not complete.
pub async fn run(client: &Client, start: StartArgs, json: bool) -> Result<(), Failure> {
    let mut body = parameters::read(start.file.as_deref(), &start.parameters)?;
    add_options(&mut body, &start)?;
    if let Some(file) = &start.many {
        return many(client, &start, file, &body, json).await;
    }

    let mut request = client.start(&start.domain, &body);
    if let Some(id) = start.id {
        request = request.operation_id(id);
    }
    let started = request.await?;
    show(client, started, start.wait, json).await
}

/// Prints the id of a started operation, or follows it to its end.
///
/// # Errors
/// [`Failure`]; with `wait` also when the operation does not complete.
pub async fn show(
    client: &Client,
    started: StartResponse<'static>,
    wait: bool,
    json: bool,
) -> Result<(), Failure> {
    if wait {
        // Whoever interrupts this can go on with `ktrdr watch`.
        remark(json, &format!("started {}", started.operation_id));
        return watch::run(client, &[started.operation_id.into_owned()], json).await;
    }
    if json {
        print_json(&started)
    } else {
        print(started.operation_id.as_str())
    }
}

/// Adds labels and priority to the execution options of a start body, which may have some.
fn add_options(body: &mut Map<String, Value>, start: &StartArgs) -> Result<(), Failure> {
    if start.labels.is_empty() && start.priority.is_none() {
        return Ok(());
    }

    let not_an_object = || Failure::Usage("execution: not a JSON object".to_owned());
    let execution = body.entry("execution").or_insert_with(|| json!({}));
    let execution = execution.as_object_mut().ok_or_else(not_an_object)?;
    if let Some(priority) = start.priority {
        execution.insert("priority".to_owned(), priority.number().into());
    }
    for (place, label) in start.labels.iter().enumerate() {
        let before = &start.labels[..place];
        if before.iter().any(|other| other.name == label.name) {
            return Err(Failure::Usage(format!(
                "the label {} is given twice; an operation has one of a name",
                label.name
            )));
        }
    }
    if !start.labels.is_empty() {
        let labels = execution.entry("labels").or_insert_with(|| json!({}));
        let labels = labels.as_object_mut().ok_or_else(not_an_object)?;
        for label in &start.labels {
            labels.insert(label.name.to_string(), label.value.as_ref().into());
        }
    }
    Ok(())
}

/// Starts an operation for each line of a file. What cannot be started keeps none of the others, and with
/// `--wait` those that have started are followed whatever happened to the others.
async fn many(
    client: &Client,
    start: &StartArgs,
    file: &Path,
    common: &Map<String, Value>,
    json: bool,
) -> Result<(), Failure> {
    let mut lines = Lines::open(file, common)?;
    let mut outcome = Outcome {
        json,
        is_read: true,
        ..Outcome::default()
    };

    let sent = outcome.send_all(client, start, &mut lines).await;
    let ended = match start.wait {
        true => watch::run(client, &outcome.started, json).await,
        false => Ok(()),
    };
    sent?;
    match ended {
        Ok(()) | Err(Failure::NotCompleted | Failure::NobodyReads) => outcome.check().and(ended),
        Err(_) => ended,
    }
}

/// The start of a line, or why there is none.
fn start_of<'a>(
    client: &'a Client,
    start: &'a StartArgs,
    number: usize,
    parameters: Result<Map<String, Value>, String>,
) -> Result<Start<'a>, String> {
    let request = client.start(&start.domain, &parameters?);
    let Some(id) = &start.id else {
        return Ok(request);
    };
    let numbered: Result<OperationId, InvalidName> = format!("{id}-{number}").parse();
    let numbered = numbered.map_err(|error| error.to_string())?;
    Ok(request.operation_id(numbered))
}

/// What became of the lines so far.
#[derive(Default)]
struct Outcome {
    json: bool,
    /// Whether somebody reads the output.
    is_read: bool,
    started: Vec<OperationId>,
    refused: usize,
    /// Whether a start was refused because the backend cannot answer now.
    is_away: bool,
}

impl Outcome {
    /// Starts all lines, so many at a time.
    async fn send_all(
        &mut self,
        client: &Client,
        start: &StartArgs,
        lines: &mut Lines<'_>,
    ) -> Result<(), Failure> {
        let mut waiting = Vec::new();
        loop {
            match lines.next() {
                Ok(Some(Line { number, parameters })) => {
                    waiting.push((number, start_of(client, start, number, parameters)));
                    if waiting.len() == AT_ONCE {
                        self.send(client, std::mem::take(&mut waiting)).await?;
                    }
                }
                end => {
                    self.send(client, waiting).await?;
                    return end.map(drop);
                }
            }
        }
    }

    /// Starts these lines, and prints what became of them, in their order.
    async fn send(
        &mut self,
        client: &Client,
        lines: Vec<(usize, Result<Start<'_>, String>)>,
    ) -> Result<(), Failure> {
        let (mut starts, mut places) = (Vec::new(), Vec::new());
        for (number, start) in lines {
            places.push((number, start.map(|start| starts.push(start))));
        }

        // They may be sent in several requests, of which the first ones were answered.
        let (started, failed) = match client.start_many(starts).await {
            Ok(started) => (started, None),
            Err(failed) => (*failed.started, Some((failed.is_unclear, failed.error))),
        };
        let mut results = started.results.into_iter();
        let mut unanswered = Vec::new();
        for (number, place) in places {
            let result = match place {
                Ok(()) => results.next(),
                Err(wrong) => Some(not_an_object(wrong)),
            };
            match result {
                Some(result) => self.note(number, result)?,
                None => unanswered.push(number),
            }
        }

        let Some((is_unclear, error)) = failed else {
            return Ok(());
        };
        let unsure = match (is_unclear, &unanswered[..]) {
            (_, []) => None,
            (false, [first, ..]) => Some(format!("line {first} and all after it: not started")),
            (true, [only]) => Some(format!("line {only}: it may have started")),
            (true, [first, .., last]) => Some(format!(
                "lines {first} to {last}: some of them may have started"
            )),
        };
        if let Some(text) = unsure {
            remark(self.json, &text);
        }
        Err(error.into())
    }

    fn note(&mut self, number: usize, result: OneStarted) -> Result<(), Failure> {
        if self.json {
            let numbered = NumberedResult {
                line: number,
                result: &result,
            };
            self.print(&serde_json::to_string(&numbered).map_err(io::Error::other)?)?;
        }
        match (result.operation_id, result.error) {
            (Some(id), None) => {
                if !self.json {
                    self.print(id.as_str())?;
                }
                self.started.push(id);
            }
            (_, error) => {
                if !self.json {
                    let why = error.unwrap_or_default();
                    complain(&format!("line {number}: {}", printable(&why)));
                }
                self.refused += 1;
                self.is_away |= is_away(result.status_code);
            }
        }
        Ok(())
    }

    /// Prints while somebody reads. What is left is started all the same.
    fn print(&mut self, line: &str) -> Result<(), Failure> {
        if self.is_read {
            match print(line) {
                Err(Failure::NobodyReads) => self.is_read = false,
                printed => printed?,
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`Failure::Usage`] when starts were refused, [`Failure::Unfinished`] when a repetition may help.
    fn check(&self) -> Result<(), Failure> {
        let all = self.refused + self.started.len();
        let text = format!("{} of {all} starts were refused", self.refused);
        match (self.refused, self.is_away) {
            (0, _) => Ok(()),
            (_, false) => Err(Failure::Usage(text)),
            (_, true) => Err(Failure::Unfinished(text)),
        }
    }
}

/// What became of a line, as `--json` prints it.
#[derive(Serialize)]
struct NumberedResult<'a> {
    line: usize,
    #[serde(flatten)]
    result: &'a OneStarted,
}

/// What a backend says of a start body that is none.
fn not_an_object(why: String) -> OneStarted {
    OneStarted {
        operation_id: None,
        status: None,
        status_code: ErrorCode::InvalidBody.status(),
        error: Some(why),
        code: Some(ErrorCode::InvalidBody),
        warning: None,
    }
}
