//! The archive: rows a second, beside bare inserts into a file of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::Plan;
use super::http::{Http, get};
use super::lives::whole_lives;
use super::load::{WINDOW, publish_all};
use super::report::{Report, Row, number};
use super::world::World;
use crate::process::BackendProcess;
use crate::scratch::Scratch;

/// Rows in one transaction, as the archive writes them.
const BATCH: usize = 1000;

/// Pause between two looks at how far the archive is.
const LOOK: Duration = Duration::from_millis(20);

/// A backend with a new archive catches up with a stream of operations that have ended.
pub(super) async fn measure(plan: &Plan, report: &mut Report) {
    report.section("Archive");
    let world = World::start().await;
    let operations: u64 = plan.pick(50_000, 500_000);
    let lives = whole_lives(&world.bus.names, operations, 0);
    publish_all(&world.bus.client, WINDOW, lives).await;
    world.completed(operations).await;

    let place = Scratch::new("archive");
    let file = place.join("archive.db");
    let settings = world
        .settings
        .clone()
        .with("KTRDR_ARCHIVE", format!("sqlite:{}", file.display()));
    let begun = Instant::now();
    let backend = BackendProcess::start(&settings).await;
    let ready = begun.elapsed();
    let mut http = Http::open(super::http::address_of(backend.api.base())).await;
    while written(&mut http).await < operations {
        tokio::time::sleep(LOOK).await;
    }
    let took = begun.elapsed().saturating_sub(ready).as_secs_f64();
    let bytes = std::fs::metadata(&file).map_or(0, |found| found.len()) as f64;

    let documents = documents(&file);
    let bare = place.join("bare.db");
    let floor = tokio::task::spawn_blocking(move || bare_rate(&bare, &documents, operations));
    let floor = floor.await.expect("bare inserts");
    let note = format!(
        "{} operations in {took:.2} s after the backend was ready; {} B of file each",
        number(operations as f64),
        number(bytes / operations as f64)
    );
    report.add(
        Row::new("archived operations", operations as f64 / took, "rows/s")
            .beside("bare inserts of the same documents", floor)
            .note(note),
    );
    drop(backend);
    world.shutdown().await;
}

/// How many operations the backend has written.
async fn written(http: &mut Http) -> u64 {
    let (_, page) = http.call(&get("/metrics")).await;
    let page = String::from_utf8_lossy(&page);
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("ktrdr_archive_written_total "));
    line.and_then(|value| value.parse::<f64>().ok())
        .map_or(0, |value| value as u64)
}

/// Some documents of the archive.
fn documents(file: &Path) -> Vec<String> {
    let file = Connection::open(file).expect("the archive");
    let mut rows = file
        .prepare("SELECT document FROM operations LIMIT 1000")
        .expect("a query");
    let rows = rows.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a document")).collect()
}

/// Rows a second of inserts without an index beside the key.
fn bare_rate(file: &Path, documents: &[String], count: u64) -> f64 {
    let mut file = Connection::open(file).expect("a file");
    file.pragma_update(None, "journal_mode", "WAL")
        .expect("a journal");
    file.execute_batch("CREATE TABLE bare (number INTEGER PRIMARY KEY, document TEXT) STRICT")
        .expect("a table");

    let begun = Instant::now();
    let mut left = count as usize;
    while left > 0 {
        let batch = file.transaction().expect("a transaction");
        let rows = left.min(BATCH);
        for document in documents.iter().cycle().take(rows) {
            batch
                .prepare_cached("INSERT INTO bare (document) VALUES (?1)")
                .and_then(|mut insert| insert.execute(params![document]))
                .expect("a row");
        }
        batch.commit().expect("a commit");
        left -= rows;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}
