//! The pages of a database as bytes, whatever pieces are asked for.

use super::super::database::{Access, Options};
use super::*;
use proptest::prelude::*;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// A database of some pages of this size, with nothing beside it.
fn database(folder: &Path, page_bytes: u32, rows: u32) -> PathBuf {
    let path = folder.join("db.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "page_size", page_bytes).unwrap();
    connection.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)").unwrap();
    let insert = "INSERT INTO t SELECT value, randomblob(300) FROM generate";
    let numbers = format!(
        "WITH RECURSIVE generate(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM generate LIMIT {rows})"
    );
    connection.execute(&format!("{numbers} {insert}"), ()).unwrap();
    path
}

fn reader(path: &Path) -> PageReader {
    let database = Database::begin_with(path, Access::Immutable, Options::default()).unwrap();
    let facts = database.facts().unwrap();
    PageReader::new(database, facts.page_size, facts.page_count).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn in_any_pieces_the_pages_are_the_file(
        page in prop::sample::select(vec![512u32, 1024, 4096]),
        rows in 0u32..40,
        pieces in prop::collection::vec(prop_oneof![1usize..600, Just(512), Just(1024), Just(4096), 4000usize..20_000], 1..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path(), page, rows);
        let file = std::fs::read(&path).unwrap();
        let mut reader = reader(&path);
        prop_assert_eq!(reader.size_bytes(), Some(file.len() as u64));
        let (mut read, mut sizes) = (Vec::new(), pieces.iter().cycle());
        loop {
            let mut buffer = vec![0xAA; *sizes.next().unwrap()];
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..count]);
            prop_assert!(read.len() <= file.len());
        }
        prop_assert!(read == file, "{} of {} bytes are the same", read.iter().zip(&file).filter(|(a, b)| a == b).count(), file.len());
        reader.finish(read.len() as u64).unwrap();
    }
}

#[test]
fn who_has_not_read_all_of_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), 4096, 10);
    let size = std::fs::metadata(&path).unwrap().len();
    for bytes in [0, size - 1, size + 1] {
        let error = reader(&path).finish(bytes).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::SOURCE_CHANGED), "{bytes}");
    }
}

#[test]
fn pages_stay_together_in_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), 4096, 10);
    let reader = reader(&path);
    let block = reader.block_bytes().unwrap();
    assert!(block.is_multiple_of(4096) && block >= 64 << 10, "{block}");
}
