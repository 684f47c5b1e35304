//! Figures for Prometheus: counters and histograms that are cheap to count with, and the page they are written on.
//!
//! Text format 0.0.4, which everything that scrapes understands. Label values are few by construction: worker types, statuses,
//! matched routes; never ids.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;

use ktrdr_bus::nats::Connection;

/// The media type of a [`Page`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds for requests, in seconds: from a read of memory to a long `wait`.
pub const REQUEST_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Bounds for operations, in seconds: from one that does nothing to a day of training.
pub const OPERATION_BUCKETS: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
];

/// More label sets than this are counted together under `other`: somebody is making up names.
const MOST_SERIES: usize = 1000;

/// What takes the place of a label's value when there are too many.
const OTHER: &str = "other";

/// Values counted apart by labels.
#[derive(Debug)]
struct Family<T, const N: usize> {
    /// Sorted by label values: found without building a key, for this is done for every request and every event.
    series: Mutex<Vec<([String; N], T)>>,
}

impl<T: Default, const N: usize> Family<T, N> {
    fn update(&self, values: [&str; N], update: impl FnOnce(&mut T)) {
        let mut series = self.series.lock();
        let values = match find(&series, &values) {
            Err(_) if series.len() >= MOST_SERIES => [OTHER; N],
            _ => values,
        };
        let place = find(&series, &values).unwrap_or_else(|place| {
            series.insert(place, (values.map(str::to_owned), T::default()));
            place
        });
        if let Some((_, value)) = series.get_mut(place) {
            update(value);
        }
    }
}

fn find<T, const N: usize>(
    series: &[([String; N], T)],
    values: &[&str; N],
) -> Result<usize, usize> {
    series
        .binary_search_by(|(known, _)| known.iter().map(String::as_str).cmp(values.iter().copied()))
}

/// Counts, apart by `N` labels.
#[derive(Debug)]
pub struct Counters<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    family: Family<u64, N>,
}

impl<const N: usize> Counters<N> {
    /// Nothing counted yet. `name` ends in `_total`.
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self {
            name,
            help,
            labels,
            family: Family {
                series: Mutex::new(Vec::new()),
            },
        }
    }

    /// Counts `by`.
    pub fn add(&self, values: [&str; N], by: u64) {
        self.family.update(values, |count| *count += by);
    }

    /// Writes all of them. One without labels is there from the beginning, so that its first increase is seen.
    pub fn write(&self, page: &mut Page) {
        page.head(self.name, self.help, "counter");
        let series = self.family.series.lock();
        if N == 0 && series.is_empty() {
            page.line(self.name, &[], 0.0);
        }
        for (values, count) in series.iter() {
            let labels: Vec<_> = self
                .labels
                .iter()
                .copied()
                .zip(values.iter().map(String::as_str))
                .collect();
            page.line(self.name, &labels, *count as f64);
        }
    }
}

/// Durations in seconds, apart by `N` labels.
#[derive(Debug)]
pub struct Histograms<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    bounds: &'static [f64],
    family: Family<Observed, N>,
}

#[derive(Debug, Default)]
struct Observed {
    /// One for each bound, not summed up.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl<const N: usize> Histograms<N> {
    /// Nothing observed yet. `name` ends in its unit.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        bounds: &'static [f64],
    ) -> Self {
        Self {
            name,
            help,
            labels,
            bounds,
            family: Family {
                series: Mutex::new(Vec::new()),
            },
        }
    }

    /// Takes one value.
    pub fn observe(&self, values: [&str; N], value: f64) {
        self.family.update(values, |observed| {
            observed.buckets.resize(self.bounds.len(), 0);
            let bucket = self.bounds.partition_point(|bound| *bound < value);
            if let Some(count) = observed.buckets.get_mut(bucket) {
                *count += 1;
            }
            observed.count += 1;
            observed.sum += value;
        });
    }

    /// Takes one duration.
    pub fn observe_duration(&self, values: [&str; N], duration: Duration) {
        self.observe(values, duration.as_secs_f64());
    }

    /// Writes all of them.
    pub fn write(&self, page: &mut Page) {
        page.head(self.name, self.help, "histogram");
        self.write_series(&[], page);
    }

    /// Writes them with these labels besides, under a head that is on the page already.
    fn write_series(&self, outer: &[(&'static str, &str)], page: &mut Page) {
        let (bucket, sum, count) = (
            format!("{}_bucket", self.name),
            format!("{}_sum", self.name),
            format!("{}_count", self.name),
        );
        for (values, observed) in self.family.series.lock().iter() {
            let mut labels = self.labels_of(outer, values);
            let mut up_to = 0;
            for (bound, own) in self.bounds.iter().zip(&observed.buckets) {
                up_to += own;
                let bound = bound.to_string();
                let mut labels = labels.clone();
                labels.push(("le", &bound));
                page.line(&bucket, &labels, up_to as f64);
            }
            labels.push(("le", "+Inf"));
            page.line(&bucket, &labels, observed.count as f64);
            labels.pop();
            page.line(&sum, &labels, observed.sum);
            page.line(&count, &labels, observed.count as f64);
        }
    }

    fn labels_of<'a>(
        &self,
        outer: &[(&'static str, &'a str)],
        values: &'a [String; N],
    ) -> Vec<(&'static str, &'a str)> {
        outer
            .iter()
            .copied()
            .chain(
                self.labels
                    .iter()
                    .copied()
                    .zip(values.iter().map(String::as_str)),
            )
            .collect()
    }
}

