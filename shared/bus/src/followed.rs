//! When files that may change are read again: tokens, certificates, trusted keys.
//!
//! The problem: such files are replaced while the program runs, one after the other or in pieces. A
//! state in between must change nothing, and a fault that stays must be told, once.
//!
//! How it is solved: the program looks at the files at intervals, and asks [`Followed`] at each look.
//! It reads files whose state is not the one in use. When they cannot be used, what was read before
//! stays in use. The fault is told when the files are in the same state at the next look.
//!
//! Rejected: watching the files by inotify. It misses what happens on network file systems and
//! behind the links of Kubernetes, so the look at intervals would be needed anyway.

/// What is known of files in states `S`.
#[derive(Debug)]
pub struct Followed<S> {
    used: Option<S>,
    /// The state that could not be used, and whether that was told.
    broken: Option<(S, bool)>,
}

impl<S: PartialEq> Followed<S> {
    /// Nothing is in use yet.
    pub fn unread() -> Self {
        Self {
            used: None,
            broken: None,
        }
    }

    /// Files in this state are in use.
    pub fn using(state: S) -> Self {
        Self {
            used: Some(state),
            broken: None,
        }
    }

    /// Whether files that are in this state now must be read: another one is in use. Files that
    /// could not be used are read at every look, because the cause may be another one than the
    /// files.
    pub fn must_read(&mut self, state: &S) -> bool {
        let is_used = self.used.as_ref() == Some(state);
        if is_used {
            self.broken = None;
        }
        !is_used
    }

    /// Takes what came of reading files in this state. Returns the error when it is to be told.
    pub fn note<E>(&mut self, state: S, outcome: Result<(), E>) -> Option<E> {
        let Err(error) = outcome else {
            (self.used, self.broken) = (Some(state), None);
            return None;
        };
        match &mut self.broken {
            Some((known, is_told)) if *known == state => {
                let is_news = !std::mem::replace(is_told, true);
                is_news.then_some(error)
            }
            _ => {
                self.broken = Some((state, false));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_stays_is_told_once_and_one_that_passes_never() {
        let mut files = Followed::using(1);
        assert!(!files.must_read(&1));

        // A state in between.
        assert!(files.must_read(&2));
        assert_eq!(files.note(2, Err("half")), None);
        assert!(files.must_read(&3));
        assert_eq!(files.note::<&str>(3, Ok(())), None);
        assert!(!files.must_read(&3));

        for told in [None, Some("bad"), None, None] {
            assert!(files.must_read(&4));
            assert_eq!(files.note(4, Err("bad")), told);
        }
        // Back to what is in use, and broken in the same way again.
        assert!(!files.must_read(&3));
        for told in [None, Some("bad"), None] {
            assert!(files.must_read(&4));
            assert_eq!(files.note(4, Err("bad")), told);
        }
        assert_eq!(files.note::<&str>(4, Ok(())), None);
        assert!(!files.must_read(&4));
    }
}
