//! Cancelling and repeating all operations that match.

use std::collections::HashSet;

use ktrdr_client::{
    ByFilter, ByFilterResponse, Client, OneByFilter, OperationFilter, OperationId, Status,
    Timestamp,
};

use crate::args::WhichArgs;
use crate::failure::{Failure, is_away};
use crate::text::{complain, print, print_json_line, print_table, printable};

/// Longest list of what would happen.
const SHOWN: usize = 20;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// The operations are cancelled.
    Cancel,
    /// They are run again.
    Retry,
}

/// Which operations are meant.
#[derive(Debug)]
pub enum Asked {
    /// Those with these ids.
    Ids(Vec<OperationId>),
    /// All that match.
    All(Box<ByFilter>),
}

/// Finds out which operations are meant.
///
/// # Errors
/// [`Failure::Usage`] when neither ids nor a filter are given, or both.
pub fn asked(which: WhichArgs) -> Result<Asked, Failure> {
    let filter = which.filter.filter();
    let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
    match (which.ids.is_empty(), filter.is_empty()) {
        (false, true) => Ok(Asked::Ids(which.ids)),
        (true, false) => Ok(Asked::All(Box::new(ByFilter {
            filter,
            limit: which.limit,
            dry_run: !which.yes,
        }))),
        (true, true) => wrong("name operations by their ids, or by a filter like --status failed"),
        (false, false) => wrong("name operations by their ids or by a filter, not by both"),
    }
}

/// Does it for all that match, or says what would happen.
///
/// # Errors
/// [`Failure::Usage`] when operations were refused, [`Failure::Unfinished`] when more match, and other
/// [`Failure`]s. What was done before it stays done.
pub async fn run(
    client: &Client,
    verb: Verb,
    mut asked: ByFilter,
    json: bool,
) -> Result<(), Failure> {
    narrow(verb, &mut asked.filter);
    // One request does it for 1,000. A limit is for all requests together.
    let mut left = asked.limit;
    let mut outcome = Outcome::default();
    loop {
        asked.limit = left.map(|left| left.min(1000));
        let answer = match verb {
            Verb::Cancel => client.cancel_all(&asked).await?,
            Verb::Retry => client.retry_all(&asked).await?,
        };
        show(verb, &asked, &answer, json)?;

        left = left.map(|left| left.saturating_sub(answer.data.results.len() as u64));
        let is_new = outcome.note(&answer);
        outcome.has_more &= left != Some(0);
        if asked.dry_run || !outcome.has_more || !is_new {
            break;
        }
    }

    match (json, asked.dry_run) {
        (true, _) => {}
        (false, true) => print("nothing was changed; --yes does it")?,
        (false, false) => {
            print(&format!("{}: {}", outcome_of(verb), outcome.done))?;
            if outcome.asked_before > 0 {
                print(&format!("asked before: {}", outcome.asked_before))?;
            }
        }
    }
    if asked.dry_run {
        return Ok(());
    }
    outcome.check()
}

/// Leaves out what it cannot be done for, so that every request gets on: what an earlier one ended, and
/// what an earlier one started.
fn narrow(verb: Verb, filter: &mut OperationFilter) {
    if filter.status.is_empty() {
        filter.status = match verb {
            Verb::Cancel => vec![Status::Pending, Status::Running],
            Verb::Retry => vec![Status::Failed, Status::Cancelled],
        };
    }
    if verb == Verb::Retry {
        filter.created_before.get_or_insert_with(Timestamp::now);
    }
}

/// What became of the operations of all requests.
#[derive(Debug, Default)]
struct Outcome {
    seen: HashSet<OperationId>,
    done: u64,
    /// Those that were asked to stop before the first request, and still run.
    asked_before: u64,
    /// Those of the last answer may have been refused before.
    refused: HashSet<OperationId>,
    has_more: bool,
    is_away: bool,
}

impl Outcome {
    /// Notes an answer, and returns whether it is about an operation that no earlier one was about.
    fn note(&mut self, answer: &ByFilterResponse) -> bool {
        let data = &answer.data;
        let before = self.seen.len();
        self.done += data.done;
        for result in &data.results {
            let is_first = self.seen.insert(result.operation_id.clone());
            if result.code.is_some() {
                self.refused.insert(result.operation_id.clone());
            }
            self.asked_before += u64::from(is_first && result.asked_before);
            self.is_away |= is_away(result.status_code);
        }

        // An answer begins with those that it can be done for. So there is none left when it could be done
        // for none of them.
        let is_exhausted = data.done == 0 && !data.results.is_empty() && !self.is_away;
        self.has_more = data.has_more && (!is_exhausted || answer.warning.is_some());
        self.seen.len() > before
    }

    /// # Errors
    /// [`Failure::Unfinished`] and [`Failure::Usage`], when not all was done.
    fn check(&self) -> Result<(), Failure> {
        let refused = self.refused.len();
        let text = format!("{refused} operations were refused");
        if self.has_more {
            Err(Failure::Unfinished("more match; repeat it".to_owned()))
        } else if self.is_away {
            Err(Failure::Unfinished(format!("{text}; repeat it")))
        } else if refused > 0 {
            Err(Failure::Usage(text))
        } else {
            Ok(())
        }
    }
}

fn show(
    verb: Verb,
    asked: &ByFilter,
    answer: &ByFilterResponse,
    json: bool,
) -> Result<(), Failure> {
    if json {
        return print_json_line(answer);
    }
    if let Some(warning) = &answer.warning {
        complain(&format!("warning: {}", printable(warning)));
    }

    let data = &answer.data;
    if !asked.dry_run {
        for result in &data.results {
            if let Some(code) = &result.code {
                complain(&format!("{}: refused: {code}", result.operation_id));
            } else if let Some(new) = &result.retried_as {
                print(new.as_str())?;
            }
        }
        return Ok(());
    }

    let outcome = |result: &OneByFilter| match &result.code {
        Some(code) => format!("refused: {code}"),
        None if result.asked_before => "was asked to stop before".to_owned(),
        None => format!("would be {}", past(verb)),
    };
    let rows = data
        .results
        .iter()
        .take(SHOWN)
        .map(|result| vec![result.operation_id.to_string(), outcome(result)]);
    print_table(&["ID", "WHAT WOULD HAPPEN"], rows.collect())?;
    let more = data
        .matched
        .saturating_sub(data.results.len().min(SHOWN) as u64);
    if more > 0 {
        print(&format!("and {more} more"))?;
    }
    print(&format!("{} match", data.matched))
}

/// What the sum of `done` is about. A cancel does not wait for workers.
fn outcome_of(verb: Verb) -> &'static str {
    match verb {
        Verb::Cancel => "cancelled, or asked to stop",
        Verb::Retry => past(verb),
    }
}

fn past(verb: Verb) -> &'static str {
    match verb {
        Verb::Cancel => "cancelled",
        Verb::Retry => "retried",
    }
}
