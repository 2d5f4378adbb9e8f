//! The database as a source of a backup.

use super::database::{Database, Options};
use super::facts::{CaptureFacts, FACTS_PARTS};
use super::pages::PageReader;
use crate::files::node::{self, Owners};
use crate::memory::Memory;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Event, Found, Reader, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::host;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One SQLite database as of one read transaction, which lasts from [`SqliteSource::open`] until the pages are read or the
/// source is dropped. In WAL mode writers go on meanwhile; with a rollback journal they wait.
#[derive(Debug)]
pub struct SqliteSource {
    facts: CaptureFacts,
    steps: VecDeque<Event>,
}

impl SqliteSource {
    /// Opens the database at `path`, absolute and without `..`, and checks it: nothing that is empty or damaged becomes a
    /// snapshot.
    ///
    /// # Errors
    /// `R0401` not readable, `R0403` empty, `R0404` damaged or no database, `R0406` locked for longer than five seconds,
    /// `R0407` not checkable.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// [`SqliteSource::open`] with other times to wait.
    ///
    /// # Errors
    /// See [`SqliteSource::open`].
    pub fn open_with(path: &Path, options: Options) -> Result<Self> {
        let path = node::absolute(path)?;
        let top = path.components().nth(1).map(|part| part.as_os_str().to_owned()).unwrap_or_default();
        let [facts_folder, _] = FACTS_PARTS;
        if top == facts_folder {
            let message = format!("`{}` lies where snapshots keep their own facts", path.display());
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                .with_hint("move the database out of `/.retoma`"));
        }
        let database = Database::begin(&path, options)?;
        let facts = database.facts()?;
        let own = own_steps(&facts)?;
        let of_database = database_steps(&path, database, &facts)?;
        let own_first = facts_folder.as_bytes() < top.as_bytes();
        let (first, second) = if own_first { (own, of_database) } else { (of_database, own) };
        Ok(Self { facts, steps: first.into_iter().chain(second).collect() })
    }

    /// What was captured.
    pub fn facts(&self) -> &CaptureFacts {
        &self.facts
    }
}

impl Source for SqliteSource {
    fn next(&mut self) -> Result<Option<Event>> {
        Ok(self.steps.pop_front())
    }
}

/// The folder and the file that tell what was captured.
fn own_steps(facts: &CaptureFacts) -> Result<Vec<Event>> {
    let [folder, name] = FACTS_PARTS;
    let json = facts.to_json()?;
    let (uid, gid) = host::ids();
    let node = |name: &str, kind, mode| {
        let mut node = Node::new(name, kind);
        let now = host::now();
        (node.mode, node.uid, node.gid) = (mode, uid, gid);
        (node.mtime, node.atime, node.ctime) = (now, now, now);
        Box::new(node)
    };
    let mut file = node(name, NodeKind::File, 0o600);
    file.size_bytes = json.len() as u64;
    Ok(vec![
        Event::Enter(node(folder, NodeKind::Directory, 0o700)),
        Event::Entry(file, Box::new(Memory::new(json))),
        Event::Leave,
    ])
}

/// The folders above the database, and the database.
fn database_steps(path: &Path, database: Database, facts: &CaptureFacts) -> Result<Vec<Event>> {
    let mut owners = Owners::read();
    let mut steps = Vec::new();
    let mut folder = PathBuf::from("/");
    let parts: Vec<&OsStr> = path.components().skip(1).map(Component::as_os_str).collect();
    let Some((name, folders)) = parts.split_last() else {
        return Err(Error::internal("the root is no database"));
    };
    for part in folders {
        folder.push(part);
        steps.push(Event::Enter(Box::new(node::folder_above(&folder, &mut owners)?)));
    }
    let mut node = node::from_stat(name.as_bytes(), database.stat(), &mut owners);
    node.size_bytes = facts.bytes;
    // The file's times say nothing while commits lie in the WAL: an inode that the parent cannot have makes the backup
    // read the pages every time. `describe` puts the real one in.
    node.inode = !node.inode;
    let (page_size, page_count) = (facts.page_size, facts.page_count);
    steps.push(Event::Entry(
        Box::new(node),
        Box::new(Pages { database: Some(database), page_size, page_count }),
    ));
    steps.extend(folders.iter().map(|_| Event::Leave));
    Ok(steps)
}

/// The database file's contents.
struct Pages {
    database: Option<Database>,
    page_size: u64,
    page_count: u64,
}

impl Content for Pages {
    fn describe(&mut self, node: &mut Node) -> Result<Found> {
        let Some(database) = &self.database else { return Err(read_twice()) };
        node::update(node, database.stat());
        node.size_bytes = self.page_size * self.page_count;
        // By way of the link, if it is one: what is captured is the file.
        let real = std::fs::canonicalize(database.path())
            .map_err(|error| node::unreadable(database.path(), error))?;
        node.xattrs = node::xattrs(&real)?;
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let database = self.database.take().ok_or_else(read_twice)?;
        Ok(Box::new(PageReader::new(database, self.page_size, self.page_count)?))
    }
}

fn read_twice() -> Error {
    Error::internal("a capture is read twice")
}
