//! The metric points of one attempt, as the worker's own REST interface shows them.
//!
//! The worker has its points before they are in the stream, also while NATS is away. A cursor names a
//! batch of the stream and a number of points from there on, so that a client can go on reading at a
//! backend, and the other way round.

use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::rest::metrics::Cursor;

/// Metric points kept per operation.
const MAX_POINTS: usize = 10_000;

/// The points of one attempt.
#[derive(Default)]
pub(crate) struct LocalPoints {
    /// With their numbers: the attempt measured so many before.
    points: Vec<(u64, MetricPoint)>,
    /// How many points were measured so far.
    seen: u64,
    /// The batches in the stream that hold points that are kept, in order.
    batches: Vec<StoredBatch>,
    /// The number after the last point that is in the stream.
    stored: u64,
}

#[derive(Clone, Copy)]
struct StoredBatch {
    sequence: u64,
    /// Number of its first point.
    first: u64,
}

/// Some points, and where a client reads on.
pub(crate) struct PointsPage {
    pub(crate) points: Vec<MetricPoint>,
    pub(crate) cursor: Cursor,
    pub(crate) has_more: bool,
}

impl LocalPoints {
    /// Adds points of `attempt` that are not known yet. The attempt measured `before` points before
    /// the first of them.
    pub(crate) fn record(&mut self, before: u64, points: &[MetricPoint], attempt: u32) {
        let new = (before..).zip(points).skip_while(|(n, _)| *n < self.seen);
        let room = MAX_POINTS.saturating_sub(self.points.len());
        self.points.extend(new.take(room).map(|(number, point)| {
            let point = MetricPoint {
                attempt: Some(attempt),
                ..point.clone()
            };
            (number, point)
        }));
        self.seen = self.seen.max(before + points.len() as u64);
    }

    /// Notes that the stream has a batch of `count` points, the first of them with the number
    /// `first`.
    pub(crate) fn stored(&mut self, sequence: u64, first: u64, count: usize) {
        self.stored = self.stored.max(first + count as u64);
        let is_later = |last: &StoredBatch| last.sequence < sequence;
        if first < self.end() && self.batches.last().is_none_or(is_later) {
            self.batches.push(StoredBatch { sequence, first });
        }
    }

    /// Up to `limit` points of the series `names` from `cursor` on; of all series when there are no
    /// names.
    pub(crate) fn page(
        &self,
        cursor: Cursor,
        attempt: u32,
        names: &[String],
        limit: usize,
    ) -> PointsPage {
        let mut next = self.number_at(cursor, attempt);
        let start = self.points.partition_point(|(number, _)| *number < next);
        let rest = self.points.get(start..).unwrap_or_default();
        let mut wanted = rest
            .iter()
            .filter(|(_, point)| names.is_empty() || names.contains(&point.name));

        let mut points = Vec::new();
        for (number, point) in wanted.by_ref().take(limit) {
            next = number + 1;
            points.push(point.clone());
        }
        let has_more = wanted.next().is_some();
        if !has_more {
            next = self.end();
        }
        PointsPage {
            points,
            cursor: self.cursor_at(next, attempt),
            has_more,
        }
    }

    /// The number after the last point that is kept.
    fn end(&self) -> u64 {
        self.points.last().map_or(0, |(number, _)| number + 1)
    }

    /// The number of the first point that was not read.
    fn number_at(&self, cursor: Cursor, attempt: u32) -> u64 {
        match cursor.attempt {
            Some(read) if read > attempt => return self.end(),
            Some(read) if read < attempt => return 0,
            _ => {}
        }

        let batches = &self.batches;
        let next = batches.partition_point(|batch| batch.sequence < cursor.sequence);
        let batch = batches.get(next);
        let is_at = batch.is_some_and(|batch| batch.sequence == cursor.sequence);
        let base = match batch {
            Some(batch) if is_at || next > 0 => batch.first,
            None if !batches.is_empty() => self.stored,
            _ => 0,
        };
        let counts = is_at || cursor.attempt.is_some();
        let index = if counts { cursor.index as u64 } else { 0 };
        base.saturating_add(index).min(self.end())
    }

