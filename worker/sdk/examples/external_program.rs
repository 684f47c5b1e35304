//! Runs another program, and kills it with all its children when the engine is asked to stop.
//!
//! ```sh
//! cargo run -p ktrdr-worker --example external_program
//! curl -X POST localhost:8000/api/v1/shell/start -d '{"script": "sleep 60 | cat"}'
//! ```

use std::process::{ExitCode, Stdio};

use anyhow::Context as _;
use ktrdr_worker::{Context, Engine, OperationError};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::process::Command;

/// Never offer this one to strangers: it runs any script.
struct Shell;

#[derive(Deserialize, JsonSchema)]
struct ShellRequest {
    script: String,
}

impl Engine for Shell {
    const NAME: &'static str = "shell";
    type Request = ShellRequest;
    type Output = String;

    async fn run(&self, ctx: Context, request: ShellRequest) -> Result<String, OperationError> {
        let child = Command::new("sh")
            .args(["-c", &request.script])
            .current_dir(ctx.data_dir().root())
            .stdout(Stdio::piped())
            // A process group of its own: a plain kill would leave the children of `sh` running.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let group = ProcessGroup(child.id());

        let output = tokio::select! {
            output = child.wait_with_output() => output?,
            // Returning drops `group`, which kills it.
            () = ctx.cancelled() => return Err(OperationError::Cancelled),
        };
        drop(group);

        if !output.status.success() {
            return Err(OperationError::failed(format!(
                "sh ended with {}",
                output.status
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Killed when dropped, also when the engine itself is dropped or panics.
struct ProcessGroup(Option<u32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
            // Fails when the whole group has ended already.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

fn main() -> ExitCode {
    ktrdr_worker::main(Shell)
}

#[cfg(test)]
mod tests {
    use ktrdr_worker::OperationError;
    use ktrdr_worker::testing::TestRun;
    use serde_json::json;
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe::OpenOptions;

    use super::Shell;

    #[tokio::test]
    async fn returns_what_the_program_wrote() {
        let run = TestRun::new();
        let output = run.run(&Shell, json!({"script": "echo 1 | cat"})).await;
        assert_eq!(output.unwrap(), "1\n");

        let error = run.run(&Shell, json!({"script": "exit 3"})).await;
        assert!(error.unwrap_err().to_string().contains("exit status: 3"));
    }

    #[tokio::test]
    async fn a_cancel_kills_the_children_too() {
        let dir = tempfile::tempdir().unwrap();
        let run = TestRun::in_dir(&dir);
        let pipe = dir.path().join("alive");
        // The grandchild holds the write end of the pipe open for as long as it lives.
        let script = "mkfifo alive; (echo; exec sleep 3600) > alive & wait";

        let cancel_when_it_runs = async {
            while !pipe.exists() {
                tokio::task::yield_now().await;
            }
            let mut reader = OpenOptions::new().open_receiver(&pipe).unwrap();
            while reader.read(&mut [0]).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
            run.cancel();
            reader
        };
        let (result, mut reader) = tokio::join!(
            run.run(&Shell, json!({"script": script})),
            cancel_when_it_runs
        );

        assert_eq!(result, Err(OperationError::Cancelled));
        // The pipe ends only when nobody holds the write end: the grandchild is dead.
        reader.read_to_end(&mut Vec::new()).await.unwrap();
    }
}
