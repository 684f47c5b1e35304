//! A page of operations that goes on in the archive.
//!
//! The problem: an operation that has ended is in the stream and in the archive for a while. A list
//! must show it once, in its place, and count it once, while operations end and leave the stream.
//!
//! How it is solved: the file and the projection are looked at together once, while nothing is being
//! committed. The total is what both have, less what is known to be in both. Then both are walked
//! from the newest start on, segment by segment. Counts tell how many operations a segment adds, so
//! it is read only when the page begins, goes on or ends in it.

use ktrdr_protocol::state::Status;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction};

use super::ArchiveError;
use super::schema::SEGMENT;
use super::store::{self, Entry, Filter, SegmentCount};
use crate::projection::Projection;
use crate::projection::model::Model;
use crate::projection::model::archiving::Listed;
use crate::projection::record::View;

/// Whoever holds a model and lets others look at it for a moment.
pub trait Look {
    /// Looks at the model.
    fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T;
}

impl Look for Projection {
    fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        Projection::look(self, look)
    }
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Worker types; `None` for all.
    pub types: Option<&'a [&'a str]>,
    /// Status; `None` for all.
    pub status: Option<Status>,
    /// Operations to skip.
    pub offset: u64,
    /// Length of the page.
    pub limit: usize,
    /// The page ends after the operation that fills so many bytes.
    pub bytes: usize,
}

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// How many operations match.
    pub total: u64,
    /// The page, newest first.
    pub views: Vec<View>,
    /// Its size in bytes, about.
    pub bytes: usize,
}

/// Tries of a page while the model numbers its operations again. It does so rarely.
const TRIES: u32 = 3;

/// Reads a page. `together` is held while rows are committed and noted in the model.
pub fn page(
    connection: &Connection,
    together: &Mutex<()>,
    models: &impl Look,
    wanted: Wanted<'_>,
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
    wanted: Wanted<'_>,
) -> Result<(Page, bool), ArchiveError> {
    let filter = Filter::new(wanted.types, wanted.status);
    let file = connection.unchecked_transaction()?;
    let (segments, listed) = {
        let _nothing_is_committed = together.lock();
        let segments = store::segments(&file, &filter)?;
        let listed = models.look(|model| model.listed(wanted.types, wanted.status));
        (segments, listed)
    };

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
    let mut skip = wanted.offset;
    while page.views.len() < wanted.limit
        && page.bytes < wanted.bytes
        && let Some(place) = walk.next()
    {
        if skip >= place.operations {
            skip -= place.operations;
            continue;
        }
        for operation in walk.read(&place)? {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if page.views.len() >= wanted.limit || page.bytes >= wanted.bytes {
                break;
            }
            let view = match operation {
                Operation::Here(view) => view,
                Operation::There(entry) => store::view(&walk.file, entry.number)?,
            };
            page.bytes += view.record.size();
            page.views.push(view);
        }
    }
    let is_whole = models.look(|model| model.is_current(&walk.listed));
    Ok((page, is_whole))
}

/// Both sources, walked from the newest segment to the oldest.
struct Walk<'a, L> {
    file: Transaction<'a>,
    models: &'a L,
    filter: Filter,
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

/// An operation that matches.
enum Operation {
    /// In the stream.
    Here(View),
    /// In the archive only.
    There(Entry),
}

impl<L: Look> Walk<'_, L> {
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
