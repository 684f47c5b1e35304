//! Following operations until they end.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use ktrdr_client::{Client, Error, OperationDocument, OperationId, Status};

use super::operations::{describe, waiting};
use crate::failure::Failure;
use crate::text::{print, print_json_line, printable, remark};

/// How often a running operation is asked for. People see changes at this rate.
const EVERY: Duration = Duration::from_millis(250);

/// Shows a bar for each operation while it runs, then its outcome. With `json`, prints the document
/// of each operation when it has ended.
///
/// # Errors
/// [`Failure::NotCompleted`] when one failed or was cancelled, also when nobody reads the output any
/// more. After another failure, standard error names the operations whose end was not seen.
pub async fn run(client: &Client, ids: &[OperationId], json: bool) -> Result<(), Failure> {
    // indicatif draws nothing when standard error is no terminal.
    let bars = MultiProgress::new();
    let mut waiting: Vec<(&OperationId, ProgressBar)> =
        ids.iter().map(|id| (id, bars.add(new_bar(id)))).collect();
    let (mut all_completed, mut is_read) = (true, true);

    while !waiting.is_empty() {
        let mut still_waiting = Vec::new();
        let mut round = waiting.into_iter();
        while let Some((id, bar)) = round.next() {
            let operation = match client.get(id).await {
                Ok(operation) => operation,
                Err(error) => {
                    // One that does not exist is not worth another try.
                    let is_known = !matches!(error, Error::Refused(_));
                    let this = is_known.then_some((id, bar));
                    let unseen = still_waiting.into_iter().chain(this).chain(round);
                    tell_unseen(&bars, unseen, json);
                    return Err(error.into());
                }
            };
            if !operation.status.is_terminal() {
                update(&bar, &operation);
                still_waiting.push((id, bar));
                continue;
            }

            bar.finish_and_clear();
            all_completed &= operation.status == Status::Completed;
            if is_read {
                // The exit code still says how they ended.
                is_read = match bars.suspend(|| show_end(&operation, json)) {
                    Err(Failure::NobodyReads) => false,
                    shown => shown.map(|()| true)?,
                };
            }
        }
        waiting = still_waiting;
        if !waiting.is_empty() {
            tokio::time::sleep(EVERY).await;
        }
    }

    if all_completed {
        Ok(())
    } else {
        Err(Failure::NotCompleted)
    }
}

/// Says which operations may go on, and how to follow them.
fn tell_unseen<'a>(
    bars: &MultiProgress,
    unseen: impl Iterator<Item = (&'a OperationId, ProgressBar)>,
    json: bool,
) {
    let mut ids = String::new();
    for (id, bar) in unseen {
        bar.finish_and_clear();
        ids.push(' ');
        ids.push_str(id.as_str());
    }
    if ids.is_empty() {
        return;
    }
    let text = format!("not followed to the end; go on with: ktrdr watch{ids}");
    bars.suspend(|| remark(json, &text));
}

fn show_end(operation: &OperationDocument<'_>, json: bool) -> Result<(), Failure> {
    if json {
        print_json_line(operation)
    } else {
        print(&describe(operation))
    }
}

fn new_bar(id: &OperationId) -> ProgressBar {
    let bar = ProgressBar::new(1000);
    // The template is a constant, so it is always valid.
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(id.to_string());
    bar
}

fn update(bar: &ProgressBar, operation: &OperationDocument<'_>) {
    let progress = operation.progress.to_progress().unwrap_or_default();
    bar.set_position((progress.percentage * 10.0) as u64);

    let step = match (waiting(operation), &progress.current_step) {
        (Some(why), _) => format!("waits {why}"),
        (None, Some(step)) => step.clone(),
        (None, None) => operation.status.as_str().to_owned(),
    };
    let message = format!("{:.0} % {step}", progress.percentage);
    bar.set_message(printable(&message).into_owned());
}
