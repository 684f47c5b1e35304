//! What a stream had that was replaced by another one, until the new one is read: what is lost then is
//! said in one line.

use ktrdr_protocol::id::OperationId;
use parking_lot::Mutex;

use super::model::Model;

/// What was known of the stream that was replaced last.
#[derive(Debug, Default)]
pub struct Replaced(Mutex<Option<Before>>);

#[derive(Debug)]
struct Before {
    operations: usize,
    /// Operations that had not ended.
    open: Vec<OperationId>,
}

impl Replaced {
    /// Keeps what the stream had. When it is replaced again before it is read, the first one counts.
    pub fn note(&self, old: &Model) {
        self.0.lock().get_or_insert_with(|| Before {
            operations: old.len(),
            open: old.open_ids(),
        });
    }

    /// Says what the new stream, which is read now, no longer has.
    pub fn compare(&self, model: &Model) {
        let Some(before) = self.0.lock().take() else {
            return;
        };
        let is_lost = |id: &&OperationId| model.get(id.as_str()).is_none();
        let lost: Vec<_> = before.open.iter().filter(is_lost).collect();
        tracing::warn!(
            operations = model.len(),
            before = before.operations,
            unfinished_before = before.open.len(),
            unfinished_lost = lost.len(),
            first_lost = lost.first().map(tracing::field::display),
            "the stream was replaced: operations that it no longer has are lost, the others go on"
        );
    }
}