/// Histograms of one name that are kept apart by a label more: whoever counts all the time holds the one it needs and does not
/// look for it each time.
#[derive(Debug)]
pub struct HistogramsBy<const N: usize> {
    outer: &'static str,
    make: fn() -> Histograms<N>,
    apart: Mutex<BTreeMap<String, Arc<Histograms<N>>>>,
}

impl<const N: usize> HistogramsBy<N> {
    /// Apart by the label `outer`; `make` makes those of one value.
    pub const fn new(outer: &'static str, make: fn() -> Histograms<N>) -> Self {
        Self {
            outer,
            make,
            apart: Mutex::new(BTreeMap::new()),
        }
    }

    /// Those of this value. There must not be many.
    pub fn of(&self, value: &str) -> Arc<Histograms<N>> {
        let mut apart = self.apart.lock();
        match apart.get(value) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(
                apart
                    .entry(value.to_owned())
                    .or_insert_with(|| Arc::new((self.make)())),
            ),
        }
    }

    /// How many values there were with such labels.
    pub fn count(&self, such: impl Fn(&[String; N]) -> bool) -> u64 {
        let of = |histograms: &Arc<Histograms<N>>| -> u64 {
            let series = histograms.family.series.lock();
            series
                .iter()
                .filter(|(values, _)| such(values))
                .map(|(_, observed)| observed.count)
                .sum()
        };
        self.apart.lock().values().map(of).sum()
    }

    /// Writes how many values there were, as a counter of this name with the same labels.
    pub fn write_counts(&self, name: &str, help: &str, page: &mut Page) {
        page.head(name, help, "counter");
        for (value, histograms) in self.apart.lock().iter() {
            for (values, observed) in histograms.family.series.lock().iter() {
                page.line(
                    name,
                    &histograms.labels_of(&[(self.outer, value)], values),
                    observed.count as f64,
                );
            }
        }
    }

    /// Writes all of them.
    pub fn write(&self, page: &mut Page) {
        let template = (self.make)();
        page.head(template.name, template.help, "histogram");
        for (value, histograms) in self.apart.lock().iter() {
            histograms.write_series(&[(self.outer, value)], page);
        }
    }
}

