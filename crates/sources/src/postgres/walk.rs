//! The data directory and the tablespaces as one stream of entries, each at its own absolute path.

use super::facts::FACTS_PARTS;
use super::manifest::BackupManifest;
use super::reader::{DataFile, FileState, Pages};
use super::relation::RelationFile;
use super::select::{FolderKind, Selection};
use crate::files::node::{self, Owners, unreadable};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Event, Found, Reader};
use retoma_repo::format::tree::{Node, NodeKind};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// What has a place from the beginning, and contents only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// What was captured.
    Facts = 1,
    /// `backup_label`.
    Label = 2,
    /// `backup_manifest`.
    Manifest = 3,
    /// `tablespace_map`.
    TablespaceMap = 4,
    /// `pg_wal`.
    Wal = 5,
    /// `global/pg_control`.
    Control = 6,
}

impl Late {
    /// The names beside those that the data directory has, with their places.
    const AT_TOP: [(&'static str, Self); 3] = [
        ("backup_label", Self::Label),
        ("backup_manifest", Self::Manifest),
        ("tablespace_map", Self::TablespaceMap),
    ];

    fn of(path: &[u8]) -> Option<Self> {
        match path {
            b"pg_wal" => Some(Self::Wal),
            b"global/pg_control" => Some(Self::Control),
            _ => Self::AT_TOP.iter().find(|(name, _)| name.as_bytes() == path).map(|(_, late)| *late),
        }
    }
}

/// A file of the backup, for the manifest.
#[derive(Debug)]
pub(super) struct Listed {
    /// Its path within the data directory.
    pub(super) path: Vec<u8>,
    pub(super) state: FileState,
}

/// What the walk has to know.
#[derive(Debug)]
pub(super) struct Plan {
    /// The data directory.
    pub(super) data: PathBuf,
    /// Tablespaces: number and place.
    pub(super) tablespaces: Vec<(u32, PathBuf)>,
    /// The one folder of a tablespace that belongs to this server.
    pub(super) version_folder: String,
    pub(super) verified: bool,
    pub(super) chunk_bytes: usize,
    /// The folder for our own facts, and the file in it.
    pub(super) facts: [&'static str; 2],
    /// The manifest of the parent snapshot: what is not in it is read again, to be summed up.
    pub(super) known: BackupManifest,
}

#[derive(Debug)]
pub(super) struct Walk {
    plan: Plan,
    owners: Owners,
    steps: VecDeque<Step>,
    stack: Vec<Frame>,
    pending: VecDeque<Event>,
    /// The files that were given so far.
    pub(super) listed: Vec<Listed>,
}

#[derive(Debug)]
enum Step {
    /// A folder above what is backed up.
    Enter(PathBuf),
    Leave,
    /// A folder that is backed up, with its path within the data directory.
    Root(PathBuf, Vec<u8>),
    Facts,
}

#[derive(Debug)]
struct Frame {
    path: PathBuf,
    /// The path within the data directory.
    within: Vec<u8>,
    kind: FolderKind,
    /// Names still to visit, the next one last.
    names: Vec<OsString>,
}

/// The folders above the roots, as a tree.
#[derive(Debug, Default)]
struct Above {
    children: BTreeMap<Vec<u8>, Above>,
    root: Option<(PathBuf, Vec<u8>)>,
}

impl Walk {
    /// # Errors
    /// `R0420` when a tablespace lies in the data directory or in another one.
    pub(super) fn new(plan: Plan) -> Result<Self> {
        let mut tree = Above::of(&plan.data, &plan.tablespaces, plan.facts[0])?;
        tree.children.insert(plan.facts[0].as_bytes().to_vec(), Above::default());
        let mut steps = VecDeque::new();
        tree.steps(Path::new("/"), plan.facts[0].as_bytes(), &mut steps);
        let owners = Owners::read();
        Ok(Self { plan, owners, steps, stack: Vec::new(), pending: VecDeque::new(), listed: Vec::new() })
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if !self.stack.is_empty() {
                self.visit();
                continue;
            }
            let Some(step) = self.steps.pop_front() else { return Ok(None) };
            match step {
                Step::Enter(path) => {
                    let node = node::folder_above(&path, &mut self.owners)?;
                    return Ok(Some(Event::Enter(Box::new(node))));
                }
                Step::Leave => return Ok(Some(Event::Leave)),
                Step::Root(path, within) => self.enter(path, within, true)?,
                Step::Facts => {
                    let [folder, name] = self.plan.facts;
                    let node = own_node(folder, NodeKind::Directory, 0o700);
                    self.pending.push_back(Event::Enter(Box::new(node)));
                    self.pending.push_back(Event::Reserve(Late::Facts as u32, name.into()));
                    self.pending.push_back(Event::Leave);
                }
            }
        }
    }