    /// The cursor of the point with this number.
    fn cursor_at(&self, number: u64, attempt: u32) -> Cursor {
        let after = self.batches.partition_point(|batch| batch.first <= number);
        let batch = after.checked_sub(1).and_then(|last| self.batches.get(last));
        let (sequence, first) = batch.map_or((0, 0), |batch| (batch.sequence, batch.first));
        Cursor {
            sequence,
            index: usize::try_from(number - first).unwrap_or(usize::MAX),
            attempt: Some(attempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktrdr_protocol::time::Timestamp;
    use proptest::prelude::*;

    fn point(value: u32) -> MetricPoint {
        MetricPoint {
            timestamp: Timestamp::EPOCH,
            name: "rows".to_owned(),
            value: Some(f64::from(value)),
            step: None,
            attempt: None,
        }
    }

    fn values(points: &[MetricPoint]) -> Vec<u32> {
        let value = |point: &MetricPoint| point.value.unwrap() as u32;
        points.iter().map(value).collect()
    }

    /// A batch in the stream.
    struct Batch {
        sequence: u64,
        attempt: u32,
        points: Vec<MetricPoint>,
    }

    /// What a backend answers: up to `limit` points of the stream from the cursor on.
    fn read_stream(
        stream: &[Batch],
        mut cursor: Cursor,
        limit: usize,
    ) -> (Vec<MetricPoint>, Cursor) {
        let mut found = Vec::new();
        let from = cursor.sequence;
        for batch in stream.iter().filter(|batch| batch.sequence >= from) {
            let count = batch.points.len();
            let read = cursor.read_of(batch.sequence, batch.attempt, count);
            let room = limit - found.len();
            if count - read > room {
                found.extend_from_slice(&batch.points[read..read + room]);
                let index = read + room;
                let at = Cursor {
                    sequence: batch.sequence,
                    index,
                    attempt: None,
                };
                return (found, if room > 0 { at } else { cursor });
            }
            found.extend_from_slice(&batch.points[read..]);
            cursor = cursor.past(batch.sequence, batch.attempt, count);
        }
        (found, cursor)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Measure(usize),
        Store(usize),
        AskBackend(usize),
        AskWorker(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1usize..6).prop_map(Step::Measure),
            (1usize..6).prop_map(Step::Store),
            (1usize..8).prop_map(Step::AskBackend),
            (1usize..8).prop_map(Step::AskWorker),
        ]
    }

    proptest! {
        /// An earlier attempt ran elsewhere: the client read its points from a backend.
        #[test]
        fn reading_at_backend_and_worker_in_turn_gives_every_point_once(
            earlier in 0u32..5,
            gap in 1u64..4,
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut stream = Vec::new();
            if earlier > 0 {
                let points = (1000..1000 + earlier).map(point).collect();
                stream.push(Batch { sequence: 3, attempt: 1, points });
            }
            let mut sequence = 3;
            let (mut local, mut measured, mut stored) = (LocalPoints::default(), 0, 0);
            let (mut read, mut cursor) = read_stream(&stream, Cursor::default(), 100);

            let store = |stream: &mut Vec<Batch>, local: &mut LocalPoints, sequence: &mut u64, from: usize, to: usize| {
                // Other operations store batches in between.
                *sequence += gap;
                let points: Vec<_> = (from as u32..to as u32).map(point).collect();
                local.stored(*sequence, from as u64, points.len());
                stream.push(Batch { sequence: *sequence, attempt: 2, points });
            };
            for step in steps {
                match step {
                    Step::Measure(count) => {
                        let points: Vec<_> = (measured as u32..(measured + count) as u32).map(point).collect();
                        local.record(measured as u64, &points, 2);
                        measured += count;
                    }
                    Step::Store(count) => {
                        let end = (stored + count).min(measured);
                        if end > stored {
                            store(&mut stream, &mut local, &mut sequence, stored, end);
                            stored = end;
                        }
                    }
                    Step::AskBackend(limit) => {
                        let (points, next) = read_stream(&stream, cursor, limit);
                        read.extend(points);
                        cursor = next.to_string().parse().unwrap();
                    }
                    Step::AskWorker(limit) => {
                        let page = local.page(cursor, 2, &[], limit);
                        prop_assert!(page.points.len() <= limit);
                        read.extend(page.points);
                        cursor = page.cursor.to_string().parse().unwrap();
                    }
                }
            }
            if measured > stored {
                store(&mut stream, &mut local, &mut sequence, stored, measured);
            }
            let (rest, _) = read_stream(&stream, cursor, 1000);
            read.extend(rest);

            let expected: Vec<u32> = (1000..1000 + earlier).chain(0..measured as u32).collect();
            prop_assert_eq!(values(&read), expected);
        }
    }

    #[test]
    fn points_and_batches_beyond_the_bound_are_not_kept() {
        let mut local = LocalPoints::default();
        for batch in 0..200 {
            let first = batch * 100;
            let points: Vec<_> = (first as u32..first as u32 + 100).map(point).collect();
            local.record(first, &points, 1);
            local.stored(batch + 1, first, 100);
        }

        assert_eq!((local.points.len(), local.batches.len()), (MAX_POINTS, 100));
        let page = local.page(Cursor::default(), 1, &[], 20_000);
        assert_eq!((page.points.len(), page.has_more), (MAX_POINTS, false));
        let end = local.page(page.cursor, 1, &[], 10);
        assert_eq!((end.points.len(), end.has_more), (0, false));
        assert_eq!(end.cursor, page.cursor);
    }

    #[test]
    fn cursors_of_other_attempts_begin_or_end() {
        let mut local = LocalPoints::default();
        local.record(0, &[point(0), point(1)], 2);
        let at = |attempt| Cursor {
            sequence: 7,
            index: 1,
            attempt: Some(attempt),
        };

        assert_eq!(values(&local.page(at(1), 2, &[], 10).points), [0, 1]);
        assert_eq!(values(&local.page(at(2), 2, &[], 10).points), [1]);
        assert!(local.page(at(3), 2, &[], 10).points.is_empty());
    }
}
