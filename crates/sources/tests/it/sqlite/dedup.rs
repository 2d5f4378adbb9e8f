//! What a second backup stores, and how fast pages are read.

use super::{Home, database, number};
use retoma_repo::backup::{Event, Source};
use retoma_repo::chunk::{Chunker, Sizes};
use retoma_sources::sqlite::SqliteSource;
use std::collections::HashSet;

fn rows(count: u32) -> String {
    format!(
        "CREATE TABLE t (i INTEGER PRIMARY KEY, body TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO t SELECT i, hex(randomblob(100)) FROM n;"
    )
}

#[test]
fn pages_that_did_not_change_are_not_stored_again() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(&path, &format!("PRAGMA journal_mode = WAL; {}", rows(60_000)));
    let first = home.back_up(&path, None);
    let second = home.back_up(&path, Some(first.snapshot));
    assert_eq!(second.read_bytes, home.facts(&second).bytes + facts_bytes(&home, &second), "always read");
    assert!(second.stored_bytes < 20_000, "{} bytes of {}", second.stored_bytes, first.stored_bytes);
    open.execute_batch("UPDATE t SET body = hex(randomblob(100)) WHERE i BETWEEN 100 AND 700;").unwrap();
    let third = home.back_up(&path, Some(second.snapshot));
    // 601 rows of some 220 bytes at one place, in blocks of 64 KiB: what lies around them is not stored again.
    assert!(third.stored_bytes < 500_000, "{} of {}", third.stored_bytes, first.stored_bytes);
    assert_eq!(number(&home.round_trip(&path), "SELECT count(*) FROM t"), 60_000);
}

#[test]
fn blocks_begin_at_the_same_places_in_every_backup() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(&path, &rows(60_000));
    let first = home.back_up(&path, None);
    // At the front of the file: with cuts by content, what follows could move.
    open.execute_batch("CREATE TABLE another (i); INSERT INTO another VALUES (1);").unwrap();
    let second = home.back_up(&path, Some(first.snapshot));
    let (before, after) = (home.node(&first, &path), home.node(&second, &path));
    assert_eq!(before.content.len() as u64, before.size_bytes.div_ceil(64 << 10));
    let same = before.content.iter().zip(&after.content).filter(|(a, b)| a == b).count();
    assert!(same >= before.content.len() - 3, "{same} of {}", before.content.len());
}

fn facts_bytes(home: &Home, summary: &retoma_repo::backup::Summary) -> u64 {
    home.facts(summary).to_json().unwrap().len() as u64
}

/// The numbers in `docs/sources.md`: `RETOMA_MEASURE=1 cargo test -p retoma-sources dedup::measure -- --nocapture`.
#[test]
#[allow(clippy::cast_precision_loss)]
fn measure() {
    if std::env::var_os("RETOMA_MEASURE").is_none() {
        println!("skipped: a measurement of a minute; RETOMA_MEASURE=1 runs it");
        return;
    }
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(
        &path,
        &format!("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; {}", rows(1_000_000)),
    );
    for place in ["WAL", "file"] {
        let started = std::time::Instant::now();
        let mut source = SqliteSource::open(&path).unwrap();
        let opened = started.elapsed();
        let mut buffer = vec![0; 4 << 20];
        while let Some(event) = source.next().unwrap() {
            let Event::Entry(mut node, mut content) = event else { continue };
            if node.name != b"app.db" {
                continue;
            }
            content.describe(&mut node).unwrap();
            let mut reader = content.open().unwrap();
            let (started, mut total) = (std::time::Instant::now(), 0u64);
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => break,
                    count => total += count as u64,
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            reader.finish(total).unwrap();
            let rate = total as f64 / 1e6 / seconds;
            println!("from the {place}: {total} bytes, checked in {opened:?}, read at {rate:.0} MB/s");
        }
        drop(source);
        open.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    }
    let mut parent = home.back_up(&path, None);
    println!("first: {} stored", parent.stored_bytes);
    for (name, update) in [
        ("1 % scattered", "UPDATE t SET body = hex(randomblob(100)) WHERE i % 100 = 7"),
        ("1 % in 100 runs", "UPDATE t SET body = hex(randomblob(100)) WHERE i % 10000 < 100"),
        ("1 % at one place", "UPDATE t SET body = hex(randomblob(100)) WHERE i BETWEEN 500000 AND 510000"),
        ("1 % appended", "INSERT INTO t (body) SELECT hex(randomblob(100)) FROM t LIMIT 10000"),
    ] {
        let before = std::fs::read(home.restore(&parent, &path)).unwrap();
        open.execute_batch(update).unwrap();
        let next = home.back_up(&path, Some(parent.snapshot));
        let after = std::fs::read(home.restore(&next, &path)).unwrap();
        println!("{name}: {} stored of {}", next.stored_bytes, after.len());
        for kib in [4, 16, 64, 256, 1024] {
            let blocks = |bytes: &[u8]| bytes.chunks(kib << 10).map(<[u8]>::len).collect();
            print!("  blocks of {kib} KiB: {:.1} MB", new_bytes(&before, &after, blocks));
        }
        println!();
        for (min, average, max) in
            [(16, 32, 128), (32, 64, 256), (64, 128, 512), (128, 256, 1024), (512, 1024, 4096)]
        {
            let sizes = Sizes { min_bytes: min << 10, average_bytes: average << 10, max_bytes: max << 10 };
            let chunker = Chunker::new(home.repository.key(), sizes);
            let cut = |mut bytes: &[u8]| {
                let mut lengths = Vec::new();
                while !bytes.is_empty() {
                    lengths.push(chunker.cut(bytes));
                    bytes = &bytes[lengths[lengths.len() - 1]..];
                }
                lengths
            };
            print!(
                "  chunks of {average} KiB ({}): {:.1} MB",
                cut(&after).len(),
                new_bytes(&before, &after, cut)
            );
        }
        println!();
        parent = next;
    }
}

/// Megabytes of the pieces of `after` that `before` does not have.
#[allow(clippy::cast_precision_loss)]
fn new_bytes(before: &[u8], after: &[u8], cut: impl Fn(&[u8]) -> Vec<usize>) -> f64 {
    let pieces = |bytes| {
        let mut start = 0;
        cut(bytes).into_iter().map(move |length| {
            start += length;
            &bytes[start - length..start]
        })
    };
    let known: HashSet<&[u8]> = pieces(before).collect();
    let new: HashSet<&[u8]> = pieces(after).filter(|piece| !known.contains(piece)).collect();
    new.iter().map(|piece| piece.len()).sum::<usize>() as f64 / 1e6
}
