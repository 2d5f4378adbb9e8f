//! What was captured of a server that was dumped, as data: written into the snapshot, read by the recovery.

use crate::postgres::facts::{Database, PostgresFacts, Server, Tablespace};
use crate::stored;
use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use serde::{Deserialize, Serialize};

/// The value of the field `schema`.
const SCHEMA: &str = "retoma.postgres-dump/1";
/// Where a snapshot holds these facts.
pub const DUMP_FACTS_PATH: &str = "/.retoma/postgres-dump.json";
/// The folder and the name of [`DUMP_FACTS_PATH`].
pub(super) const FACTS_PARTS: [&str; 2] = [".retoma", "postgres-dump.json"];
/// Facts are read whole; a server with a hundred thousand databases stays below.
const LIMIT_BYTES: u64 = 64 << 20;

/// What one backup by dumps found. Fields that are not known are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFacts {
    /// Always `retoma.postgres-dump/1`.
    pub schema: String,
    /// Always `postgres`.
    pub kind: String,
    /// As `150018` for 15.18.
    pub version_num: u32,
    /// The role that `initdb` made.
    pub superuser: String,
    /// Whether the roles have their passwords; without them, each has to be given one after a recovery.
    pub has_passwords: bool,
    /// When the first database was about to be dumped: what was written before is in the dumps.
    pub time: Timestamp,
    /// The moment that the database shows that was dumped last: no row in the dumps is later. Not in dumps of old versions.
    #[serde(default)]
    pub latest: Option<Timestamp>,
    /// When everything had been read, the roles too. Not in dumps of old versions.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// Tablespaces, which are not dumped: all comes back in the default one.
    pub tablespaces: Vec<Tablespace>,
    /// Databases.
    pub databases: Vec<DumpedDatabase>,
    /// What the programs warned of.
    pub said: Vec<String>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedDatabase {
    /// As of the moment that was dumped.
    #[serde(flatten)]
    pub database: Database,
    /// The folder of its dump; `None` for one that did not let us in.
    pub folder: Option<String>,
    /// Whether it lets others in, and refused us: then the snapshot is incomplete.
    #[serde(default)]
    pub is_refused: bool,
}

impl DumpFacts {
    pub(super) fn new(
        version_num: u32,
        superuser: String,
        has_passwords: bool,
        tablespaces: Vec<Tablespace>,
        databases: Vec<DumpedDatabase>,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            kind: "postgres".to_owned(),
            version_num,
            superuser,
            has_passwords,
            time: Timestamp::now(),
            latest: None,
            ended: None,
            tablespaces,
            databases,
            said: Vec::new(),
        }
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        stored::to_json(self)
    }

    /// Reads facts.
    ///
    /// # Errors
    /// `Unsupported` for another schema, `Corrupt` for what are no facts.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let facts: Self = stored::from_json(json, DUMP_FACTS_PATH, SCHEMA)?;
        let is_name = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if facts.databases.iter().filter_map(|it| it.folder.as_deref()).all(is_name) {
            return Ok(facts);
        }
        let message = format!("`{DUMP_FACTS_PATH}` names a folder that is none");
        Err(Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message))
    }

    /// What a backup of this server lacks, each as a sentence; databases that refuse us are told by [`DumpFacts::refused`].
    pub fn left_out(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.has_passwords {
            found.push("its roles come back without passwords: the user is no superuser".to_owned());
        }
        let is_shut = |it: &&DumpedDatabase| it.folder.is_none() && it.database.name != "template0";
        for closed in self.databases.iter().filter(is_shut).filter(|it| !it.is_refused) {
            let name = closed.database.name.escape_debug();
            found.push(format!("the database `{name}` lets nobody in and is not dumped"));
        }
        let template = self.databases.iter().find(|it| it.database.name == "template1");
        for odd in self.databases.iter().filter(|it| it.folder.is_some() && !it.database.name.is_ascii()) {
            // `pg_restore --create` takes the name's bytes for the encoding of the dump.
            if template.is_some_and(|template| template.database.encoding != odd.database.encoding) {
                let name = odd.database.name.escape_debug();
                found.push(format!(
                    "the database `{name}` has a name beyond ASCII and another encoding than `template1`: `recover` cannot load it, `pg_restore` by hand can"
                ));
            }
        }
        for space in &self.tablespaces {
            let name = space.name.escape_debug();
            found.push(format!(
                "the tablespace `{name}` is not kept: its tables come back in the default one"
            ));
        }
        found
    }

    /// The databases that let others in and refuse us, each as a sentence. A backup names them as what it could not read.
    pub fn refused(&self) -> impl Iterator<Item = String> {
        self.databases.iter().filter(|it| it.is_refused).map(|it| {
            let name = it.database.name.escape_debug();
            format!("the database `{name}` refuses the user and is not dumped: `GRANT CONNECT`")
        })
    }

    /// # Errors
    /// `R0403` when a database had tables or rows at the last time, and has none.
    pub(super) fn compare(&self, previous: Option<&Self>) -> Result<()> {
        for before in previous.iter().flat_map(|previous| &previous.databases) {
            let Some(had) = &before.database.contents else { continue };
            let name = &before.database.name;
            let now = self.databases.iter().find(|it| it.database.name == *name);
            let has = now.and_then(|now| now.database.contents.as_ref());
            let what = match has {
                _ if had.tables == 0 => continue,
                // It is named as unreadable.
                _ if now.is_some_and(|now| now.is_refused) => continue,
                None => "is not there any more",
                Some(has) if has.tables == 0 => "has lost all its tables",
                Some(has) if had.has_rows && !has.has_rows => "has lost all its rows",
                Some(_) => continue,
            };
            let message = format!("the database `{}` {what} since the last backup", name.escape_debug());
            return Err(Error::new(ErrorKind::Invalid, codes::SOURCE_EMPTY, message).with_hint(
                "if that was meant, give the component another name, under which the next backup is the first",
            ));
        }
        Ok(())
    }

    /// As the facts of the server that the dumps are loaded into.
    pub fn as_server(&self, data_directory: &str) -> PostgresFacts {
        let server = Server {
            version_num: self.version_num,
            catalog_version: 0,
            system_identifier: 0,
            data_directory: data_directory.to_owned(),
            data_checksums: true,
            wal_segment_bytes: 16 << 20,
            max_data_alignment: 8,
            machine: String::new(),
            shared_preload_libraries: String::new(),
            superuser: self.superuser.clone(),
        };
        let mut facts = PostgresFacts::new(server, 16 << 10);
        facts.databases = self.databases.iter().map(|it| it.database.clone()).collect();
        facts
    }
}