    /// Lists a folder. One that was dropped meanwhile is left out; a root must be there.
    fn enter(&mut self, path: PathBuf, within: Vec<u8>, is_root: bool) -> Result<()> {
        let gone = |error: &Error| !is_root && error.kind() == ErrorKind::NotFound;
        let node = match node::folder_above(&path, &mut self.owners) {
            Ok(node) => node,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if is_root => return Err(error),
            Err(error) => {
                self.note(&path, error);
                return Ok(());
            }
        };
        let mut names = match list(&path) {
            Ok(names) => names,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if is_root => return Err(error),
            Err(error) => {
                self.note(&path, error);
                return Ok(());
            }
        };
        let kind = FolderKind::of(&String::from_utf8_lossy(&within));
        self.select(kind, &within, &mut names);
        self.pending.push_back(Event::Enter(Box::new(node)));
        self.stack.push(Frame { path, within, kind, names });
        Ok(())
    }

    /// Takes out what does not belong into a backup, puts in what comes late, and sorts, the first one last.
    fn select(&self, kind: FolderKind, within: &[u8], names: &mut Vec<OsString>) {
        let texts: Vec<_> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let selection = Selection::new(kind, texts.iter().map(String::as_str));
        let oid = within.strip_prefix(b"pg_tblspc/");
        let is_tablespace = oid.is_some_and(|oid| !oid.contains(&b'/'));
        names.retain(|name| {
            let text = name.to_string_lossy();
            selection.takes(&text) && (!is_tablespace || text == self.plan.version_folder)
        });
        if kind == FolderKind::Top {
            names.extend(Late::AT_TOP.iter().map(|(name, _)| OsString::from(name)));
        }
        names.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
    }

    fn note(&mut self, path: &Path, error: Error) {
        self.pending.push_back(Event::Unreadable(path.as_os_str().as_bytes().to_vec(), error));
    }

    /// Visits the next name of the innermost folder.
    fn visit(&mut self) {
        let Some(frame) = self.stack.last_mut() else { return };
        let Some(name) = frame.names.pop() else {
            self.stack.pop();
            self.pending.push_back(Event::Leave);
            return;
        };
        let path = frame.path.join(&name);
        let mut within = frame.within.clone();
        if !within.is_empty() {
            within.push(b'/');
        }
        within.extend_from_slice(name.as_bytes());
        if let Some(late) = Late::of(&within) {
            self.pending.push_back(Event::Reserve(late as u32, name.into_vec()));
            return;
        }
        let in_database = frame.kind == FolderKind::Database;
        match self.entry(&path, name.as_bytes(), within, in_database) {
            Err(error) if error.kind() != ErrorKind::NotFound => self.note(&path, error),
            _ => {}
        }
    }

    fn entry(&mut self, path: &Path, name: &[u8], within: Vec<u8>, in_database: bool) -> Result<()> {
        let stat = rustix::fs::lstat(path).map_err(|error| unreadable(path, error))?;
        let mut node = node::from_stat(name, &stat, &mut self.owners);
        match node.kind {
            NodeKind::Directory => self.enter(path.to_owned(), within, false),
            NodeKind::Symlink => {
                self.pending.push_back(Event::Entry(Box::new(node), Box::new(Link(path.to_owned()))));
                Ok(())
            }
            NodeKind::File => {
                if !self.plan.known.files.contains_key(&within) {
                    // An inode that the parent cannot have: it is read, whatever else it says.
                    node.inode = !node.inode;
                }
                let relation =
                    std::str::from_utf8(name).ok().and_then(RelationFile::parse).filter(|_| in_database);
                let pages = relation.map(|relation| Pages {
                    first_block: relation.first_block(),
                    verified: self.plan.verified,
                    chunk_bytes: self.plan.chunk_bytes,
                });
                let state = FileState::default();
                let content = DataFile::new(path.to_owned(), pages, state.clone());
                self.listed.push(Listed { path: within, state });
                self.pending.push_back(Event::Entry(Box::new(node), Box::new(content)));
                Ok(())
            }
            // A socket, a pipe: the server's own is made anew, others are nobody's data.
            _ => Ok(()),
        }
    }
}

/// Whether the data directory and the tablespaces (number and place) can lie in one snapshot, beside our own facts.
///
/// # Errors
/// `R0420` when one lies in another.
pub(super) fn check_apart(data: &Path, tablespaces: &[(u32, PathBuf)]) -> Result<()> {
    Above::of(data, tablespaces, FACTS_PARTS[0]).map(drop)
}

impl Above {
    /// The folders above all of them.
    fn of(data: &Path, tablespaces: &[(u32, PathBuf)], facts: &str) -> Result<Self> {
        let mut tree = Self::default();
        tree.add(data, Vec::new())?;
        for (oid, place) in tablespaces {
            tree.add(place, format!("pg_tblspc/{oid}").into_bytes())?;
        }
        if tree.children.contains_key(facts.as_bytes()) {
            let message = format!("`/{facts}` is where snapshots keep their own facts");
            return Err(Error::new(ErrorKind::Invalid, codes::POSTGRES_SETUP, message)
                .with_hint("move the server's data to another folder"));
        }
        Ok(tree)
    }

