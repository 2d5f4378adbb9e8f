//! What was captured, as data: written into the snapshot, compared with the next backup and with restored copies.

use crate::stored;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The value of the field `schema`.
const SCHEMA: &str = "retoma.capture/1";

/// Where a snapshot holds its facts.
pub const FACTS_PATH: &str = "/.retoma/capture.json";

/// The folder and the name of [`FACTS_PATH`].
pub(super) const FACTS_PARTS: [&str; 2] = [".retoma", "capture.json"];

/// Facts are read whole; a database with a hundred thousand tables stays below.
const LIMIT_BYTES: u64 = 32 << 20;

/// What one capture found. In JSON, its schema is `retoma.capture/1`; fields that are not known are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureFacts {
    /// Always `retoma.capture/1`.
    pub schema: String,
    /// Always `sqlite`.
    pub kind: String,
    /// The database file, as it was given.
    pub path: String,
    /// Its size as of the transaction, in bytes; the file on disk may be behind the WAL.
    pub bytes: u64,
    /// Size of a page in bytes.
    pub page_size: u64,
    /// Number of pages.
    pub page_count: u64,
    /// Rows of every ordinary table, by name. Not in here: views, virtual tables and the tables behind them, and
    /// SQLite's own tables.
    pub tables: BTreeMap<String, u64>,
    /// Always `ok`: what SQLite's own check said.
    pub integrity: String,
    /// `wal` or `rollback`.
    pub journal_mode: String,
    /// The application's version of its schema.
    pub user_version: i64,
    /// The application's mark in the file.
    pub application_id: i64,
    /// Version of the SQLite that read it.
    pub sqlite_version: String,
}

impl CaptureFacts {
    pub(super) fn schema() -> String {
        SCHEMA.to_owned()
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }

    /// Writes the facts as JSON.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        stored::to_json(self)
    }

    /// Reads facts.
    ///
    /// # Errors
    /// `Unsupported` for another schema, `Corrupt` for what are no facts.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        stored::from_json(json, FACTS_PATH, SCHEMA)
    }
}

/// The facts in the snapshot whose root is `tree`; `None` where it has none.
///
/// # Errors
/// What reading the repository says; see [`CaptureFacts::from_json`].
pub fn facts_of(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Option<CaptureFacts>> {
    let json = stored::file(repository, index, tree, FACTS_PATH, LIMIT_BYTES)?;
    json.map(|json| CaptureFacts::from_json(&json)).transpose()
}

/// How many tables a message names.
const NAMED: usize = 5;

/// Whether data are gone that the previous backup had: a table that had rows has none, or is not there any more. Tables
/// in `may_be_empty` are passed over. Without previous facts nothing is known, and all is well.
///
/// # Errors
/// `Invalid` with `R0403`, naming the tables.
pub fn compare(
    previous: Option<&CaptureFacts>,
    now: &CaptureFacts,
    may_be_empty: &[impl AsRef<str>],
) -> Result<()> {
    let Some(previous) = previous else { return Ok(()) };
    let lost: Vec<String> = previous
        .tables
        .iter()
        .filter(|(name, rows)| **rows > 0 && !may_be_empty.iter().any(|allowed| allowed.as_ref() == *name))
        .filter_map(|(name, rows)| match now.tables.get(name) {
            None => {
                Some(format!("`{}` ({} before, dropped)", name.escape_debug(), counted(*rows, "row", "rows")))
            }
            Some(0) => {
                Some(format!("`{}` ({} before, 0 now)", name.escape_debug(), counted(*rows, "row", "rows")))
            }
            Some(_) => None,
        })
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let more = if lost.len() > NAMED { format!(" and {} more", lost.len() - NAMED) } else { String::new() };
    let named = lost.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let message = format!("`{}` has lost all rows of {named}{more}", now.path);
    Err(Error::new(ErrorKind::Invalid, codes::SOURCE_EMPTY, message).with_hint(
        "if this was not meant, restore the last good snapshot with `retoma restore COMPONENT --target DIR`; if it \
         was, list the table in the component's `may_be_empty` in the manifest",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(tables: &[(&str, u64)]) -> CaptureFacts {
        CaptureFacts {
            schema: CaptureFacts::schema(),
            kind: "sqlite".into(),
            path: "/srv/app.db".into(),
            bytes: 8192,
            page_size: 4096,
            page_count: 2,
            tables: tables.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect(),
            integrity: "ok".into(),
            journal_mode: "wal".into(),
            user_version: -3,
            application_id: 7,
            sqlite_version: "3".into(),
        }
    }

    #[test]
    fn lost_tables_are_named() {
        let before = facts(&[("a", 3), ("b", 0), ("c", 1)]);
        let none: [&str; 0] = [];
        compare(None, &facts(&[("a", 0)]), &none).unwrap();
        compare(Some(&before), &facts(&[("a", 1), ("c", 9)]), &none).unwrap();
        let error = compare(Some(&before), &facts(&[("a", 0), ("b", 0)]), &none).unwrap_err();
        assert_eq!(error.code(), codes::SOURCE_EMPTY);
        insta::assert_snapshot!(error, @"`/srv/app.db` has lost all rows of `a` (3 rows before, 0 now), `c` (1 row before, dropped)");
        compare(Some(&before), &facts(&[("a", 0)]), &["a", "c"]).unwrap();
        assert!(compare(Some(&before), &facts(&[("a", 0)]), &["a"]).is_err());
    }

    #[test]
    fn other_schemas_and_other_text_are_refused() {
        let unsupported = CaptureFacts::from_json(br#"{"schema": "retoma.capture/2"}"#).unwrap_err();
        assert_eq!(unsupported.kind(), ErrorKind::Unsupported);
        for text in ["", "[]", "{\"schema\": \"retoma.capture/1\"}", "\u{0}"] {
            let error = CaptureFacts::from_json(text.as_bytes()).unwrap_err();
            assert_eq!(
                (error.kind(), error.code()),
                (ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn facts_come_back_as_they_were(tables: BTreeMap<String, u64>, version: i64) {
            let facts = CaptureFacts { tables, user_version: version, ..facts(&[]) };
            prop_assert_eq!(CaptureFacts::from_json(&facts.to_json().unwrap()).unwrap(), facts);
        }
    }
}
