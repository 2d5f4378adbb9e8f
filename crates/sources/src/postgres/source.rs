//! A running server as a source of a backup.

use super::damage;
use super::facts::{self, FACTS_PARTS, PostgresFacts, Server};
use super::manifest::{BackupManifest, ManifestFile};
use super::reader::Outcome;
use super::session::{self, Session, Stopped};
use super::wal_files;
use super::walk::{Late, Plan, Walk, own_node};
use super::wire::Address;
use crate::memory::Memory;
use crate::stored;
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::Repository;
use retoma_repo::backup::{Event, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// The major version that names itself in `backup_manifest`.
const MANIFEST_2_FROM: u32 = 170_000;

/// What the parent snapshot knows of the same server.
#[derive(Debug, Clone)]
pub struct Previous {
    /// What was captured.
    pub facts: PostgresFacts,
    /// The list of its files.
    pub manifest: BackupManifest,
}

/// The list of a server with a million files stays below.
const MANIFEST_LIMIT_BYTES: u64 = 512 << 20;

impl Previous {
    /// What the snapshot whose root is `tree` knows; `None` when it is no physical backup.
    ///
    /// # Errors
    /// What reading the repository says; `R0408` when what it knows cannot be read.
    pub fn of(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Option<Self>> {
        let Some(facts) = facts::facts_of(repository, index, tree)? else { return Ok(None) };
        let path = format!("{}/backup_manifest", facts.server.data_directory);
        let bytes = stored::file(repository, index, tree, &path, MANIFEST_LIMIT_BYTES)?;
        let manifest = bytes.map(|bytes| BackupManifest::from_bytes(&bytes)).transpose()?;
        Ok(manifest.map(|manifest| Self { facts, manifest }))
    }
}

/// What a look at a server found, without beginning a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The server.
    pub server: Server,
    /// What makes backups worth less than they could be, each with what to do.
    pub cautions: Vec<(String, &'static str)>,
}

/// Looks whether the server at `address` can be backed up from here.
///
/// # Errors
/// Why not; see [`PostgresSource::begin`].
pub fn examine(address: &Address) -> Result<Examined> {
    let mut session = Session::open(address)?;
    let server = session.server()?;
    check_is_the_servers(Path::new(&server.data_directory), server.system_identifier)?;
    let cautions = cautions(&server, &mut session)?;
    Ok(Examined { server, cautions })
}

/// What makes backups of a server worth less than they could be, each with what to do.
pub(super) fn cautions(server: &Server, session: &mut Session) -> Result<Vec<(String, &'static str)>> {
    let mut cautions = Vec::new();
    if !server.data_checksums {
        let what = "its pages have no checksums: damage below the file system goes unseen".to_owned();
        cautions.push((what, "stop the server and run `pg_checksums --enable`"));
    }
    if session.free_slots()? == 0 {
        let what = "it has no free replication slot, and a backup needs one".to_owned();
        cautions.push((what, "raise `max_replication_slots`, and restart the server"));
    }
    Ok(cautions)
}

/// One physical backup of a running server, from [`PostgresSource::begin`] until the last event.
///
/// Dropping it before ends the session, and with it the server's backup mode.
#[derive(Debug)]
pub struct PostgresSource {
    facts: PostgresFacts,
    data: PathBuf,
    segment_size: SegmentSize,
    start: Lsn,
    walk: Walk,
    known: BackupManifest,
    session: Option<Session>,
    phase: Phase,
    steps: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Files are given.
    Files,
    /// All files were read.
    Settled,
    /// What comes late is given; the session ends when its WAL was read.
    Late,
}

impl PostgresSource {
    /// Connects to the server at `address`, looks whether it can be backed up, and begins the backup; this waits for a
    /// checkpoint. `previous` is what the parent snapshot knows, if it is of the same server.
    ///
    /// # Errors
    /// `R0411` to `R0419` from the server; `R0420` when it cannot be backed up as it is.
    pub fn begin(address: &Address, previous: Option<Previous>) -> Result<Self> {
        let mut session = Session::open(address)?;
        let server = session.server()?;
        let previous =
            previous.filter(|previous| previous.facts.server.system_identifier == server.system_identifier);
        let data = PathBuf::from(&server.data_directory);
        check_is_the_servers(&data, server.system_identifier)?;
        let segment_size = session::segment_size(&server)?;
        let tablespaces = session.tablespaces()?;
        let databases = session.databases()?;
        let cluster_bytes = databases.iter().map(|database| database.bytes).sum();
        let chunk_bytes =
            facts::chunk_bytes(cluster_bytes, previous.as_ref().map(|previous| previous.facts.chunk_bytes));
        let known = previous.map(|previous| previous.manifest).unwrap_or_default();
        session.keep_wal()?;
        let start = session.start("retoma")?;
        let plan = Plan {
            data: data.clone(),
            tablespaces: tablespaces
                .iter()
                .map(|space| (space.oid, PathBuf::from(&space.location)))
                .collect(),
            version_folder: format!("PG_{}_{}", server.version_num / 10_000, server.catalog_version),
            verified: server.data_checksums,
            chunk_bytes: usize::try_from(chunk_bytes).unwrap_or(usize::MAX),
            facts: FACTS_PARTS,
            known: known.clone(),
        };
        let mut facts = PostgresFacts::new(server, chunk_bytes);
        facts.start_lsn = start.to_string();
        (facts.tablespaces, facts.databases) = (tablespaces, databases);
        Ok(Self {
            facts,
            data,
            segment_size,
            start,
            walk: Walk::new(plan)?,
            known,
            session: Some(session),
            phase: Phase::Files,
            steps: VecDeque::new(),
        })
    }

    /// What was captured; complete after the last event.
    pub fn facts(&self) -> &PostgresFacts {
        &self.facts
    }

    /// What is backed up: the data directory, then the tablespaces.
    pub fn paths(&self) -> Vec<String> {
        self.facts.paths()
    }

    /// Whether the parent snapshot is of the same server; otherwise nothing may be compared with it.
    pub fn continues_parent(&self) -> bool {
        !self.known.files.is_empty()
    }

    /// All files were read: ends the backup, and puts what is known only now into its places.
    fn finish(&mut self) -> Result<()> {
        let control = read_control(&self.data, self.facts.server.system_identifier)?;
        let session = self.session.as_mut();
        let session = session.ok_or_else(|| Error::internal("the session ended before the backup"))?;
        let stopped = session.stop()?;
        self.facts.stop_lsn = stopped.lsn.to_string();
        self.facts.stop_time = Some(stopped.time);
        self.facts.stop_transactions = Some(stopped.transactions.clone());
        let timeline = timeline_of(&stopped)?;
        self.facts.timeline = timeline.get();
        let mut manifest = BackupManifest {
            wal: Some((timeline.get(), self.facts.start_lsn.clone(), self.facts.stop_lsn.clone())),
            system_identifier: (self.facts.server.version_num >= MANIFEST_2_FROM)
                .then_some(self.facts.server.system_identifier),
            ..BackupManifest::default()
        };
        self.sum_up(&mut manifest, stopped.lsn)?;
        let mut late = Vec::new();
        late.push((Late::Control, "global/pg_control", control));
        late.push((Late::Label, "backup_label", stopped.label.into_bytes()));
        if !stopped.tablespace_map.is_empty() {
            late.push((Late::TablespaceMap, "tablespace_map", stopped.tablespace_map.into_bytes()));
        }
        for (_, path, bytes) in &late {
            manifest.files.insert(path.as_bytes().to_vec(), listed(bytes));
        }
        late.push((Late::Manifest, "backup_manifest", manifest.to_bytes()?));
        for (place, path, bytes) in late {
            let name = path.rsplit('/').next().unwrap_or(path);
            self.late_file(place, name, bytes, self.owner_node(name)?);
        }
        self.wal(timeline, stopped.lsn)?;
        let json = self.facts.to_json()?;
        let [_, name] = FACTS_PARTS;
        self.late_file(Late::Facts, name, json, own_node(name, NodeKind::File, 0o600));
        Ok(())
    }

    /// Puts every file into the manifest, and names bad pages.
    fn sum_up(&mut self, manifest: &mut BackupManifest, stop: Lsn) -> Result<()> {
        for listed in std::mem::take(&mut self.walk.listed) {
            let file = match listed.state.outcome() {
                Outcome::Gone | Outcome::Failed => continue,
                Outcome::Untouched => {
                    let known = self.known.files.get(&listed.path).cloned();
                    known.ok_or_else(|| Error::internal("an unknown file was taken for unchanged"))?
                }
                Outcome::Read(facts) => {
                    let bad = damage::bad_blocks(&facts.wrong_pages, &(self.start.0..=stop.0));
                    if !bad.is_empty() || facts.wrong_more > 0 {
                        let (noted, more) = (&mut self.facts.bad_pages, facts.wrong_more);
                        let event = damage::event(noted, &self.data, &listed.path, &bad, more);
                        self.steps.push_back(event);
                    }
                    let modified = jiff::Timestamp::from_second(facts.modified_seconds).unwrap_or_default();
                    ManifestFile { size_bytes: facts.size_bytes, modified, crc: facts.crc }
                }
            };
            manifest.files.insert(listed.path, file);
        }
        Ok(())
    }

    /// The WAL from start to stop, and the end of the session once it is read.
    fn wal(&mut self, timeline: TimelineId, stop: Lsn) -> Result<()> {
        let folder = self.data.join("pg_wal");
        let node = wal_files::folder_node(&folder, "pg_wal")?;
        self.steps.push_back(Event::Late(Late::Wal as u32, Box::new(Event::Enter(Box::new(node)))));
        let last = self.segment_size.number_before(stop);
        let mut segment = SegmentName::at(timeline, self.start, self.segment_size);
        loop {
            let id = self.facts.server.system_identifier;
            self.steps.push_back(wal_files::entry(&folder, segment, self.segment_size, id)?);
            if segment.number(self.segment_size).is_none_or(|number| number >= last) {
                break;
            }
            let next = segment.next(self.segment_size);
            segment = next.ok_or_else(|| Error::internal("the WAL ends"))?;
        }
        let status = wal_files::folder_node(&folder.join("archive_status"), "archive_status")?;
        self.steps.extend([Event::Enter(Box::new(status)), Event::Leave, Event::Leave, Event::Settle]);
        Ok(())
    }

    /// A node like those of the server's own files.
    fn owner_node(&self, name: &str) -> Result<Node> {
        let like = wal_files::folder_node(&self.data, name)?;
        let now = retoma_repo::host::now();
        let mut node = Node::new(name, NodeKind::File);
        (node.uid, node.gid, node.user, node.group) = (like.uid, like.gid, like.user, like.group);
        (node.mode, node.mtime, node.atime, node.ctime) = (like.mode & 0o666, now, now, now);
        Ok(node)
    }

    fn late_file(&mut self, place: Late, name: &str, bytes: Vec<u8>, mut node: Node) {
        node.name = name.into();
        node.size_bytes = bytes.len() as u64;
        let entry = Event::Entry(Box::new(node), Box::new(Memory::new(bytes)));
        self.steps.push_back(Event::Late(place as u32, Box::new(entry)));
    }
}

impl Source for PostgresSource {
    fn next(&mut self) -> Result<Option<Event>> {
        match self.phase {
            Phase::Files => {
                if let Some(event) = self.walk.next()? {
                    return Ok(Some(event));
                }
                self.phase = Phase::Settled;
                return Ok(Some(Event::Settle));
            }
            Phase::Settled => {
                self.finish()?;
                self.phase = Phase::Late;
            }
            Phase::Late => {}
        }
        let step = self.steps.pop_front();
        if step.is_none() {
            // The WAL was read: the server may forget it.
            self.session = None;
        }
        Ok(step)
    }
}

fn listed(bytes: &[u8]) -> ManifestFile {
    ManifestFile {
        size_bytes: bytes.len() as u64,
        modified: jiff::Timestamp::now(),
        crc: crc32c::crc32c(bytes),
    }
}

/// The timeline that a backup's label names.
fn timeline_of(stopped: &Stopped) -> Result<TimelineId> {
    let line = stopped.label.lines().find_map(|line| line.strip_prefix("START TIMELINE: "));
    let timeline = line.and_then(|number| number.trim().parse().ok()).and_then(TimelineId::new);
    timeline.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, codes::POSTGRES_ANSWER, "the server's backup label names no timeline")
    })
}

fn read_control(data: &Path, system_identifier: u64) -> Result<Vec<u8>> {
    let path = data.join("global/pg_control");
    let bytes = std::fs::read(&path).map_err(|error| crate::files::node::unreadable(&path, error))?;
    let found = bytes.first_chunk::<8>().map(|id| u64::from_ne_bytes(*id));
    if found != Some(system_identifier) {
        let message = format!("`{}` is not of the server that answers", path.display());
        return Err(Error::new(ErrorKind::Invalid, codes::POSTGRES_SETUP, message)
            .with_hint("run the backup on the database's host: name its socket in the component's `url`"));
    }
    Ok(bytes)
}

fn check_is_the_servers(data: &Path, system_identifier: u64) -> Result<()> {
    read_control(data, system_identifier).map(drop).context("look at the server's data directory")
}
