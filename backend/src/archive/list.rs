//! A page of operations that goes on in the archive.
//!
//! The problem: an operation that has ended is in the stream and in the archive for a while. A list
//! must show it once, in its place, and count it once, while operations end and leave the stream.
//!
//! How it is solved: the file and the projection are looked at together once, while nothing is being
//! committed. The total is what both have, less what is known to be in both. Then both are walked
//! from the newest start on, segment by segment. Counts tell how many operations a segment adds, so
//! it is read only when the page begins, goes on or ends in it.

use ktrdr_protocol::rest::query::ListOrder;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};

use super::ArchiveError;
use super::schema::SEGMENT;
use super::store::{self, Condition, Entry, SegmentCount};
use crate::projection::filter::{DamagedRow, Page, Position, Wanted};
use crate::projection::model::archiving::Listed;
use crate::projection::record::{Extent, View};
use crate::projection::search::{Look, TRIES, narrow};

/// Reads a page. `together` is held while rows are committed and noted in the model.
pub fn page(
    connection: &Connection,
    together: &Mutex<()>,
    models: &impl Look,
    wanted: &Wanted,
) -> Result<Page, ArchiveError> {
    let mut tries = 1;
    loop {
        let (page, is_whole) = read(connection, together, models, wanted)?;
        if is_whole || tries >= TRIES {
            return Ok(page);
        }
        tries += 1;
    }
}

/// Reads a page, and returns whether the model was the same meanwhile.
fn read(
    connection: &Connection,
    together: &Mutex<()>,
    models: &impl Look,
    wanted: &Wanted,
) -> Result<(Page, bool), ArchiveError> {
    let filter = Condition::new(&wanted.filter);
    let file = connection.unchecked_transaction()?;
    let (segments, mut listed) = {
        let _nothing_is_committed = together.lock();
        let segments = store::segments(&file, &filter)?;
        let listed = models.look(|model| model.listed(&wanted.filter));
        (segments, listed)
    };

    if let Some(search) = &wanted.filter.search {
        narrow(models, &mut listed, search);
    }
    let in_archive: u64 = segments.iter().map(|segment| segment.operations).sum();
    let (in_stream, in_both) = listed.counts();
    let mut page = Page {
        total: in_stream + in_archive.saturating_sub(in_both),
        ..Page::default()
    };
    let mut walk = Walk {
        file,
        models,
        filter,
        listed,
        segments: segments.into_iter().peekable(),
        before: u64::MAX,
    };
    let oldest_first = match wanted.order {
        ListOrder::Newest => None,
        ListOrder::Oldest => {
            let places: Vec<Place> = std::iter::from_fn(|| walk.next()).collect();
            Some(places.into_iter().rev())
        }
    };
    walk.fill(&mut page, wanted, oldest_first)?;
    let is_whole = models.look(|model| model.is_current(&walk.listed));
    Ok((page, is_whole))
}

/// Both sources, walked from the newest segment to the oldest.
struct Walk<'a, L> {
    file: Transaction<'a>,
    models: &'a L,
    filter: Condition,
    listed: Listed,
    segments: std::iter::Peekable<std::vec::IntoIter<SegmentCount>>,
    /// Sequence before which the segments of the stream follow.
    before: u64,
}

/// A segment in one source or both.
struct Place {
    stream: i64,
    segment: u64,
    /// Operations that match.
    operations: u64,
    is_in_archive: bool,
}

impl Place {
    /// Whether all of its operations come before `position` in this order.
    fn is_before(&self, position: Position, order: ListOrder) -> bool {
        let segment = (position.stream, position.sequence / SEGMENT);
        match order {
            ListOrder::Newest => (self.stream, self.segment) > segment,
            ListOrder::Oldest => (self.stream, self.segment) < segment,
        }
    }
}

impl Operation {
    /// Sequence of its start request.
    fn start_sequence(&self) -> u64 {
        match self {
            Self::Here(view) => view.record.start_sequence,
            Self::There(entry) => entry.start_sequence,
        }
    }
}

/// An operation that matches.
enum Operation {
    /// In the stream.
    Here(View),
    /// In the archive only.
    There(Entry),
}

