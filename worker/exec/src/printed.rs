//! What a process prints: its lines, and which operation they are about.
//!
//! The problem: what a program prints reaches the worker on another way than its messages, a little
//! later, and often without the end of a line. It must not be told of the operation that comes next, which
//! may be of somebody else.
//!
//! How it is solved: one task reads the pipe. Where one operation begins or ends, [`Printed::settle`] has
//! it take all that the pipe holds by then; what has no end of a line counts as a line.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_worker::{Context, LogLevel};
use parking_lot::Mutex;
use rustix::io::ioctl_fionread;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::last_lines::LastLines;
use crate::lines::{Lines, Overlong};

/// Longest line of the log, in bytes. A longer one becomes several.
pub(crate) const MAX_LOG_LINE: usize = 8 * 1024;

/// How long what a process has printed may take to be read.
const PATIENCE: Duration = Duration::from_millis(500);

/// The output of a process that is no message.
#[derive(Debug)]
pub(crate) struct Printed {
    log: Arc<Log>,
    task: Option<JoinHandle<()>>,
    /// When it is dropped, the task reads on for a moment only.
    settles: mpsc::Sender<oneshot::Sender<()>>,
}

/// Where the lines of a process go.
#[derive(Debug)]
pub(crate) struct Log {
    slot: usize,
    pid: u32,
    /// The operation that the process runs.
    operation: Mutex<Option<Context>>,
    last: Mutex<LastLines>,
}

impl Log {
    /// Logs a line, also among the log lines of the operation, and keeps it among the last ones.
    pub(crate) fn line(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        let operation = self.operation.lock().clone();
        let operation_id = operation.as_ref().map(|ctx| ctx.operation_id().as_str());
        // Of no span: an event in the engine's span would be a second line of the operation.
        tracing::info!(
            parent: None,
            slot = self.slot,
            pid = self.pid,
            operation_id,
            "program: {line}"
        );
        if let Some(ctx) = &operation {
            ctx.log(LogLevel::Info, line);
        }
        self.last.lock().push(line);
    }
}

impl Printed {
    /// Begins to read what a process prints to this pipe.
    pub(crate) fn read(
        pipe: impl AsyncRead + AsFd + Unpin + Send + Sync + 'static,
        slot: usize,
        pid: u32,
    ) -> Self {
        let log = Arc::new(Log {
            slot,
            pid,
            operation: Mutex::new(None),
            last: Mutex::default(),
        });
        let (settles, asked) = mpsc::channel(1);
        Self {
            task: Some(tokio::spawn(log_lines(pipe, log.clone(), asked))),
            log,
            settles,
        }
    }

    /// Where the lines go.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// What is printed from now on is about this operation.
    pub(crate) async fn begins(&self, operation: &Context) {
        self.settle().await;
        *self.log.operation.lock() = Some(operation.clone());
        *self.log.last.lock() = LastLines::default();
    }

    /// What is printed from now on is about no operation.
    pub(crate) async fn ends(&self) {
        self.settle().await;
        *self.log.operation.lock() = None;
    }

    /// Returns when all that has been printed is logged.
    pub(crate) async fn settle(&self) {
        let (done, is_done) = oneshot::channel();
        let settled = async {
            // Fails when the task has ended, which has then logged everything.
            if self.settles.send(done).await.is_ok() {
                let _ = is_done.await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, settled).await;
    }

    /// The last lines, with an introduction; empty when there are none. Call it when the process has
    /// ended.
    pub(crate) async fn last_words(&mut self) -> String {
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(PATIENCE, task).await;
        }

        let text = self.log.last.lock().to_string();
        if text.is_empty() {
            return text;
        }
        format!("\nits last lines:\n{text}")
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        // What comes now is of no operation.
        *self.log.operation.lock() = None;
    }
}

/// Logs what a process writes, until a moment after it has gone: what it has started may hold the pipe
/// for ever.
async fn log_lines<R: AsyncRead + AsFd + Unpin>(
    pipe: R,
    log: Arc<Log>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut lines = Lines::new(pipe, MAX_LOG_LINE, Overlong::Cut);
    loop {
        // Reading lines is cancel safe.
        tokio::select! {
            line = lines.next() => match line {
                Ok(Some(line)) => log.line(&line),
                Ok(None) | Err(_) => return,
            },
            done = asked.recv() => match done {
                Some(done) => {
                    take_all(&mut lines, &log).await;
                    let _ = done.send(());
                }
                None => break,
            },
        }
    }

    let rest = async {
        while let Ok(Some(line)) = lines.next().await {
            log.line(&line);
        }
    };
    let _ = tokio::time::timeout(PATIENCE, rest).await;
    log_all(lines.rest(), &log);
}

/// Logs what the pipe holds now. What is written meanwhile is left: a process that writes without end
/// must not hold up the end of an operation.
async fn take_all<R: AsyncRead + AsFd + Unpin>(lines: &mut Lines<R>, log: &Log) {
    let mut left = ioctl_fionread(lines.reader()).unwrap_or(0);
    loop {
        while let Ok(Some(line)) = lines.take_line() {
            log.line(&line);
        }
        if left == 0 {
            break;
        }
        match lines.fill().await {
            Ok(read) if read > 0 => left = left.saturating_sub(read as u64),
            _ => break,
        }
    }
    log_all(lines.rest(), log);
}

fn log_all(lines: impl IntoIterator<Item = bytes::Bytes>, log: &Log) {
    for line in lines {
        log.line(&line);
    }
}
