//! What the archive needs of the model: which operations that have ended it lacks, and which ones of
//! a list are both here and there.
//!
//! Two bitmaps over operation numbers say it, so a million operations that wait for the archive cost
//! a few kilobytes. An operation that leaves the stream before it was archived is kept as a record,
//! up to [`MAX_LEAVING`].

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ktrdr_protocol::time::Timestamp;
use roaring::RoaringBitmap;

use super::{Model, Record, View};
use crate::projection::Projection;
use crate::projection::filter::{Filter, Page, Wanted};

/// Operations that have left the stream and wait for the archive, at most.
const MAX_LEAVING: usize = 10_000;

/// What of the model is archived.
#[derive(Debug, Default)]
pub(super) struct Archiving {
    /// Operations that have ended and are not known to be in the archive.
    missing: RoaringBitmap,
    /// Operations that are in the archive.
    archived: RoaringBitmap,
    /// Operations that left the stream before they were archived.
    leaving: VecDeque<Ended>,
    /// Operations that were forgotten without being archived.
    missed: u64,
    /// Whether everything that was replayed has been compared with the archive.
    is_compared: bool,
}

/// An operation that has ended and is not known to be in the archive.
#[derive(Debug, Clone)]
pub struct Ended {
    /// When its stream was created, in nanoseconds since 1970: the identity of the stream.
    pub stream: i64,
    /// The operation itself.
    pub record: Arc<Record>,
    /// Its number while it is in the stream.
    number: Option<u32>,
}

impl Ended {
    /// Whether it is the same end of the same operation.
    pub fn is(&self, other: &Self) -> bool {
        self.stream == other.stream
            && self.record.start_sequence == other.record.start_sequence
            && self.record.id == other.record.id
            && self.record.state.last_sequence == other.record.state.last_sequence
    }
}

/// The operations of a list as they were at one moment.
#[derive(Debug)]
pub struct Listed {
    /// Their stream, as in [`Ended`].
    pub stream: i64,
    numbering: u64,
    matching: RoaringBitmap,
    /// Those of them that are in the archive, too.
    archived: RoaringBitmap,
}

impl Listed {
    /// The numbers of the operations.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.matching.iter()
    }

    /// Leaves only those with these numbers.
    pub fn keep(&mut self, numbers: &RoaringBitmap) {
        self.matching &= numbers;
        self.archived &= numbers;
    }

    /// How many they are, and how many of them are in the archive, too.
    pub fn counts(&self) -> (u64, u64) {
        (self.matching.len(), self.archived.len())
    }
}

impl Archiving {
    pub(super) fn ended(&mut self, number: u32) {
        self.missing.insert(number);
    }

    /// Follows a numbering of all operations from 0, without gaps.
    pub(super) fn renumber(&mut self, base: u32, records: &VecDeque<Option<Arc<Record>>>) {
        let missing = std::mem::take(&mut self.missing);
        let archived = std::mem::take(&mut self.archived);
        let there = (0u32..).zip(records).filter(|(_, record)| record.is_some());
        for (number, (place, _)) in (0u32..).zip(there) {
            let before = base.wrapping_add(place);
            if missing.contains(before) {
                self.missing.insert(number);
            }
            if archived.contains(before) {
                self.archived.insert(number);
            }
        }
    }

    /// Notes that an operation leaves the model.
    pub(super) fn forget(&mut self, stream: i64, number: u32, record: &Arc<Record>) {
        self.archived.remove(number);
        if !self.missing.remove(number) {
            return;
        }
        if self.leaving.len() >= MAX_LEAVING {
            // Before the comparison, most of what leaves was archived by an earlier process.
            self.missed += u64::from(self.is_compared);
            return;
        }
        self.leaving.push_back(Ended {
            stream,
            record: Arc::clone(record),
            number: None,
        });
    }
}

impl Model {
    /// Notes from now on which operations the archive lacks.
    pub fn keep_for_archive(&mut self) {
        self.archiving.get_or_insert_default();
    }

