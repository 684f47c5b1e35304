//! Attacks on what the operations stream says about the settings in force: everybody who may change
//! the stream can write it.

use ktrdr_fuzz::Attack;

use super::*;
use crate::keeping::{base_age, wanted_age};
use crate::settings::SHORTEST_IN_STREAM;

/// The metadata in lines of `key=value`.
fn config(text: &str) -> Config {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Config {
        metadata: pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        ..Config::default()
    }
}

#[test]
fn settings_in_force() {
    let lines = |settings: StreamSettings| {
        let pairs = settings.metadata().into_iter();
        let lines: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        lines.join("\n")
    };
    let large = StreamSettings {
        retention: FOR_EVER,
        metrics_max_bytes: i64::MAX,
        logs_max_age: Duration::from_secs(1),
        ..StreamSettings::default()
    };
    let seeds = [lines(StreamSettings::default()), lines(large)];

    Attack::on("settings in force").with(seeds).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let stored = StoredSettings::of(&config(text));
        let filled = stored.complete_with(Duration::from_secs(30));
        let settings = stored.complete().unwrap_or(filled);

        for duration in [settings.lease, settings.retention, settings.logs_max_age] {
            assert!(
                (SHORTEST_IN_STREAM..=FOR_EVER).contains(&duration),
                "{settings:?}"
            );
        }
        // Every process calculates with them.
        wanted_age(settings.retention, FOR_EVER, base_age(settings.retention));
        let again = Config {
            metadata: settings.metadata(),
            ..Config::default()
        };
        assert_eq!(StoredSettings::of(&again).complete(), Some(settings));
    });
}
