//! Listing, showing, cancelling and repeating operations.

use ktrdr_client::{Client, ListOperations, OperationDocument, OperationId};
use ktrdr_client::{Status, Timestamp};
use serde_json::Value;

use crate::args::ListArgs;
use crate::failure::Failure;
use crate::text::{
    ago, duration, print, print_json, print_table, printable, shortened, with_fields,
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
            add(
                "result",
                "large: ktrdr show --json has where it is".to_owned(),
            );
        }
        None => {}
    }
    with_fields(headline(operation), &fields)
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
            print_json(&answer)?;
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
            print_json(&started)?;
        } else {
            print(started.operation_id.as_str())?;
        }
    }
    Ok(())
}
