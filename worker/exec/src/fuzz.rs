//! Attacks on what a program says.

use ktrdr_fuzz::Attack;
use ktrdr_protocol::log_line::LogLine;
use ktrdr_worker::testing::TestRun;

use crate::conversation;
use crate::message::{self, Message};

#[test]
fn messages_of_a_program() {
    let page = include_str!("../../../docs/exec.md");
    let seeds = page.lines().filter_map(|line| line.strip_prefix("> "));
    let run = TestRun::new();

    Attack::on("messages of a program").with(seeds).run(|line| {
        if let Ok(Message::Describe(described)) = message::read(line) {
            // What cannot be served is refused with a reason, and nothing else.
            let _ = crate::engine::info(&described);
        }
        let _ = conversation::read(run.ctx(), 1, line);

        assert!(run.progress().percentage <= 100.0);
        run.metrics();
        for line in run.log_lines() {
            assert!(line.text.len() <= LogLine::MAX_TEXT);
        }
    });
}
