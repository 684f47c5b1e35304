use std::cell::Cell;

use proptest::prelude::*;

use super::*;

/// A stream of which one copy, or its leader, lags.
struct Lagging {
    /// Sequences of all messages.
    stored: Vec<u64>,
    /// How many of them the copy has that answers direct gets.
    copied: usize,
    /// How many messages the leader does not have yet.
    leader_lacks: Cell<usize>,
    /// Messages that a page may have, whatever was asked for.
    page: usize,
    /// What the leader was asked.
    asked: Cell<usize>,
}

impl Lagging {
    fn of(count: u64, copied: usize) -> Self {
        Self {
            stored: (1..=count).map(|number| number * 3).collect(),
            copied,
            leader_lacks: Cell::new(0),
            page: 4,
            asked: Cell::new(0),
        }
    }

    fn message(sequence: u64) -> StoredMessage {
        StoredMessage {
            sequence,
            time: None,
            payload: Bytes::from_static(b"twelve bytes"),
        }
    }
}

impl Source for Lagging {
    fn stream(&self) -> &'static str {
        "S"
    }

    async fn page(&self, from: u64, count: usize) -> Result<Page, PageError> {
        let known = self.stored.iter().take(self.copied);
        let left: Vec<u64> = known
            .copied()
            .filter(|sequence| *sequence >= from)
            .collect();
        let taken = left.len().min(count).min(self.page);
        Ok(Page {
            messages: left[..taken].iter().copied().map(Self::message).collect(),
            more: left.len() > taken,
        })
    }

    async fn next(&self, from: u64) -> Result<Option<StoredMessage>, PageError> {
        self.asked.set(self.asked.get() + 1);
        let lacks = self.leader_lacks.get();
        let known = self.stored.iter().rev().skip(lacks).rev();
        let next = known.copied().find(|sequence| *sequence >= from);
        // It catches up.
        if next.is_none() {
            self.leader_lacks.set(lacks.saturating_sub(1));
        }
        Ok(next.map(Self::message))
    }
}

const ALL: Most = Most {
    messages: 1000,
    bytes: 1_000_000,
};

fn sequences(page: &Page) -> Vec<u64> {
    page.messages
        .iter()
        .map(|message| message.sequence)
        .collect()
}

proptest! {
    /// However far the copy that answers is behind, whatever the limits.
    #[test]
    fn nothing_is_missing_when_a_copy_lags(
        count in 0_u64..40, copied in 0_usize..40, messages in 1_usize..50,
    ) {
        let source = Lagging::of(count, copied);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();

        let read = runtime.block_on(read_all(&source, Most { messages, ..ALL }, 0)).unwrap();

        let expected: Vec<u64> = source.stored.iter().copied().take(messages).collect();
        prop_assert_eq!(sequences(&read), expected);
        prop_assert_eq!(read.more, source.stored.len() > messages);
    }
}

#[tokio::test]
async fn the_leader_is_asked_once_when_no_copy_lags() {
    let source = Lagging::of(9, 9);

    let read = read_all(&source, ALL, 27).await.unwrap();

    assert_eq!((read.messages.len(), source.asked.get()), (9, 1));
}

#[tokio::test]
async fn a_page_that_a_lagging_copy_answers_is_completed_up_to_its_size() {
    let source = Lagging::of(9, 2);

    let page = whole_page(&source, 4, 3).await.unwrap();

    assert_eq!((sequences(&page), page.more), (vec![6, 9, 12], true));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_waited_for() {
    let source = Lagging::of(9, 5);
    source.leader_lacks.set(2);

    let read = read_all(&source, ALL, 27).await.unwrap();

    assert_eq!(sequences(&read), source.stored);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_and_does_not_come_is_an_error() {
    let source = Lagging::of(9, 9);

    let error = read_all(&source, ALL, 28).await.unwrap_err();

    assert_eq!(error.to_string(), "stream S does not have message 28 yet");
}
