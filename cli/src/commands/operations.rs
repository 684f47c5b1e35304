//! Listing, showing, changing, cancelling and repeating operations.

use ktrdr_client::{
    Client, ExecutionOptions, ListOperations, OperationDocument, OperationId, Priority, Status,
    Timestamp,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::ListArgs;
use crate::failure::Failure;
use crate::text::{
    ago, duration, print, print_json, print_json_line, print_table, printable, shortened, until,
    with_fields,
};

/// Longest summary in a list, in characters.
const SUMMARY: usize = 60;

/// Prints a page of operations.
///
/// # Errors
/// [`Failure`].
pub async fn list(client: &Client, list: ListArgs, json: bool) -> Result<(), Failure> {
    let query = ListOperations {
        filter: list.filter.filter(),
        limit: Some(list.limit),
        ..ListOperations::default()
    };
    let page = client.list(&query).await?;
    if json {
        return print_json(&page);
    }

    let rows = page.operations.iter().map(row).collect();
    print_table(
        &["ID", "TYPE", "STATUS", ">DONE", "CREATED", ">TOOK", "ABOUT"],
        rows,
    )?;
    let shown = page.operations.len() as u64;
    if page.total > shown {
        print(&format!("{shown} of {}; --limit shows more", page.total))?;
    }
    Ok(())
}

fn row(operation: &OperationDocument<'_>) -> Vec<String> {
    let progress = operation.progress.to_progress().unwrap_or_default();
    let about = match (&operation.error_message, &operation.summary) {
        (Some(error), _) => error.as_ref(),
        (None, Some(summary)) => summary.as_ref(),
        (None, None) => "",
    };
    vec![
        operation.operation_id.to_string(),
        operation.operation_type.to_string(),
        operation.status.as_str().to_owned(),
        format!("{:.0} %", progress.percentage),
        ago(operation.created_at),
        operation.duration_seconds.map(duration).unwrap_or_default(),
        shortened(&printable(about), SUMMARY),
    ]
}

/// Prints one operation.
///
/// # Errors
/// [`Failure`].
pub async fn show(client: &Client, id: &OperationId, json: bool) -> Result<(), Failure> {
    let operation = client.get(id).await?;
    if json {
        print_json(&operation)
    } else {
        print(&describe(&operation))
    }
}

/// An operation in some lines: what it is, how it went, and its result or error.
pub fn describe(operation: &OperationDocument<'_>) -> String {
    let mut fields = Vec::new();
    let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));

    if let Some(summary) = &operation.summary {
        add("about", summary.to_string());
    }
    if let Some(worker) = &operation.worker_id {
        add("worker", format!("{worker}, attempt {}", operation.attempt));
    }
    add("created", moment(operation.created_at));
    if let Some(why) = waiting(operation) {
        add("waits", why);
        if let Some(time) = operation.expires_at {
            add("expires", format!("{time} ({})", until(time)));
        }
        let priority = operation.priority.unwrap_or(Priority::USUAL);
        add("priority", priority.number().to_string());
    }
    if let Some(execution) = &operation.execution {
        add_execution(execution, &mut add);
    }
    if let Some(ended) = operation.completed_at {
        add("ended", moment(ended));
    }
    if let Some(error) = &operation.error {
        add("error", format!("{}: {}", error.code, error.message));
    }
    if let Some(next) = &operation.retried_as {
        add("retried as", next.to_string());
    }
    if let Some(before) = &operation.retry_of {
        add("retry of", before.to_string());
    }

    match &operation.result {
        Some(result) => match serde_json::from_str::<Value>(result.get()) {
            Ok(Value::Object(result)) => {
                for (name, value) in result {
                    add(&name, shortened(&value.to_string(), 100));
                }
            }
            _ => add("result", shortened(result.get(), 100)),
        },
        None if operation.result_ref.is_some() => {
            let id = &operation.operation_id;
            add("result", format!("large: ktrdr result {id} prints it"));
        }
        None => {}
    }
    with_fields(headline(operation), &fields)
}

