//! A running server on another host as a source of a backup, through the replication protocol alone.
//!
//! ```text
//! SQL session: facts, slot that keeps WAL ──────────────────────────────────▶ time of the end
//! BASE_BACKUP ─▶ archives: every file is read ahead ─▶ manifest compared ─▶ WAL from start to stop ─▶ tree, facts
//! ```
//! The snapshot is the one that a backup on the database's host makes: the same paths, the same facts. Every file is sent each
//! time; what the repository has already is not stored again.

mod incoming;
mod tar;
mod tree;
mod wal;

use super::damage;
use super::facts::{self, FACTS_PARTS, PostgresFacts};
use super::manifest::BackupManifest;
use super::relation::RelationFile;
use super::select::FolderKind;
use super::session::{self, CHECKPOINT, Session};
use super::source::{Examined, cautions};
use super::walk::{self, own_node};
use super::wire::{Address, BaseBackup, Connection, Mode, Timeouts};
use crate::memory::Memory;
use incoming::{Incoming, Step, Sum, lock};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::backup::{Content, Event, Found, Reader, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tar::{Entry, Kind};
use tree::Folder;
use wal::Wal;

/// So many names a message has.
const NAMED: usize = 5;

/// Looks whether the server at `address` can be backed up from another host.
///
/// # Errors
/// Why not; see [`StreamSource::begin`].
pub fn examine(address: &Address) -> Result<Examined> {
    let mut session = Session::open(address)?;
    let server = session.server_elsewhere()?;
    replicate(address, server.system_identifier)?;
    let cautions = cautions(&server, &mut session)?;
    Ok(Examined { server, cautions })
}

/// A replication connection with the server that the session is with.
fn replicate(address: &Address, system_identifier: u64) -> Result<Connection> {
    let connection = Connection::connect(address, Mode::Replication, Timeouts::default());
    let mut connection = connection.context("open a replication connection")?;
    let found = connection.identify_system()?.system_id;
    if found == system_identifier {
        return Ok(connection);
    }
    let message = format!("two connections lead to two servers, `{system_identifier}` and `{found}`");
    Err(Error::new(ErrorKind::Invalid, codes::POSTGRES_SETUP, message)
        .with_hint("name the server itself in the component's `url`, no load balancer"))
}

/// One backup of a running server through the replication protocol, from [`StreamSource::begin`] until the last event.
///
/// Dropping it before ends its connections, and with them the server's backup mode.
#[derive(Debug)]
pub struct StreamSource {
    facts: PostgresFacts,
    data: PathBuf,
    segment_size: SegmentSize,
    start: (Lsn, TimelineId),
    continues_parent: bool,
    session: Option<Session>,
    /// `None` when everything has come.
    incoming: Option<Arc<Mutex<Incoming<BaseBackup>>>>,
    tree: Folder,
    /// Where the entries of the current archive go, and what is before their paths in the manifest.
    archive: Option<(Vec<u8>, Vec<u8>)>,
    /// The file that is read now.
    current: Option<Vec<u8>>,
    received: BTreeMap<Vec<u8>, Sum>,
    manifest: Option<Vec<u8>>,
    wal: Option<Segments>,
    /// The number of the next file.
    number: u64,
    steps: VecDeque<Event>,
}

/// The WAL that is still to come.
#[derive(Debug)]
struct Segments {
    wal: Arc<Mutex<Wal>>,
    next: SegmentName,
    last: u64,
    stop: Lsn,
    ended: bool,
}

impl StreamSource {
    /// Connects to the server at `address`, looks whether it can be backed up, and begins the backup; this waits for a
    /// checkpoint. `previous` is what the parent snapshot says, if it is of the same server. Once `stop` is set, nothing is waited for.
    ///
    /// # Errors
    /// `R0411` to `R0419` from the server; `R0420` when it cannot be backed up as it is; `Cancelled`.
    pub fn begin(address: &Address, previous: Option<PostgresFacts>, stop: &Arc<AtomicBool>) -> Result<Self> {
        let mut session = Session::open(address)?;
        let server = session.server_elsewhere()?;
        let previous = previous.filter(|facts| facts.server.system_identifier == server.system_identifier);
        let segment_size = session::segment_size(&server)?;
        let databases = session.databases()?;
        let bytes = databases.iter().map(|database| database.bytes).sum();
        let chunk_bytes = facts::chunk_bytes(bytes, previous.as_ref().map(|previous| previous.chunk_bytes));
        let mut connection = replicate(address, server.system_identifier)?;
        connection.stop_when(Arc::clone(stop));
        session.keep_wal()?;
        let backup = connection.start_base_backup("retoma", CHECKPOINT)?;
        // Asked after the checkpoint: what the backup has, and the names that it does not tell.
        let named = session.tablespaces()?;
        let mut tablespaces = Vec::new();
        for (oid, location) in backup.tablespaces() {
            let name = named.iter().find(|space| space.oid == *oid).map(|space| space.name.clone());
            let (oid, location) = (*oid, location.clone());
            tablespaces.push(facts::Tablespace { oid, name: name.unwrap_or_default(), location });
        }
        let data = PathBuf::from(&server.data_directory);
        let places: Vec<(u32, PathBuf)> =
            tablespaces.iter().map(|space| (space.oid, PathBuf::from(&space.location))).collect();
        walk::check_apart(&data, &places)?;
        let mut tree = Folder::root();
        for root in std::iter::once(&data).chain(places.iter().map(|(_, place)| place)) {
            tree.make(root.as_os_str().as_encoded_bytes())?;
        }
        let start = backup.start();
        let mut facts = PostgresFacts::new(server, chunk_bytes);
        (facts.start_lsn, facts.timeline) = (start.0.to_string(), start.1.get());
        (facts.tablespaces, facts.databases) = (tablespaces, databases);
        Ok(Self {
            facts,
            data,
            segment_size,
            start,
            continues_parent: previous.is_some(),
            session: Some(session),
            incoming: Some(Arc::new(Mutex::new(Incoming::new(backup)))),
            tree,
            archive: None,
            current: None,
            received: BTreeMap::new(),
            manifest: None,
            wal: None,
            number: 0,
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
        self.continues_parent
    }

    fn data_bytes(&self) -> Vec<u8> {
        self.data.as_os_str().as_encoded_bytes().to_vec()
    }

    /// The next step of the base backup.
    fn step(&mut self, incoming: &Arc<Mutex<Incoming<BaseBackup>>>) -> Result<()> {
        let step = {
            let mut incoming = lock(incoming);
            if let Some(path) = self.current.take() {
                self.received.insert(path, incoming.take_sum());
            }
            // Fails when that file was not read to its end.
            incoming.next()?
        };
        match step {
            Step::Archive(tablespace) => self.begin_archive(tablespace),
            Step::Entry(entry) => self.entry(&entry, incoming),
            Step::Manifest(manifest) => {
                if self.manifest.replace(manifest).is_some() {
                    return Err(self.unlike("it sent two manifests"));
                }
                Ok(())
            }
            Step::End(lsn, timeline) => self.settle(lsn, timeline),
        }
    }

    fn begin_archive(&mut self, tablespace: Option<u32>) -> Result<()> {
        let archive = match tablespace {
            None => Some((self.data_bytes(), Vec::new())),
            Some(oid) => {
                let space = self.facts.tablespaces.iter().find(|space| space.oid == oid);
                space.map(|space| {
                    (space.location.clone().into_bytes(), format!("pg_tblspc/{oid}/").into_bytes())
                })
            }
        };
        let archive = archive.ok_or_else(|| self.unlike("it sent an archive that it had not announced"))?;
        self.archive = Some(archive);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, incoming: &Arc<Mutex<Incoming<BaseBackup>>>) -> Result<()> {
        let (place, prefix) =
            self.archive.clone().ok_or_else(|| Error::internal("an entry of no archive"))?;
        let path = [&place, b"/".as_slice(), &entry.path].concat();
        let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let above = &path[..cut];
        match &entry.kind {
            Kind::Folder => {
                let node = tree::node(entry, NodeKind::Directory);
                if above == place {
                    self.like(&place, &node)?;
                }
                self.tree.add_folder(above, node)
            }
            Kind::Link(target) => {
                let mut node = tree::node(entry, NodeKind::Symlink);
                node.link_target = Some(target.clone().into());
                self.tree.add_link(above, node)
            }
            Kind::File => {
                let within = [prefix, entry.path.clone()].concat();
                let node = tree::node(entry, NodeKind::File);
                let relation = relation(&within);
                if let Some(relation) = relation.filter(|_| self.facts.server.data_checksums) {
                    lock(incoming).look_at_pages(relation.first_block());
                }
                let chunk_bytes = usize::try_from(self.facts.chunk_bytes).unwrap_or(usize::MAX);
                let content = Sent {
                    incoming: Arc::clone(incoming),
                    size_bytes: entry.size_bytes,
                    block_bytes: relation.map(|_| chunk_bytes),
                };
                self.current = Some(within);
                self.ahead(above, node, Box::new(content))
            }
        }
    }

    /// The folder of an archive itself is in no archive: it is as those in it are.
    fn like(&mut self, place: &[u8], inner: &Node) -> Result<()> {
        let node = self.tree.node_of(place)?;
        (node.mode, node.uid, node.gid) = (inner.mode, inner.uid, inner.gid);
        (node.user, node.group) = (inner.user.clone(), inner.group.clone());
        (node.mtime, node.atime, node.ctime) = (inner.mtime, inner.atime, inner.ctime);
        Ok(())
    }

    fn ahead(&mut self, above: &[u8], node: Node, content: Box<dyn Content>) -> Result<()> {
        let number = self.number;
        self.number += 1;
        self.tree.add_file(above, &node.name, number)?;
        self.steps.push_back(Event::Ahead(number, Box::new(node), content));
        Ok(())
    }

    /// A file of ours, of the server's user.
    fn own_file(&mut self, above: &[u8], name: &str, bytes: Vec<u8>) -> Result<()> {
        let mut node = self.server_node(name, NodeKind::File, 0o600)?;
        node.size_bytes = bytes.len() as u64;
        self.ahead(above, node, Box::new(Memory::new(bytes)))
    }

    fn server_node(&mut self, name: &str, kind: NodeKind, mode: u32) -> Result<Node> {
        let data = self.data_bytes();
        let like = self.tree.node_of(&data)?;
        let mut node = own_node(name, kind, mode);
        (node.uid, node.gid) = (like.uid, like.gid);
        (node.user, node.group) = (like.user.clone(), like.group.clone());
        Ok(node)
    }

    /// Everything was sent: compares it with the server's list, and asks for the WAL.
    fn settle(&mut self, stop: Lsn, timeline: TimelineId) -> Result<()> {
        let backup = self.incoming.take().and_then(|incoming| lock(&incoming).take_pieces());
        let backup = backup.ok_or_else(|| Error::internal("a base backup ended twice"))?;
        let (connection, complaint) = backup.finish()?;
        let session = self.session.as_mut();
        let session = session.ok_or_else(|| Error::internal("the session ended before the backup"))?;
        let (time, transactions) = session.now()?;
        (self.facts.stop_time, self.facts.stop_transactions) = (Some(time), Some(transactions));
        self.facts.stop_lsn = stop.to_string();
        if timeline != self.start.1 {
            return Err(self.unlike("its timeline changed meanwhile"));
        }
        self.compare()?;
        self.judge(stop, complaint);
        self.links()?;
        let id = self.facts.server.system_identifier;
        self.wal = Some(Segments {
            wal: Wal::begin(connection, self.start, self.segment_size, id)?,
            next: SegmentName::at(timeline, self.start.0, self.segment_size),
            last: self.segment_size.number_before(stop),
            stop,
            ended: false,
        });
        Ok(())
    }

    /// Whether what came is what the server's manifest lists.
    fn compare(&mut self) -> Result<()> {
        let bytes = self.manifest.take().ok_or_else(|| self.unlike("it sent no manifest"))?;
        let manifest = BackupManifest::from_bytes(&bytes)?;
        let of_another = |id: u64| id != self.facts.server.system_identifier;
        if manifest.system_identifier.is_some_and(of_another) {
            return Err(self.unlike("its manifest is of another server"));
        }
        let differs = |path: &&Vec<u8>| {
            let (sent, listed) = (self.received.get(*path), manifest.files.get(*path));
            !matches!((sent, listed), (Some(sent), Some(listed)) if (sent.size_bytes, sent.crc) == (listed.size_bytes, listed.crc))
        };
        let all = self.received.keys().chain(manifest.files.keys());
        let mut wrong: Vec<&Vec<u8>> = all.filter(differs).collect();
        wrong.sort_unstable();
        wrong.dedup();
        if !wrong.is_empty() {
            let named: Vec<String> =
                wrong.iter().take(NAMED).map(|path| path.escape_ascii().to_string()).collect();
            let more = wrong.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(
                self.unlike(&format!("its manifest has something else of {}{more}", named.join(", ")))
            );
        }
        let data = self.data_bytes();
        self.own_file(&data, "backup_manifest", bytes)
    }

    fn unlike(&self, what: &str) -> Error {
        let message = format!("what PostgreSQL sent of `{}` is no whole backup: {what}", self.data.display());
        Error::new(ErrorKind::Corrupt, codes::POSTGRES_STREAM, message)
            .with_hint("run the backup again; if it comes back, look at the network between the two hosts")
    }

    /// Names bad pages: those that we found, and that the server found some where we did not.
    fn judge(&mut self, stop: Lsn, complaint: Option<Error>) {
        let range = self.start.0.0..=stop.0;
        for (path, sum) in &self.received {
            let bad = damage::bad_blocks(&sum.wrong_pages, &range);
            if !bad.is_empty() || sum.wrong_more > 0 {
                let event = damage::event(&mut self.facts.bad_pages, &self.data, path, &bad, sum.wrong_more);
                self.steps.push_back(event);
            }
        }
        if let Some(error) = complaint.filter(|_| self.facts.bad_pages.is_empty()) {
            self.facts.bad_pages.push(error.message().to_owned());
            let error = Error::new(ErrorKind::Corrupt, codes::POSTGRES_BAD_PAGE, error.message().to_owned())
                .with_hint("the server's log names the file");
            self.steps.push_back(Event::Unreadable(self.data_bytes(), error));
        }
    }

    /// The links to the tablespaces, which are not sent beside a `tablespace_map`.
    fn links(&mut self) -> Result<()> {
        let folder = [self.data_bytes().as_slice(), b"/pg_tblspc"].concat();
        for space in self.facts.tablespaces.clone() {
            let name = space.oid.to_string();
            if !self.tree.has(&folder, name.as_bytes())? {
                let mut node = self.server_node(&name, NodeKind::Symlink, 0o777)?;
                node.link_target = Some(space.location.into_bytes().into());
                self.tree.add_link(&folder, node)?;
            }
        }
        Ok(())
    }

    /// The next segment; after the last one the facts, the tree, and the end of the session.
    fn segment(&mut self) -> Result<bool> {
        let Some(segments) = &mut self.wal else { return Ok(false) };
        if !segments.ended {
            let (name, size) = (segments.next, self.segment_size);
            let content = Wal::segment(&segments.wal, name)?;
            segments.ended = name.number(size).is_none_or(|number| number >= segments.last);
            segments.next = name.next(size).ok_or_else(|| Error::internal("the WAL ends"))?;
            let folder = [self.data_bytes().as_slice(), b"/pg_wal"].concat();
            let mut node = self.server_node(&name.to_string(), NodeKind::File, 0o600)?;
            node.size_bytes = size.bytes();
            self.ahead(&folder, node, Box::new(content))?;
            return Ok(true);
        }
        Wal::end(&segments.wal, segments.stop)?;
        // The WAL is here: the server may forget it.
        (self.wal, self.session) = (None, None);
        let [folder, name] = FACTS_PARTS;
        self.tree.add_folder(b"/", own_node(folder, NodeKind::Directory, 0o700))?;
        let json = self.facts.to_json()?;
        let mut node = own_node(name, NodeKind::File, 0o600);
        node.size_bytes = json.len() as u64;
        self.ahead(format!("/{folder}").as_bytes(), node, Box::new(Memory::new(json)))?;
        let tree = std::mem::replace(&mut self.tree, Folder::root());
        self.steps.extend(tree.events());
        Ok(true)
    }
}

impl Source for StreamSource {
    fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.steps.pop_front() {
                return Ok(Some(event));
            }
            if let Some(incoming) = self.incoming.clone() {
                self.step(&incoming)?;
            } else if !self.segment()? {
                return Ok(None);
            }
        }
    }
}

/// What the name of a file within the data directory says, for a relation's file.
fn relation(within: &[u8]) -> Option<RelationFile> {
    let text = std::str::from_utf8(within).ok()?;
    let (folder, name) = text.rsplit_once('/')?;
    RelationFile::parse(name).filter(|_| FolderKind::of(folder) == FolderKind::Database)
}

/// A file that is sent now.
struct Sent {
    incoming: Arc<Mutex<Incoming<BaseBackup>>>,
    size_bytes: u64,
    block_bytes: Option<usize>,
}

impl Content for Sent {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Self { incoming: Arc::clone(&self.incoming), ..*self }))
    }
}

impl Reader for Sent {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes)
    }

    fn block_bytes(&self) -> Option<usize> {
        self.block_bytes
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        lock(&self.incoming).read(buffer)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}
