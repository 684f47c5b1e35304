//! Why JetStream has no room for a message: a limit of the stream itself, or the server's disk or own
//! limit. The remedies differ.

use std::error::Error;
use std::fmt;

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The stream or bucket has reached its limit in bytes.
    Limit,
    /// The server has: its disk is full, or JetStream's own limit is reached (`max_file_store`).
    Server,
}

impl NoRoom {
    /// Finds it in an error and its causes; `None` when the error is about something else.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // The code is the same for a limit and for a disk without space; the texts differ.
            if text.contains("maximum bytes exceeded") {
                return Some(Self::Limit);
            }
            let is_server = ["no space left", "insufficient", "resource limits exceeded"]
                .iter()
                .any(|part| text.contains(part));
            if is_server {
                return Some(Self::Server);
            }
            cause = error.source();
        }
        None
    }

    /// What to do about a stream or bucket whose limit is this setting.
    pub fn advice(self, variable: &'static str, flag: &'static str) -> Advice {
        Advice {
            no_room: self,
            variable,
            flag,
        }
    }
}

/// What to do; a text for logs and errors.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    no_room: NoRoom,
    variable: &'static str,
    flag: &'static str,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, flag, .. } = self;
        match self.no_room {
            NoRoom::Limit => write!(
                f,
                "it has reached its limit, {variable}. Raise it: ktrdr-backend configure {flag} … --apply"
            ),
            NoRoom::Server => f.write_str(
                "the NATS server has no room left: its disk is full, or its own limit is reached (max_file_store). Give it more, or lower the limits and the retention: ktrdr-backend configure",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_and_a_full_server_are_told_apart() {
        let find = |text: &str| NoRoom::of(&*Box::<dyn Error>::from(text));

        assert_eq!(find("maximum bytes exceeded"), Some(NoRoom::Limit));
        assert_eq!(find("insufficient resources"), Some(NoRoom::Server));
        assert_eq!(
            find("write x: no space left on device"),
            Some(NoRoom::Server)
        );
        assert_eq!(find("wrong last sequence: 7"), None);
    }
}