/// One answer to a scrape.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that goes up and down, in each of its label sets.
    pub fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        self.head(name, help, "gauge");
        for (labels, value) in series {
            self.line(name, &labels, value);
        }
    }

    /// One value that goes up and down.
    pub fn single(&mut self, name: &str, help: &str, value: f64) {
        self.gauge(name, help, [(Vec::new(), value)]);
    }

    /// A count that is kept elsewhere.
    pub fn count(&mut self, name: &str, help: &str, value: u64) {
        self.count_of(name, help, &[], value);
    }

    /// A count that is kept elsewhere, of something that has labels.
    pub fn count_of(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.head(name, help, "counter");
        self.line(name, labels, value as f64);
    }

    /// What both programs say about their connection.
    pub fn nats(&mut self, connection: &Connection) {
        let link = *connection.link.borrow();
        let traffic = connection.client.statistics();
        self.single(
            "ktrdr_nats_connected",
            "Whether there is a connection to NATS.",
            f64::from(u8::from(link.up)),
        );
        let reconnects = link.epoch.saturating_sub(1);
        self.count(
            "ktrdr_nats_reconnects_total",
            "Connections to NATS after the first.",
            reconnects,
        );
        let (received, sent) = (
            traffic.in_messages.load(Relaxed),
            traffic.out_messages.load(Relaxed),
        );
        let (bytes_received, bytes_sent) = (
            traffic.in_bytes.load(Relaxed),
            traffic.out_bytes.load(Relaxed),
        );
        self.count(
            "ktrdr_nats_received_messages_total",
            "Messages received from NATS.",
            received,
        );
        self.count(
            "ktrdr_nats_sent_messages_total",
            "Messages sent to NATS.",
            sent,
        );
        self.count(
            "ktrdr_nats_received_bytes_total",
            "Bytes received from NATS.",
            bytes_received,
        );
        self.count(
            "ktrdr_nats_sent_bytes_total",
            "Bytes sent to NATS.",
            bytes_sent,
        );
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String never fails.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(
                self.0,
                "{}{label}=\"{value}\"",
                if place == 0 { '{' } else { ',' }
            );
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_histograms_are_written_as_prometheus_reads_them() {
        static STARTS: Counters<2> = Counters::new("starts_total", "Starts.", ["type", "status"]);
        STARTS.add(["a\"\\\n", "x"], 2);
        STARTS.add(["a\"\\\n", "x"], 1);
        let times = Histograms::new("time_seconds", "Time.", ["type"], &[0.5, 1.0]);
        for value in [0.5, 0.7, 9.0] {
            times.observe(["b"], value);
        }
        let mut page = Page::new();
        STARTS.write(&mut page);
        times.write(&mut page);
        page.single("up", "Up.", 1.0);
        let expected = "# HELP starts_total Starts.\n# TYPE starts_total counter\n\
            starts_total{type=\"a\\\"\\\\\\n\",status=\"x\"} 3\n\
            # HELP time_seconds Time.\n# TYPE time_seconds histogram\n\
            time_seconds_bucket{type=\"b\",le=\"0.5\"} 1\ntime_seconds_bucket{type=\"b\",le=\"1\"} 2\n\
            time_seconds_bucket{type=\"b\",le=\"+Inf\"} 3\ntime_seconds_sum{type=\"b\"} 10.2\n\
            time_seconds_count{type=\"b\"} 3\n# HELP up Up.\n# TYPE up gauge\nup 1\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn histograms_that_are_held_are_written_under_one_head() {
        let times = HistogramsBy::new("route", || {
            Histograms::new("time_seconds", "Time.", ["method"], &[0.5])
        });
        let held = times.of("/b");
        held.observe(["GET"], 0.1);
        times.of("/b").observe(["GET"], 0.9);
        times.of("/a").observe(["PUT"], 0.1);
        let mut page = Page::new();
        times.write_counts("requests_total", "Requests.", &mut page);
        times.write(&mut page);
        let expected = "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
            requests_total{route=\"/a\",method=\"PUT\"} 1\nrequests_total{route=\"/b\",method=\"GET\"} 2\n\
            # HELP time_seconds Time.\n# TYPE time_seconds histogram\n\
            time_seconds_bucket{route=\"/a\",method=\"PUT\",le=\"0.5\"} 1\n\
            time_seconds_bucket{route=\"/a\",method=\"PUT\",le=\"+Inf\"} 1\n\
            time_seconds_sum{route=\"/a\",method=\"PUT\"} 0.1\ntime_seconds_count{route=\"/a\",method=\"PUT\"} 1\n\
            time_seconds_bucket{route=\"/b\",method=\"GET\",le=\"0.5\"} 1\n\
            time_seconds_bucket{route=\"/b\",method=\"GET\",le=\"+Inf\"} 2\n\
            time_seconds_sum{route=\"/b\",method=\"GET\"} 1\ntime_seconds_count{route=\"/b\",method=\"GET\"} 2\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn made_up_names_do_not_grow_for_ever() {
        let counters = Counters::new("x_total", "X.", ["name"]);
        for number in 0..(MOST_SERIES + 500) {
            counters.add([&number.to_string()], 1);
        }
        let series = counters.family.series.lock();
        assert_eq!(series.len(), MOST_SERIES + 1);
        let other = find(&series, &[OTHER]).unwrap();
        assert_eq!(series[other].1, 500);
    }
}