/// The folder of a database's dump: readable where the name is plain, and never another's.
pub(super) fn folder_name(number: usize, name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' })
        .collect();
    if plain == name && name.len() <= 63 { plain } else { format!("{plain}.{number}") }
}

/// The facts in the snapshot whose root is `tree`; `None` where it holds no dumps.
///
/// # Errors
/// What reading the repository says; see [`DumpFacts::from_json`].
pub fn dump_facts_of(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Option<DumpFacts>> {
    let json = stored::file(repository, index, tree, DUMP_FACTS_PATH, LIMIT_BYTES)?;
    json.map(|json| DumpFacts::from_json(&json)).transpose()
}

#[cfg(test)]
mod tests {
    mod folders;

    use super::*;
    use crate::postgres::facts::Contents;

    fn facts(databases: &[(&str, Option<(u64, bool)>)]) -> DumpFacts {
        let database = |(name, held): &(&str, Option<(u64, bool)>)| DumpedDatabase {
            database: Database {
                name: (*name).to_owned(),
                bytes: 1,
                encoding: "UTF8".to_owned(),
                collate: "C".to_owned(),
                ctype: "C".to_owned(),
                collation_version: None,
                contents: held.map(|(tables, has_rows)| Contents {
                    extensions: Vec::new(),
                    tables,
                    has_rows,
                }),
            },
            folder: held.map(|_| folder_name(0, name)),
            is_refused: false,
        };
        DumpFacts::new(150_018, "postgres".into(), true, Vec::new(), databases.iter().map(database).collect())
    }

    #[test]
    fn facts_are_read_as_they_were_written_and_folders_stay_where_they_are() {
        let good = facts(&[("shop", Some((3, true))), ("template0", None)]);
        assert_eq!(DumpFacts::from_json(&good.to_json().unwrap()).unwrap(), good);
        for folder in ["", "..", "a/b", ".x"] {
            let mut bad = good.clone();
            bad.databases[0].folder = Some(folder.to_owned());
            let error = DumpFacts::from_json(&bad.to_json().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{folder}");
        }
    }

    #[test]
    fn what_was_lost_since_the_last_time_is_an_error() {
        let before = facts(&[("shop", Some((3, true))), ("new", Some((0, false))), ("template0", None)]);
        let outcome = |now: &[(&str, Option<(u64, bool)>)]| facts(now).compare(Some(&before));
        assert!(outcome(&[("shop", Some((1, true)))]).is_ok());
        assert!(facts(&[]).compare(None).is_ok());
        for lost in [Some((3, false)), Some((0, false)), None] {
            assert_eq!(outcome(&[("shop", lost)]).unwrap_err().code(), codes::SOURCE_EMPTY, "{lost:?}");
        }
        assert_eq!(outcome(&[]).unwrap_err().code(), codes::SOURCE_EMPTY);
    }

    #[test]
    fn what_is_left_out_is_said() {
        let mut facts =
            facts(&[("template1", Some((0, false))), ("über", Some((1, true))), ("closed", None)]);
        assert_eq!(facts.left_out(), ["the database `closed` lets nobody in and is not dumped"]);
        facts.databases[2].is_refused = true;
        assert_eq!(facts.left_out(), Vec::<String>::new(), "it is named as unreadable already");
        let refused: Vec<String> = facts.refused().collect();
        assert_eq!(refused, ["the database `closed` refuses the user and is not dumped: `GRANT CONNECT`"]);
        facts.has_passwords = false;
        facts.databases[1].database.encoding = "LATIN1".to_owned();
        let said = facts.left_out().join("\n");
        assert!(
            said.contains("without passwords") && said.contains("`über` has a name beyond ASCII"),
            "{said}"
        );
    }

    #[test]
    fn folders_are_told_apart_and_hold_nothing_odd() {
        assert_eq!(folder_name(3, "shop_1"), "shop_1");
        assert_eq!(folder_name(3, "../x"), "___x.3");
        assert_eq!(folder_name(4, "é"), "_.4");
        assert_ne!(folder_name(5, "a b"), folder_name(6, "a_b"));
    }
}
