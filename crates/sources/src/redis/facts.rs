//! What was captured of a server, as data: written into the snapshot, compared with the next backup and with copies.

use super::rdb::Passed;
use super::server::Server;
use super::transfer::Position;
use crate::stored;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The value of the field `schema`.
const SCHEMA: &str = "retoma.redis/1";

/// Where a snapshot holds its facts.
pub const FACTS_PATH: &str = "/.retoma/redis.json";

/// The folder and the name of [`FACTS_PATH`].
pub(super) const FACTS_PARTS: [&str; 2] = [".retoma", "redis.json"];

/// The name of the data set in the component's folder: what `redis-server` looks for by itself.
pub const DUMP_NAME: &str = "dump.rdb";

/// Facts are read whole; a server with a hundred thousand databases stays below.
const LIMIT_BYTES: u64 = 32 << 20;

/// What one capture found. Fields that are not known are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFacts {
    /// Always `retoma.redis/1`.
    pub schema: String,
    /// Always `redis`.
    pub kind: String,
    /// The data set's path in the snapshot.
    pub path: String,
    /// The server.
    pub server: Server,
    /// The history of writes that the data set is a point of.
    pub replication_id: String,
    /// The point in it, in bytes.
    pub replication_offset: u64,
    /// Length of the data set in bytes.
    pub bytes: u64,
    /// The version of its format.
    pub rdb_version: u32,
    /// Whether it has a checksum, which was right.
    pub has_checksum: bool,
    /// Why its keys could not be counted; then `databases` is what the server said shortly before, and `types` is empty.
    pub not_counted: Option<String>,
    /// Keys by database; databases without any are not in it.
    pub databases: BTreeMap<u64, DatabaseKeys>,
    /// Keys by type.
    pub types: BTreeMap<String, u64>,
}

/// The keys of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseKeys {
    /// All of them, also those that have expired and that the server had not removed yet.
    pub keys: u64,
    /// Those with a time at which they expire.
    pub expires: u64,
}

/// A module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its version, as a number of its own.
    pub version: u64,
}

impl RedisFacts {
    pub(super) fn new(
        path: String,
        server: Server,
        said: BTreeMap<u64, DatabaseKeys>,
        position: &Position,
        passed: Passed,
    ) -> Self {
        let (not_counted, databases, types) = match passed.counts {
            Ok(counts) => {
                let keys = counts.databases.into_iter();
                let keys = keys.map(|(n, keys)| (n, DatabaseKeys { keys: keys.keys, expires: keys.expires }));
                let types = counts.types.into_iter().map(|(name, count)| (name.to_owned(), count));
                (None, keys.collect(), types.collect())
            }
            Err(why) => (Some(why), said, BTreeMap::new()),
        };
        Self {
            schema: SCHEMA.to_owned(),
            kind: "redis".to_owned(),
            path,
            server,
            replication_id: position.replication_id.clone(),
            replication_offset: position.offset,
            bytes: passed.bytes,
            rdb_version: passed.version,
            has_checksum: passed.has_checksum,
            not_counted,
            databases,
            types,
        }
    }

    /// Keys of all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|keys| keys.keys).sum()
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

    /// Whether everything is gone that the previous backup had. Keys that were to expire may all be gone.
    ///
    /// # Errors
    /// `Invalid` with `R0403`.
    pub(super) fn compare(&self, previous: Option<&Self>) -> Result<()> {
        let lasting: u64 = previous
            .iter()
            .flat_map(|facts| facts.databases.values())
            .map(|keys| keys.keys.saturating_sub(keys.expires))
            .sum();
        if self.keys() > 0 || lasting == 0 {
            return Ok(());
        }
        let had = counted(lasting, "key", "keys");
        let message =
            format!("Redis holds no key any more, and had {had} that never expire at the last backup");
        Err(Error::new(ErrorKind::Invalid, codes::SOURCE_EMPTY, message).with_hint(
            "if this was not meant, restore the last good snapshot with `retoma restore COMPONENT --target DIR`; if it \
             was, give the component another name in the manifest",
        ))
    }
}

/// The facts in the snapshot whose root is `tree`; `None` where it has none.
///
/// # Errors
/// What reading the repository says; see [`RedisFacts::from_json`].
pub fn facts_of(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Option<RedisFacts>> {
    let json = stored::file(repository, index, tree, FACTS_PATH, LIMIT_BYTES)?;
    json.map(|json| RedisFacts::from_json(&json)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(keys: u64, expires: u64) -> RedisFacts {
        let server = Server {
            version: "7.0.15".into(),
            mode: "standalone".into(),
            role: "master".into(),
            run_id: "abc".into(),
            used_memory_bytes: 1,
            settings: Some([("save".to_owned(), String::new())].into()),
            modules: vec![Module { name: "json".into(), version: 7 }],
        };
        RedisFacts {
            schema: SCHEMA.into(),
            kind: "redis".into(),
            path: "/cache/dump.rdb".into(),
            server,
            replication_id: "0".repeat(40),
            replication_offset: u64::MAX,
            bytes: 100,
            rdb_version: 10,
            has_checksum: true,
            not_counted: None,
            databases: [(3, DatabaseKeys { keys, expires })].into(),
            types: [("string".to_owned(), keys)].into(),
        }
    }

    #[test]
    fn facts_are_read_as_they_were_written() {
        let facts = facts(3, 1);
        assert_eq!(RedisFacts::from_json(&facts.to_json().unwrap()).unwrap(), facts);
        let newer = String::from_utf8(facts.to_json().unwrap()).unwrap().replace("redis/1", "redis/2");
        assert_eq!(RedisFacts::from_json(newer.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(RedisFacts::from_json(b"{}").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn everything_gone_is_noticed() {
        facts(0, 0).compare(None).unwrap();
        facts(1, 1).compare(Some(&facts(9, 0))).unwrap();
        facts(0, 0).compare(Some(&facts(9, 9))).unwrap();
        let error = facts(0, 0).compare(Some(&facts(9, 2))).unwrap_err();
        assert_eq!(error.code(), codes::SOURCE_EMPTY);
        insta::assert_snapshot!(error, @"Redis holds no key any more, and had 7 keys that never expire at the last backup");
    }
}