/// What the operation is found by, and the keys that it shares with others.
fn add_execution(execution: &ExecutionOptions, add: &mut impl FnMut(&str, String)) {
    let labels = execution.labels.iter();
    let labels: Vec<_> = labels
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    if !labels.is_empty() {
        add("labels", labels.join(", "));
    }
    if let Some(unique) = &execution.unique {
        add("unique", unique.key.as_str().to_owned());
    }
    if let Some(of) = &execution.concurrency {
        let key = of.key.as_str();
        add("concurrency", format!("{key}, at most {} run", of.limit));
    }
}

/// Why an operation does not run yet; `None` when it does, or has ended.
pub fn waiting(operation: &OperationDocument<'_>) -> Option<String> {
    if operation.status != Status::Pending {
        return None;
    }
    let is_to_come = |time: &Timestamp| time.seconds_since(Timestamp::now()) > 0.0;
    let next = [
        ("to be tried again", operation.retry_at),
        ("for its time", operation.start_at),
    ];
    let timed = next
        .into_iter()
        .find_map(|(what, time)| Some((what, time.filter(is_to_come)?)));
    Some(match (timed, &operation.waits_for_permit) {
        (Some((what, time)), _) => format!("{what}: {time} ({})", until(time)),
        (None, Some(permit)) => permit.to_string().trim_start_matches("waits ").to_owned(),
        (None, None) => match operation.queue_position {
            Some(position) => format!("for a worker, place {position}"),
            None => "for a worker".to_owned(),
        },
    })
}

fn headline(operation: &OperationDocument<'_>) -> String {
    let (id, status) = (&operation.operation_id, operation.status.as_str());
    let took = match operation.duration_seconds {
        Some(seconds) if operation.status == Status::Completed => {
            format!(" in {}", duration(seconds))
        }
        _ => String::new(),
    };
    format!("{} {id}: {status}{took}", operation.operation_type)
}

fn moment(time: Timestamp) -> String {
    format!("{time} ({})", ago(time))
}

/// Prints the result of an operation as it is.
///
/// # Errors
/// [`Failure`].
pub async fn result(client: &Client, id: &OperationId) -> Result<(), Failure> {
    let result: Box<RawValue> = client.result(id).await?;
    print(result.get())
}

/// Gives an operation that waits another priority.
///
/// # Errors
/// [`Failure`].
pub async fn set_priority(
    client: &Client,
    id: &OperationId,
    priority: Priority,
    json: bool,
) -> Result<(), Failure> {
    let operation = client.set_priority(id, priority).await?;
    if json {
        return print_json(&operation);
    }
    let waits = waiting(&operation).unwrap_or_else(|| operation.status.to_string());
    print(&format!(
        "{id}: priority {}, waits {waits}",
        priority.number()
    ))
}

/// Cancels operations, one after the other.
///
/// # Errors
/// [`Failure`]: the first that is refused. Those before it are cancelled.
pub async fn cancel(
    client: &Client,
    ids: &[OperationId],
    reason: Option<&str>,
    json: bool,
) -> Result<(), Failure> {
    for id in ids {
        let answer = client.cancel(id, reason).await?;
        if json {
            print_json_line(&answer)?;
        } else {
            print(&format!("{id}: {}", printable(&answer.message)))?;
        }
    }
    Ok(())
}

/// Runs operations again, and prints the ids of the new ones.
///
/// # Errors
/// [`Failure`]: the first that is refused. Those before it are started.
pub async fn retry(
    client: &Client,
    ids: &[OperationId],
    resume: bool,
    json: bool,
) -> Result<(), Failure> {
    for id in ids {
        let started = if resume {
            client.resume(id).await?
        } else {
            client.retry(id).await?
        };
        if json {
            print_json_line(&started)?;
        } else {
            print(started.operation_id.as_str())?;
        }
    }
    Ok(())
}