    /// Says which stream is read from now on.
    pub fn set_stream(&mut self, created: i128) {
        self.stream = i64::try_from(created).unwrap_or(i64::MAX);
    }

    /// An empty model in place of this one, for another stream. What the archive lacks is kept.
    pub fn take(&mut self) -> Self {
        let summaries = Arc::clone(&self.summaries);
        let mut old = std::mem::replace(
            self,
            Self {
                summaries,
                ..Self::default()
            },
        );
        let Some(mut archiving) = old.archiving.take() else {
            return old;
        };
        for number in std::mem::take(&mut archiving.missing) {
            if let Some(record) = old.record(number) {
                archiving.missing.insert(number);
                archiving.forget(old.stream, number, &record);
            }
        }
        archiving.archived.clear();
        self.archiving = Some(archiving);
        old
    }

    /// How many operations have ended and are not in the archive yet, and how many never will be.
    pub fn archive_lag(&self) -> (u64, u64) {
        self.archiving.as_ref().map_or((0, 0), |archiving| {
            let waiting = archiving.missing.len() + archiving.leaving.len() as u64;
            (waiting, archiving.missed)
        })
    }

    /// Notes that everything that was replayed has been compared with the archive.
    pub fn archive_is_compared(&mut self) {
        if let Some(archiving) = &mut self.archiving {
            archiving.is_compared = true;
        }
    }

    /// Operations that have ended and are not known to be in the archive, oldest first, at most
    /// `most` of them; ends after the one that fills `bytes`.
    pub fn to_archive(&self, most: usize, bytes: usize) -> Vec<Ended> {
        let Some(archiving) = &self.archiving else {
            return Vec::new();
        };
        let here = archiving.missing.iter().filter_map(|number| {
            Some(Ended {
                stream: self.stream,
                record: self.record(number)?,
                number: Some(number),
            })
        });
        let mut taken = 0;
        let has_room = |ended: &Ended| {
            let fits = taken < bytes;
            taken += ended.record.size();
            fits
        };
        let all = archiving.leaving.iter().cloned().chain(here);
        all.take(most).take_while(has_room).collect()
    }

    /// Notes that these operations are in the archive.
    pub fn archived(&mut self, written: &[Ended]) {
        let Some(mut archiving) = self.archiving.take() else {
            return;
        };
        for ended in written {
            let is_it = |record: &Arc<Record>| {
                record.id == ended.record.id
                    && record.state.last_sequence == ended.record.state.last_sequence
            };
            match ended.number.and_then(|number| self.record(number)) {
                Some(record) if self.stream == ended.stream && is_it(&record) => {
                    let number = ended.number.unwrap_or_default();
                    archiving.missing.remove(number);
                    archiving.archived.insert(number);
                }
                // It has left the stream since.
                _ => {
                    let is_other =
                        |other: &Ended| other.stream != ended.stream || !is_it(&other.record);
                    let place = archiving.leaving.iter().position(|other| !is_other(other));
                    if let Some(place) = place {
                        archiving.leaving.remove(place);
                    }
                }
            }
        }
        self.archiving = Some(archiving);
    }

    /// The operations of a list as they are now. It takes no notice of a text that is looked for.
    pub fn listed(&self, filter: &Filter) -> Listed {
        let matching = self.matching(filter).into_owned();
        let archiving = self.archiving.as_ref();
        let archived = archiving.map_or_else(RoaringBitmap::new, |archiving| {
            &archiving.archived & &matching
        });
        Listed {
            stream: self.stream,
            numbering: self.numbering,
            matching,
            archived,
        }
    }

    /// The operations with these numbers, those that are still there.
    pub fn records_listed(&self, listed: &Listed, numbers: &[u32]) -> Vec<(u32, Arc<Record>)> {
        if !self.is_current(listed) {
            return Vec::new();
        }
        let numbers = numbers.iter().copied();
        numbers
            .filter_map(|number| Some((number, self.record(number)?)))
            .collect()
    }

