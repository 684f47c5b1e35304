//! The worker of `docs/new-worker.md`: counts the words of a text file.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example word_count -- --data-dir data
//! curl -X POST localhost:8000/api/v1/word-count/start -d '{"file":"messy/titanic.csv"}'
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use ktrdr_worker::{Context, Engine, OperationError, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

struct WordCount;

/// What to count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WordCountRequest {
    /// A text file in the data directory.
    file: String,
    /// How many of the most frequent words to report.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 1000))]
    top: usize,
}

fn ten() -> usize {
    10
}

/// The result.
#[derive(Serialize, JsonSchema)]
struct WordCountOutput {
    lines: u64,
    words: u64,
    most_frequent: Vec<(String, u64)>,
}

impl Engine for WordCount {
    const NAME: &'static str = "word_count";
    const DESCRIPTION: &'static str = "Counts the words of a text file.";
    type Request = WordCountRequest;
    type Output = WordCountOutput;

    async fn run(
        &self,
        ctx: Context,
        request: WordCountRequest,
    ) -> Result<WordCountOutput, OperationError> {
        // Reading and counting block a thread; this one may.
        ctx.blocking(move |ctx| count(ctx, &request)).await
    }
}

fn count(ctx: &Context, request: &WordCountRequest) -> Result<WordCountOutput, OperationError> {
    let file = ctx.data_dir().open(&request.file)?;
    let total = file.metadata()?.len();

    let (mut lines, mut words, mut bytes) = (0, 0, 0);
    let mut counts = BTreeMap::<String, u64>::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        for word in words_of(&line) {
            *counts.entry(word.to_lowercase()).or_default() += 1;
            words += 1;
        }

        lines += 1;
        bytes += line.len() as u64 + 1;
        if lines % 1000 == 0 {
            ctx.check_cancelled()?;
            ctx.metric("words", words as f64);
        }
        ctx.progress_with(|| progress(Progress::ratio(bytes, total), lines));
    }
    // `progress_with` skips reports that come too soon; this one says where it ended.
    ctx.progress(progress(Progress::new(100.0), lines));

    let mut most_frequent: Vec<_> = counts.into_iter().collect();
    most_frequent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    most_frequent.truncate(request.top);
    Ok(WordCountOutput {
        lines,
        words,
        most_frequent,
    })
}

fn words_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

fn progress(progress: Progress, lines: u64) -> Progress {
    progress.step(format!("Line {lines}")).field("lines", lines)
}

fn main() -> ExitCode {
    ktrdr_worker::main(WordCount)
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;

    use super::WordCount;

    #[tokio::test]
    async fn counts_words() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "To be, or not\nto be\n").unwrap();

        let run = TestRun::in_dir(&dir);
        let output = run
            .run(&WordCount, json!({"file": "a.txt", "top": 2}))
            .await
            .unwrap();

        assert_eq!(
            (
                run.progress().percentage,
                run.progress().fields["lines"].as_u64()
            ),
            (100.0, Some(2))
        );
        assert_eq!((output.lines, output.words), (2, 6));
        assert_eq!(
            output.most_frequent,
            [("be".to_owned(), 2), ("to".to_owned(), 2)]
        );
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named() {
        let error = TestRun::in_dir(".")
            .run(&WordCount, json!({"file": "no.txt"}))
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("no.txt"), "{error}");
    }
}