impl<L: Look> Walk<'_, L> {
    /// Fills the page from its first operation on. `places` are those to walk; without them, those of
    /// [`Walk::next`].
    fn fill(
        &mut self,
        page: &mut Page,
        wanted: &Wanted,
        mut places: Option<impl Iterator<Item = Place>>,
    ) -> Result<(), ArchiveError> {
        let mut skip = match wanted.after {
            None => wanted.offset,
            Some(_) => 0,
        };
        let mut last = None;
        while let Some(place) = match &mut places {
            Some(places) => places.next(),
            None => self.next(),
        } {
            if skip >= place.operations {
                skip -= place.operations;
                continue;
            }
            if wanted
                .after
                .is_some_and(|after| place.is_before(after, wanted.order))
            {
                continue;
            }
            if page.views.len() >= wanted.limit || page.bytes >= wanted.bytes {
                page.next = last;
                return Ok(());
            }

            let mut operations = self.read(&place)?;
            if wanted.order == ListOrder::Oldest {
                operations.reverse();
            }
            for operation in operations {
                let position = Position {
                    stream: place.stream,
                    sequence: operation.start_sequence(),
                };
                let is_after = |after: Position| position.follows(after, wanted.order);
                if skip > 0 || !wanted.after.is_none_or(is_after) {
                    skip = skip.saturating_sub(1);
                    continue;
                }
                if page.views.len() >= wanted.limit || page.bytes >= wanted.bytes {
                    page.next = last;
                    return Ok(());
                }
                let view = match operation {
                    Operation::Here(view) => {
                        page.bytes += view.size(wanted.extent);
                        view
                    }
                    Operation::There(entry) => {
                        let view = match store::view(&self.file, entry.number) {
                            Err(ArchiveError::Damaged(cause)) => {
                                page.damaged.push(DamagedRow {
                                    operation_id: entry.operation_id,
                                    cause,
                                });
                                continue;
                            }
                            read => read?,
                        };
                        // It is in memory as a whole until it is sent, and for this page alone.
                        page.bytes += view.size(Extent::Whole);
                        self.with_retry(view)?
                    }
                };
                page.views.push(view);
                last = Some(position);
            }
        }
        Ok(())
    }

    /// The next segment in which operations match.
    fn next(&mut self) -> Option<Place> {
        let (listed, before) = (&self.listed, self.before);
        let newest = self
            .models
            .look(|model| model.newest_start(listed, before))
            .map(|sequence| (listed.stream, sequence / SEGMENT));
        let archived = self.segments.peek();
        let archived = archived.map(|count| (count.stream, count.segment));
        let (stream, segment) = newest.max(archived)?;

        let is_in_archive = archived == Some((stream, segment));
        let count = self.segments.next_if(|_| is_in_archive);
        let count = count.map_or(0, |count| count.operations);
        let (mut in_stream, mut in_both) = (0, 0);
        if stream == self.listed.stream {
            let range = store::sequences(segment);
            self.before = range.start;
            (in_stream, in_both) = self
                .models
                .look(|model| model.count_listed(&self.listed, range));
        }
        Some(Place {
            stream,
            segment,
            operations: in_stream + count.saturating_sub(in_both),
            is_in_archive,
        })
    }

    /// An operation of the archive with the newest one that repeats it.
    fn with_retry(&self, mut view: View) -> Result<View, ArchiveError> {
        let in_stream = self.models.look(|model| model.retried_as(&view.record));
        view.retried_as = match in_stream {
            Some(newest) => Some(newest),
            None => store::retried_as(&self.file, &view.record)?,
        };
        Ok(view)
    }

    /// The matching operations of a segment, newest first, each once.
    fn read(&self, place: &Place) -> Result<Vec<Operation>, ArchiveError> {
        let &Place {
            stream, segment, ..
        } = place;
        let mut entries = match place.is_in_archive {
            true => store::entries(&self.file, &self.filter, stream, segment)?,
            false => Vec::new(),
        };
        if stream != self.listed.stream {
            return Ok(entries.into_iter().map(Operation::There).collect());
        }

        let range = store::sequences(segment);
        let views = self.models.look(|model| {
            entries.retain(|entry| !model.holds(stream, &entry.operation_id, entry.start_sequence));
            model.views_listed(&self.listed, range)
        });
        let mut entries = entries.into_iter().peekable();
        let mut operations = Vec::with_capacity(views.len() + entries.len());
        for view in views {
            let start = view.record.start_sequence;
            while let Some(newer) = entries.next_if(|entry| entry.start_sequence > start) {
                operations.push(Operation::There(newer));
            }
            operations.push(Operation::Here(view));
        }
        operations.extend(entries.map(Operation::There));
        Ok(operations)
    }
}

#[cfg(test)]
mod tests;
