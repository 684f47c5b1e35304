//! The settings in force, as this backend knows them. They live with the operations stream
//! ([`ktrdr_bus::stream_settings`]); the backend reads them whenever it asks the stream about
//! itself, and follows every change.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use ktrdr_bus::settings::AskedSettings;
use ktrdr_bus::stream_settings::{Difference, StoredSettings, StreamSettings};
use tokio::sync::watch;

/// What this backend was asked for, and what is in force.
pub struct SettingsInForce {
    asked: AskedSettings,
    heartbeat_interval: Duration,
    current: watch::Sender<StreamSettings>,
    is_known: AtomicBool,
}

impl SettingsInForce {
    /// What was asked, with defaults for the rest, until the stream says what is in force. The
    /// settings in force are compared with this heartbeat interval.
    pub fn new(asked: AskedSettings, heartbeat_interval: Duration) -> Self {
        Self {
            asked,
            heartbeat_interval,
            current: watch::Sender::new(asked.or_default()),
            is_known: AtomicBool::new(false),
        }
    }

    /// The settings in force.
    pub fn get(&self) -> StreamSettings {
        *self.current.borrow()
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<StreamSettings> {
        self.current.subscribe()
    }

    /// Takes what the operations stream says, if it says all of it.
    pub fn note_stream(&self, config: &Config) {
        if let Some(found) = StoredSettings::of(config).complete() {
            self.note(found);
        }
    }

    /// Takes the settings in force. Says once how they differ from what was asked, and after each
    /// change what contradicts itself.
    pub fn note(&self, found: StreamSettings) {
        let before = self.current.send_replace(found);
        let was_known = self.is_known.swap(true, Ordering::SeqCst);
        if !was_known || before != found {
            for contradiction in found.contradictions(self.heartbeat_interval) {
                tracing::warn!("{contradiction}");
            }
        }
        if was_known {
            for Difference {
                variable,
                stored,
                asked,
                ..
            } in before.differences(&found)
            {
                tracing::info!(
                    setting = variable,
                    from = stored,
                    to = asked,
                    "a setting in force has changed"
                );
            }
            return;
        }

        let differences = found.differences(&self.asked.over(&found));
        if !differences.is_empty() {
            tracing::warn!("{}", said(&differences));
        }
    }
}

/// What is stored, what was asked for, and which command changes it.
fn said(differences: &[Difference]) -> String {
    let listed: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "this backend follows the settings in force, which live with the streams: {}. To change them: ktrdr-backend configure",
        listed.join("; ")
    );
    for Difference { flag, asked, .. } in differences {
        // Writing into a string cannot fail. A text with a space in it has to be quoted.
        let _ = match asked.contains(' ') {
            true => write!(text, " {flag} '{asked}'"),
            false => write!(text, " {flag} {asked}"),
        };
    }
    text.push_str(" --apply");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_command_that_changes_it() {
        let in_force = StreamSettings::default();
        let asked = AskedSettings {
            stream_replicas: Some(3),
            lease: Some(Duration::from_secs(90)),
            ..AskedSettings::default()
        };

        let text = said(&in_force.differences(&asked.over(&in_force)));

        assert!(text.contains("KTRDR_STREAM_REPLICAS is 1, not 3"), "{text}");
        assert!(
            text.ends_with("configure --lease '1m 30s' --stream-replicas 3 --apply"),
            "{text}"
        );
    }

    #[test]
    fn what_the_stream_says_counts() {
        let asked = AskedSettings {
            retention: Some(Duration::from_secs(10)),
            ..AskedSettings::default()
        };
        let settings = SettingsInForce::new(asked, Duration::from_secs(10));
        assert_eq!(settings.get().retention, Duration::from_secs(10));

        settings.note_stream(&Config::default());
        assert_eq!(settings.get().retention, Duration::from_secs(10));
        settings.note(StreamSettings::default());
        assert_eq!(settings.get(), StreamSettings::default());
    }
}