    /// A page of these operations; `None` when they can no longer be read.
    pub fn page_listed(&self, listed: &Listed, wanted: &Wanted) -> Option<Page> {
        self.is_current(listed)
            .then(|| self.page(&listed.matching, wanted))
    }

    /// Sequence of the newest start among `listed` that is below `before`.
    pub fn newest_start(&self, listed: &Listed, before: u64) -> Option<u64> {
        let numbers = self.numbers_started(listed, 0..before);
        let number = listed.matching.range(numbers).next_back()?;
        self.record(number).map(|record| record.start_sequence)
    }

    /// How many of `listed` were started in `sequences`, and how many of these are in the archive,
    /// too.
    pub fn count_listed(&self, listed: &Listed, sequences: Range<u64>) -> (u64, u64) {
        let numbers = self.numbers_started(listed, sequences);
        (
            listed.matching.range_cardinality(numbers.clone()),
            listed.archived.range_cardinality(numbers),
        )
    }

    /// Those of `listed` that were started in `sequences`, newest first.
    pub fn views_listed(&self, listed: &Listed, sequences: Range<u64>) -> Vec<View> {
        let numbers = self.numbers_started(listed, sequences);
        let numbers = listed.matching.range(numbers).rev();
        numbers.filter_map(|number| self.view(number)).collect()
    }

    /// Whether this very operation is in the model.
    pub fn holds(&self, stream: i64, id: &str, start_sequence: u64) -> bool {
        let number = self.numbers.get(id).filter(|_| self.stream == stream);
        number
            .and_then(|number| self.record(*number))
            .is_some_and(|record| record.start_sequence == start_sequence)
    }

    /// The numbers of the operations that were started in `sequences`.
    fn numbers_started(&self, listed: &Listed, sequences: Range<u64>) -> Range<u32> {
        if !self.is_current(listed) {
            return 0..0;
        }
        self.number_from(sequences.start)..self.number_from(sequences.end)
    }

    /// Whether `listed` can still be read: the stream and all numbers are the same.
    pub fn is_current(&self, listed: &Listed) -> bool {
        listed.stream == self.stream && listed.numbering == self.numbering
    }

    /// The first number from which on no operation was started before `sequence`.
    pub(super) fn number_from(&self, sequence: u64) -> u32 {
        self.first_number(|record| record.start_sequence >= sequence)
    }

    /// The first number from which on no operation was started before `time`.
    pub(super) fn number_at(&self, time: Timestamp) -> u32 {
        self.first_number(|record| record.created_at >= time)
    }

    /// The first number from which on all operations are `later`.
    fn first_number(&self, later: impl Fn(&Record) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.records.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // A gap has no record; the next operation speaks for it.
            let mut next = self.records.range(middle..high).zip(middle..);
            let next = next.find_map(|(record, place)| Some((record.as_ref()?, place)));
            match next {
                Some((record, place)) if !later(record) => low = place + 1,
                _ => high = middle,
            }
        }
        self.base + low as u32
    }
}

impl Projection {
    /// Notes which stream is read from now on.
    pub(in crate::projection) fn set_stream(&self, created: i128) {
        *self.stream_created.lock() = Some(created);
        self.model.write().set_stream(created);
    }

    /// Notes from now on which operations the archive lacks.
    pub fn keep_for_archive(&self) {
        self.model.write().keep_for_archive();
    }

    /// Operations that have ended and are not in the archive yet, oldest first, at most `most`; ends
    /// after the one that fills `bytes`.
    pub fn to_archive(&self, most: usize, bytes: usize) -> Vec<Ended> {
        self.model.read().to_archive(most, bytes)
    }

    /// Notes that these operations are in the archive.
    pub fn archived(&self, written: &[Ended]) {
        self.model.write().archived(written);
    }

    /// How many operations have ended and are not in the archive yet, and how many never will be.
    pub fn archive_lag(&self) -> (u64, u64) {
        self.model.read().archive_lag()
    }

    /// Notes that everything that was replayed has been compared with the archive.
    pub fn archive_is_compared(&self) {
        self.model.write().archive_is_compared();
    }
}
