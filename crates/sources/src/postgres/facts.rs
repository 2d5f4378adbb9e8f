//! What was captured of a server, as data: written into the snapshot, compared with the programs of the restore.

use crate::stored;
use jiff::Timestamp;
use retoma_core::Result;
use retoma_repo::Repository;
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use serde::{Deserialize, Serialize};

/// The value of the field `schema`.
const SCHEMA: &str = "retoma.postgres/1";

/// Where a snapshot holds its facts.
pub const FACTS_PATH: &str = "/.retoma/postgres.json";

/// Facts are read whole; a server with a hundred thousand databases stays below.
const LIMIT_BYTES: u64 = 64 << 20;

/// The folder and the name of [`FACTS_PATH`].
pub(super) const FACTS_PARTS: [&str; 2] = [".retoma", "postgres.json"];

/// What one physical backup found. Fields that are not known are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// Always `retoma.postgres/1`.
    pub schema: String,
    /// Always `postgres`.
    pub kind: String,
    /// The server itself.
    #[serde(flatten)]
    pub server: Server,
    /// The timeline of the backup.
    pub timeline: u32,
    /// From here on, WAL is needed.
    pub start_lsn: String,
    /// Here the data are consistent.
    pub stop_lsn: String,
    /// When that was, by the server's clock. A commit before it is in the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_time: Option<Timestamp>,
    /// Which transactions had ended then, as `pg_current_snapshot()` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_transactions: Option<String>,
    /// The length of the blocks that relation files were cut into.
    pub chunk_bytes: u64,
    /// Tablespaces beside the two that every server has.
    pub tablespaces: Vec<Tablespace>,
    /// Databases.
    pub databases: Vec<Database>,
    /// Bad pages that were found, as text; not empty only in an incomplete snapshot.
    pub bad_pages: Vec<String>,
}

/// What does not change while a server runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// As `150018` for 15.18.
    pub version_num: u32,
    /// The version of the system catalogs.
    pub catalog_version: u64,
    /// The identity that `initdb` gave it.
    pub system_identifier: u64,
    /// The data directory, as an absolute path without links.
    pub data_directory: String,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// The size of a WAL segment in bytes.
    pub wal_segment_bytes: u64,
    /// The strictest alignment of its machine.
    pub max_data_alignment: u32,
    /// The machine's name, as `x86_64`.
    pub machine: String,
    /// Libraries that the server loads at its start.
    pub shared_preload_libraries: String,
    /// The role that `initdb` made, who may do everything.
    pub superuser: String,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its number, which is also the name of its link.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub location: String,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its encoding.
    pub encoding: String,
    /// The locale of its order.
    pub collate: String,
    /// The locale of its character classes.
    pub ctype: String,
    /// The version of that locale's order, where the system tells one.
    pub collation_version: Option<String>,
    /// What is in it; nothing is known of databases that cannot be asked, such as `template0`.
    pub contents: Option<Contents>,
}

/// What a database holds, when the backup began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Extensions with their versions.
    pub extensions: Vec<Extension>,
    /// The number of the users' tables.
    pub tables: u64,
    /// Whether any of them has a row.
    pub has_rows: bool,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl PostgresFacts {
    pub(super) fn new(server: Server, chunk_bytes: u64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            kind: "postgres".to_owned(),
            server,
            timeline: 0,
            start_lsn: String::new(),
            stop_lsn: String::new(),
            stop_time: None,
            stop_transactions: None,
            chunk_bytes,
            tablespaces: Vec::new(),
            databases: Vec::new(),
            bad_pages: Vec::new(),
        }
    }

    /// The one folder in a tablespace that belongs to this server, such as `PG_15_202209061`.
    pub fn version_folder(&self) -> String {
        format!("PG_{}_{}", self.server.version_num / 10_000, self.server.catalog_version)
    }

    /// What was backed up: the data directory, then the tablespaces.
    pub(super) fn paths(&self) -> Vec<String> {
        let spaces = self.tablespaces.iter().map(|space| space.location.clone());
        std::iter::once(self.server.data_directory.clone()).chain(spaces).collect()
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
/// What reading the repository says; see [`PostgresFacts::from_json`].
pub fn facts_of(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Option<PostgresFacts>> {
    let json = stored::file(repository, index, tree, FACTS_PATH, LIMIT_BYTES)?;
    json.map(|json| PostgresFacts::from_json(&json)).transpose()
}

/// The length of the blocks that a cluster's relation files are cut into, in bytes: `docs/postgres.md`, "Block size". The
/// parent's, as long as the cluster has not grown far beyond it, since another length stores everything anew.
pub(super) fn chunk_bytes(cluster_bytes: u64, parent: Option<u64>) -> u64 {
    const ROWS: [(u64, u64); 3] = [(4 << 30, 16 << 10), (64 << 30, 64 << 10), (1 << 40, 256 << 10)];
    const LARGEST: u64 = 1 << 20;
    let best = |limit_factor: u64| {
        let row = ROWS.iter().find(|(limit, _)| cluster_bytes <= limit.saturating_mul(limit_factor));
        row.map_or(LARGEST, |(_, chunk)| *chunk)
    };
    match parent {
        Some(parent) if (best(4)..=LARGEST).contains(&parent) && parent.is_power_of_two() => parent,
        _ => best(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::ErrorKind;

    #[test]
    fn blocks_grow_with_the_cluster_and_stay_along_a_chain() {
        let kib = |bytes, parent: Option<u64>| chunk_bytes(bytes, parent.map(|kib| kib << 10)) >> 10;
        let gib = 1 << 30;
        assert_eq!([0, 4 * gib, 4 * gib + 1, 64 * gib + 1].map(|bytes| kib(bytes, None)), [16, 16, 64, 256]);
        assert_eq!(kib(1025 * gib, None), 1024);
        // Grown a little: as before. Grown a lot: anew.
        assert_eq!(kib(16 * gib, Some(16)), 16);
        assert_eq!(kib(16 * gib + 1, Some(16)), 64);
        // Shrunk: larger blocks are no harm.
        assert_eq!(kib(1, Some(1024)), 1024);
        // A parent of nonsense.
        assert_eq!([0, 3, 12, 4096].map(|parent| kib(1, Some(parent))), [16; 4]);
    }

    #[test]
    fn facts_are_read_as_they_were_written() {
        let server = Server {
            version_num: 150_018,
            catalog_version: 202_209_061,
            system_identifier: u64::MAX,
            data_directory: "/var/lib/postgresql".to_owned(),
            data_checksums: true,
            wal_segment_bytes: 16 << 20,
            max_data_alignment: 8,
            machine: "x86_64".to_owned(),
            shared_preload_libraries: String::new(),
            superuser: "postgres".to_owned(),
        };
        let facts = PostgresFacts::new(server, 16 << 10);
        assert_eq!(PostgresFacts::from_json(&facts.to_json().unwrap()).unwrap(), facts);
        let newer = String::from_utf8(facts.to_json().unwrap()).unwrap().replace("postgres/1", "postgres/2");
        assert_eq!(PostgresFacts::from_json(newer.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(PostgresFacts::from_json(b"{}").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
