//! Where an engine panicked.
//!
//! The problem: what is caught of a panic is its message. The place is told only to the panic hook of
//! the process, on the thread that panics, and from there it goes to the log of one worker.
//!
//! How it is solved: a hook in front of the one that is there keeps the place for its thread, and
//! whoever catches the panic on the same thread adds it to the message.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;
use std::task::Poll;

thread_local! {
    /// Where this thread panicked last.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Keeps the places of panics from now on. The hook that is there is called as before.
pub(crate) fn keep_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string);
            // A thread that is ending has no such place any more.
            let _ = PLACE.try_with(|kept| kept.set(place));
            before(info);
        }));
    });
}

/// Runs `work`. A panic of it goes on, with its place in the message.
pub(crate) fn located<T>(work: impl FnOnce() -> T) -> T {
    PLACE.set(None);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| resume_unwind(with_place(panic)))
}

/// [`located`], for each step of a future.
pub(crate) async fn located_steps<F: Future>(work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| -> Poll<F::Output> { located(|| work.as_mut().poll(cx)) }).await
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    text(panic).unwrap_or("no message").to_owned()
}

fn text(panic: &(dyn Any + Send)) -> Option<&str> {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

/// Adds the place to a message. What is no message stays as it is: who threw it may want to catch
/// it.
fn with_place(panic: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
    match (text(&*panic), PLACE.take()) {
        // Without a place it came from another thread, which may have added its own.
        (Some(text), Some(place)) => Box::new(format!("{text}, at {place}")),
        _ => panic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(work: impl FnOnce()) -> String {
        keep_places();
        let panic = catch_unwind(AssertUnwindSafe(|| located(work))).unwrap_err();
        message(&*panic)
    }

    #[test]
    fn the_place_is_told_once() {
        let line = line!() + 1;
        let direct = told(|| panic!("too hot"));
        let through_a_thread = told(|| {
            let thread = std::thread::spawn(|| located(|| panic!("too hot")));
            resume_unwind(thread.join().unwrap_err());
        });

        assert_eq!(direct, format!("too hot, at {}:{line}:30", file!()));
        assert_eq!(through_a_thread.matches(", at ").count(), 1);
    }

    #[test]
    fn a_caught_panic_leaves_no_place_for_a_later_one() {
        let told = told(|| {
            let _ = catch_unwind(|| panic!("caught"));
            located(|| ());
            resume_unwind(Box::new("thrown without a place"));
        });

        assert_eq!(told, "thrown without a place");
    }

    #[tokio::test]
    async fn a_step_of_a_future_has_its_place_too() {
        keep_places();
        let panicking = tokio::spawn(located_steps(async {
            tokio::task::yield_now().await;
            let nothing: Vec<u8> = Vec::new();
            nothing[std::hint::black_box(7)]
        }));

        let panic = panicking.await.unwrap_err().into_panic();

        let told = message(&*panic);
        assert!(
            told.contains("out of bounds") && told.contains("panics.rs:"),
            "{told}"
        );
    }
}