    fn add(&mut self, path: &Path, within: Vec<u8>) -> Result<()> {
        let inside = |other: &Path| {
            let message =
                format!("`{}` lies in `{}`, or the other way round", path.display(), other.display());
            Error::new(ErrorKind::Invalid, codes::POSTGRES_SETUP, message)
                .with_hint("move the tablespace to a folder of its own, as PostgreSQL's manual asks for")
        };
        let mut at = self;
        for part in path.components() {
            let Component::Normal(part) = part else { continue };
            if let Some((other, _)) = &at.root {
                return Err(inside(other));
            }
            at = at.children.entry(part.as_bytes().to_vec()).or_default();
        }
        if let Some((other, _)) = &at.root {
            return Err(inside(other));
        }
        if !at.children.is_empty() {
            return Err(inside(path));
        }
        at.root = Some((path.to_owned(), within));
        Ok(())
    }

    fn steps(self, path: &Path, facts: &[u8], steps: &mut VecDeque<Step>) {
        let at_top = path == Path::new("/");
        for (name, child) in self.children {
            let path = path.join(OsString::from_vec(name.clone()));
            if at_top && name == facts {
                steps.push_back(Step::Facts);
            } else if let Some((root, within)) = child.root {
                steps.push_back(Step::Root(root, within));
            } else {
                steps.push_back(Step::Enter(path.clone()));
                child.steps(&path, facts, steps);
                steps.push_back(Step::Leave);
            }
        }
    }
}

/// The names in a folder.
fn list(path: &Path) -> Result<Vec<OsString>> {
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, error))?;
    entries.map(|entry| Ok(entry.map_err(|error| unreadable(path, error))?.file_name())).collect()
}

/// A node of our own, as of now.
pub(super) fn own_node(name: &str, kind: NodeKind, mode: u32) -> Node {
    let mut node = Node::new(name, kind);
    let now = retoma_repo::host::now();
    (node.uid, node.gid) = retoma_repo::host::ids();
    (node.mode, node.mtime, node.atime, node.ctime) = (mode, now, now, now);
    node
}

/// A symbolic link.
#[derive(Debug)]
struct Link(PathBuf);

impl Content for Link {
    fn describe(&mut self, node: &mut Node) -> Result<Found> {
        match node::link_target(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Gone),
            target => {
                node.link_target = Some(target?);
                Ok(Found::There)
            }
        }
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Err(Error::internal("a link has no contents"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(paths: &[&str]) -> Result<Vec<String>> {
        let mut tree = Above::default();
        for path in paths {
            tree.add(Path::new(path), Vec::new())?;
        }
        tree.children.insert(b".retoma".to_vec(), Above::default());
        let mut steps = VecDeque::new();
        tree.steps(Path::new("/"), b".retoma", &mut steps);
        let shown = |step: &Step| match step {
            Step::Enter(path) => format!("enter {}", path.display()),
            Step::Leave => "leave".to_owned(),
            Step::Root(path, _) => format!("root {}", path.display()),
            Step::Facts => "facts".to_owned(),
        };
        Ok(steps.iter().map(shown).collect())
    }

    #[test]
    fn folders_above_are_shared_and_sorted() {
        assert_eq!(
            roots(&["/var/lib/pg", "/srv/fast", "/var/b", "/-odd"]).unwrap(),
            [
                "root /-odd",
                "facts",
                "enter /srv",
                "root /srv/fast",
                "leave",
                "enter /var",
                "root /var/b",
                "enter /var/lib",
                "root /var/lib/pg",
                "leave",
                "leave"
            ]
        );
    }

    #[test]
    fn one_root_in_another_is_refused() {
        for paths in [["/a", "/a/b"], ["/a/b", "/a"], ["/a", "/a"]] {
            assert_eq!(roots(&paths).unwrap_err().code(), codes::POSTGRES_SETUP, "{paths:?}");
        }
    }
}
