//! Log lines of one operation.

use std::time::Duration;

use ktrdr_client::{Client, LogLevel, LogLine, OperationId, ReadLogs};

use crate::args::LogsArgs;
use crate::failure::Failure;
use crate::text::{print, printable};

/// How often lines are asked for while an operation runs.
const EVERY: Duration = Duration::from_millis(500);

/// Lines of one page.
const PAGE: u64 = 1000;

/// Prints the lines; with `follow` also those that come, until the operation has ended. With `json`, each
/// line is one JSON object.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, args: &LogsArgs, json: bool) -> Result<(), Failure> {
    let mut attempt = None;
    let mut query = ReadLogs {
        level: args.level,
        limit: Some(PAGE),
        ..ReadLogs::default()
    };
    loop {
        // Before the lines are read: all of them are stored before the end is.
        let has_ended = !args.follow || has_ended(client, &args.id).await?;
        let page = client.logs(&args.id, &query).await?;
        for line in &page.lines {
            show(line, &mut attempt, json)?;
        }
        query.cursor = Some(page.cursor);

        if page.has_more {
            continue;
        }
        if has_ended {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn has_ended(client: &Client, id: &OperationId) -> Result<bool, Failure> {
    Ok(client.get(id).await?.status.is_terminal())
}

fn show(line: &LogLine, attempt: &mut Option<u32>, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string(line).map_err(std::io::Error::other)?;
        return print(&text);
    }
    if line.attempt != *attempt {
        if let Some(number) = line
            .attempt
            .filter(|number| *number > 1 || attempt.is_some())
        {
            let worker = line.worker_id.as_ref().map_or("", |worker| worker.as_str());
            print(&format!("--- attempt {number} on {}", printable(worker)))?;
        }
        *attempt = line.attempt;
    }
    print(&written(line))
}

/// The line for people. What follows a line break is indented, so that it cannot look like another line.
fn written(line: &LogLine) -> String {
    let mut parts = line.text.lines().map(printable);
    let first = parts.next().unwrap_or_default();
    let level = line.level.as_str().to_uppercase();
    let mut text = format!("{} {level:<5} {first}", line.timestamp);
    for (name, value) in &line.fields {
        text.push_str(&format!(
            " {}={}",
            printable(name),
            printable(&value.to_string())
        ));
    }
    for part in parts {
        text.push_str("\n    ");
        text.push_str(&part);
    }
    text
}

/// The level of an argument.
///
/// # Errors
/// The text says which levels there are.
pub fn level(text: &str) -> Result<LogLevel, String> {
    text.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_so_that_it_is_one() {
        let line: LogLine = serde_json::from_str(
            r#"{"timestamp":"2025-11-10T10:30:00Z","level":"warn","text":"two\n2025 ERROR lines","fields":{"rows":7}}"#,
        )
        .unwrap();

        assert_eq!(
            written(&line),
            "2025-11-10T10:30:00.000Z WARN  two rows=7\n    2025 ERROR lines"
        );
    }
}
