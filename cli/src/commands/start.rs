//! Starting an operation, or many.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use ktrdr_client::{Client, OneStarted, OperationId, Start};
use serde_json::{Map, Value, json};

use super::watch;
use crate::args::StartArgs;
use crate::failure::{Failure, is_away};
use crate::parameters;
use crate::text::{print, print_json, printable};

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

    if start.wait {
        // Whoever interrupts this can go on with `ktrdr watch`.
        eprintln!("started {}", started.operation_id);
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
    if !start.labels.is_empty() {
        let labels = execution.entry("labels").or_insert_with(|| json!({}));
        let labels = labels.as_object_mut().ok_or_else(not_an_object)?;
        for label in &start.labels {
            labels.insert(label.name.to_string(), label.value.as_ref().into());
        }
    }
    Ok(())
}

/// Starts an operation for each line of a file.
async fn many(
    client: &Client,
    start: &StartArgs,
    file: &Path,
    common: &Map<String, Value>,
    json: bool,
) -> Result<(), Failure> {
    let failed = |source| Failure::File {
        path: file.to_owned(),
        source,
    };
    let reader: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(std::fs::File::open(file).map_err(failed)?))
    };

    let mut outcome = Outcome::default();
    let mut waiting: VecDeque<(usize, Start<'_>)> = VecDeque::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let body = parameters::line(&line, common, number)?;
        let mut request = client.start(&start.domain, &body);
        if let Some(id) = &start.id {
            request = request.operation_id(numbered(id, number)?);
        }
        waiting.push_back((number, request));
        if waiting.len() == AT_ONCE {
            outcome.send(client, &mut waiting, json).await?;
        }
    }
    outcome.send(client, &mut waiting, json).await?;

    let ended = match start.wait {
        true => watch::run(client, &outcome.started, json).await,
        false => Ok(()),
    };
    match ended {
        Ok(()) | Err(Failure::NotCompleted | Failure::NobodyReads) => outcome.check().and(ended),
        Err(_) => ended,
    }
}

fn numbered(id: &OperationId, number: usize) -> Result<OperationId, Failure> {
    format!("{id}-{number}")
        .parse()
        .map_err(|error: ktrdr_client::InvalidName| Failure::Usage(error.to_string()))
}

/// What became of the lines so far.
#[derive(Default)]
struct Outcome {
    started: Vec<OperationId>,
    refused: usize,
    /// Whether a start was refused because the backend cannot answer now.
    is_away: bool,
}

impl Outcome {
    /// Starts what waits, and prints what became of it.
    async fn send(
        &mut self,
        client: &Client,
        waiting: &mut VecDeque<(usize, Start<'_>)>,
        json: bool,
    ) -> Result<(), Failure> {
        let (numbers, starts): (Vec<usize>, Vec<Start<'_>>) = waiting.drain(..).unzip();
        let answer = client.start_many(starts).await?;
        for (number, result) in numbers.into_iter().zip(answer.results) {
            self.note(number, result, json)?;
        }
        Ok(())
    }

    fn note(&mut self, number: usize, result: OneStarted, json: bool) -> Result<(), Failure> {
        if json {
            print(&serde_json::to_string(&result).map_err(io::Error::other)?)?;
        }
        match (result.operation_id, result.error) {
            (Some(id), None) => {
                if !json {
                    print(id.as_str())?;
                }
                self.started.push(id);
            }
            (_, error) => {
                let why = error.unwrap_or_default();
                eprintln!("line {number}: {}", printable(&why));
                self.refused += 1;
                self.is_away |= is_away(result.status_code);
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
