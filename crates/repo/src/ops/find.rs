//! Finding a snapshot, a path in it, and walking its tree.
//!
//! What is asked for by name or time must never silently become something worse: "latest" and "at" pass over incomplete
//! snapshots, and say which ones those are when there is no other.

use crate::format::malformed;
use crate::format::snapshot::{Snapshot, TAG_MASS_CHANGE};
use crate::format::tree::{Node, NodeKind};
use crate::id::{BlobId, SnapshotId};
use crate::index::Index;
use crate::repository::{Folder, Repository};
use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::collections::BTreeSet;

/// Which of the snapshots that fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    #[default]
    Latest,
    /// The one whose id starts with these hexadecimal digits; incomplete ones too, since it is named.
    Id(String),
    /// The newest that holds nothing newer than this; see [`Snapshot::until`].
    At(Timestamp),
}

/// Which snapshot.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// Only of this component.
    pub component: Option<String>,
    /// Only of this host.
    pub host: Option<String>,
    /// Which of those.
    pub which: Which,
    /// Whether [`Which::Latest`] and [`Which::At`] may give an incomplete one.
    pub include_incomplete: bool,
}

/// Snapshots that a hint lists.
const LISTED: usize = 8;

impl Selector {
    fn fits(&self, snapshot: &Snapshot) -> bool {
        let component = self.component.as_deref().is_none_or(|wanted| snapshot.component() == Some(wanted));
        component && self.host.as_deref().is_none_or(|wanted| snapshot.hostname == wanted)
    }

    fn describe(&self) -> String {
        let mut text = match &self.which {
            Which::Latest => "no complete snapshot".to_owned(),
            Which::Id(prefix) => format!("no snapshot `{}`", prefix.escape_debug()),
            Which::At(time) => format!("no complete snapshot at or before `{time}`"),
        };
        if self.include_incomplete {
            text = text.replace("complete ", "");
        }
        for (name, value) in [("component", &self.component), ("host", &self.host)] {
            if let Some(value) = value {
                text = format!("{text} of {name} `{}`", value.escape_debug());
            }
        }
        text
    }
}

/// The snapshot that `selector` asks for.
///
/// # Errors
/// `NotFound` with `R0211` and a hint that lists what there is; `Invalid` with `R0212` when an abbreviated id fits
/// several; `Corrupt` when a snapshot can't be read: it could be the one.
pub fn snapshot(repository: &Repository, selector: &Selector) -> Result<(SnapshotId, Snapshot)> {
    if let Which::Id(prefix) = &selector.which {
        return by_prefix(repository, selector, prefix);
    }
    let all = repository.snapshots().map_err(|error| match error.kind() {
        ErrorKind::Corrupt => {
            error.with_hint("name one by its id: `retoma snapshots` lists those that can be read")
        }
        _ => error,
    })?;
    let not_later = |snapshot: &Snapshot| match selector.which {
        Which::At(time) => snapshot.until() <= time,
        _ => true,
    };
    let fits = |(_, snapshot): &&(SnapshotId, Snapshot)| selector.fits(snapshot) && not_later(snapshot);
    let usable = |snapshot: &Snapshot| selector.include_incomplete || !snapshot.is_incomplete();
    let fitting: Vec<_> = all.iter().filter(fits).collect();
    if let Some((id, snapshot)) = fitting.iter().rev().find(|(_, snapshot)| usable(snapshot)) {
        return Ok((*id, snapshot.clone()));
    }
    let incomplete: Vec<String> = fitting.iter().rev().take(LISTED).map(|(id, _)| id.short()).collect();
    let error = not_found(selector.describe());
    Err(if incomplete.is_empty() {
        error.with_hint(what_there_is(&all, selector))
    } else {
        error.with_hint(format!(
            "these are incomplete: {}; name one by its id, or allow incomplete ones",
            incomplete.join(", ")
        ))
    })
}

/// The oldest of `all` (oldest first) in which too much of `component` had changed at once, that nobody accepted, and that is not newer
/// than `time`: a snapshot of that time may hold what somebody encrypted.
pub fn mass_change<'a>(
    all: &'a [(SnapshotId, Snapshot)],
    component: &str,
    time: Timestamp,
) -> Option<&'a (SnapshotId, Snapshot)> {
    let is_suspect = |snapshot: &Snapshot| {
        snapshot.has_tag(TAG_MASS_CHANGE)
            && snapshot.component() == Some(component)
            && snapshot.time.0 <= time
    };
    all.iter().find(|(_, snapshot)| is_suspect(snapshot))
}

fn by_prefix(repository: &Repository, selector: &Selector, prefix: &str) -> Result<(SnapshotId, Snapshot)> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if prefix.is_empty() || prefix.len() > 64 || !digits(prefix) {
        let message = format!("`{}` is not the beginning of a snapshot's id", prefix.escape_debug());
        return Err(not_found(message).with_hint("an id has hexadecimal digits: 0 to 9 and a to f"));
    }
    let ids = repository.list(Folder::Snapshots)?.into_iter().map(|(id, _)| SnapshotId(id));
    let mut ids: Vec<SnapshotId> = ids.filter(|id| id.to_hex().starts_with(prefix)).collect();
    ids.sort();
    match ids.as_slice() {
        [] => {
            let error = not_found(selector.describe());
            Err(error.with_hint(repository.snapshots().map_or_else(
                |_| "list them with `retoma snapshots`; some can't be read".to_owned(),
                |all| what_there_is(&all, selector),
            )))
        }
        [id] => {
            let snapshot = repository.snapshot(*id)?;
            if selector.fits(&snapshot) {
                return Ok((*id, snapshot));
            }
            let of = snapshot.component().unwrap_or("-").escape_debug().to_string();
            let host = snapshot.hostname.escape_debug();
            let hint = format!("snapshot {} is of component `{of}`, host `{host}`", id.short());
            Err(not_found(selector.describe()).with_hint(hint))
        }
        several => {
            let names: Vec<String> =
                several.iter().take(LISTED).map(|id| id.to_hex()[..16].to_owned()).collect();
            let message = format!("`{prefix}` is the beginning of {} snapshots' ids", several.len());
            Err(Error::new(ErrorKind::Invalid, codes::AMBIGUOUS_ID, message)
                .with_hint(format!("give more digits: {}", names.join(", "))))
        }
    }
}

fn not_found(message: String) -> Error {
    Error::new(ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND, message)
}

/// The snapshots that fit but for their time or id; where none do, which components have some.
fn what_there_is(all: &[(SnapshotId, Snapshot)], selector: &Selector) -> String {
    let fitting: Vec<_> = all.iter().filter(|(_, snapshot)| selector.fits(snapshot)).collect();
    let make =
        selector.component.as_ref().map_or_else(String::new, |name| format!(" {}", name.escape_debug()));
    if fitting.is_empty() {
        let names: BTreeSet<&str> = all.iter().filter_map(|(_, snapshot)| snapshot.component()).collect();
        let others = names.iter().take(LISTED).map(|name| format!("`{}`", name.escape_debug()));
        let others = others.collect::<Vec<_>>().join(", ");
        return match (&selector.host, names.is_empty()) {
            (_, true) => {
                format!("the repository has no snapshot yet; make one with `retoma backup{make}`")
            }
            (Some(_), _) => "`retoma snapshots` shows of which hosts there are some".to_owned(),
            (None, false) => format!(
                "the repository has snapshots of {others}; `retoma backup{make}` makes one of a component in the manifest"
            ),
        };
    }
    let show = |(id, snapshot): &&(SnapshotId, Snapshot)| {
        let component = snapshot.component().unwrap_or("manifest").escape_debug();
        let mark = if snapshot.is_incomplete() { " incomplete" } else { "" };
        format!("{} of {component}, {}{mark}", id.short(), snapshot.time.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    };
    let listed: Vec<String> = fitting.iter().rev().take(LISTED).map(show).collect();
    let more = fitting.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more in `retoma snapshots{make}`") } else { String::new() };
    format!("there are: {}{more}", listed.join("; "))
}

/// The node at `path` below the root `tree`. Slashes at the ends and doubled ones do not matter; the root itself is a
/// directory without a name.
///
/// # Errors
/// `NotFound` with `R0217`, naming how far the path leads; `Corrupt`.
pub fn node(repository: &Repository, index: &Index, tree: &BlobId, path: &[u8]) -> Result<Node> {
    let mut found = Node::new("", NodeKind::Directory);
    found.subtree = Some(*tree);
    let mut passed = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let missing = |hint: String| {
            let message = format!("the snapshot has no `{}`", path.escape_ascii());
            Error::new(ErrorKind::NotFound, codes::PATH_NOT_FOUND, message).with_hint(hint)
        };
        let shown = format!("/{}", passed.join(&b'/').escape_ascii());
        let Some(tree) = found.subtree else {
            return Err(missing(format!("`{shown}` is not a directory")));
        };
        let nodes = repository.read_tree(index, &tree).with_context(|| format!("look into `{shown}`"))?;
        let names: Vec<String> =
            nodes.iter().take(LISTED).map(|node| node.name.escape_ascii().to_string()).collect();
        found = nodes.into_iter().find(|node| node.name == name).ok_or_else(|| {
            let first = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            missing(format!("`{shown}` has: {first}"))
        })?;
        passed.push(name);
    }
    Ok(found)
}

/// So many more directories with directories in them are entered than there are blobs. Copies of one large folder share
/// their trees, and users their empty mail folders: millions of them are no attack.
const NESTED_AGAIN_MAX: u64 = if cfg!(test) { 2_000 } else { 4 << 20 };

/// Ends a walk that would not end: a tree that names one subtree twice, which names another twice, and so on for 64 levels,
/// takes 64 blobs and has more paths than anybody can read. Without a memory of the trees: entering each of them once takes no
/// more than there are blobs.
#[derive(Debug)]
pub(crate) struct Nesting {
    left: u64,
}

impl Nesting {
    pub(crate) fn of(index: &Index) -> Self {
        Self { left: NESTED_AGAIN_MAX.saturating_add(index.len() as u64) }
    }

    /// Enters a directory in which these nodes are.
    ///
    /// # Errors
    /// `Corrupt` with `R0205` when it was too much.
    pub(crate) fn enter(&mut self, nodes: &[Node]) -> Result<()> {
        // Directories without directories are only as many as those above them name.
        if !nodes.iter().any(|node| node.subtree.is_some()) {
            return Ok(());
        }
        let Some(left) = self.left.checked_sub(1) else {
            let what = "the snapshot names the same directories over and over, and has no end";
            let hint = "no backup makes such a snapshot: ask who else can write to the repository";
            return Err(malformed(what).with_hint(hint));
        };
        self.left = left;
        Ok(())
    }
}

/// A node and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path from the snapshot's root, with a slash in front.
    pub path: Vec<u8>,
    /// What is there.
    pub node: Node,
}

/// Goes through a tree, depth first, a directory before what is in it. Memory: the directories on the way down.
///
/// A directory that can't be read gives an error in its place; what is beside it follows.
#[derive(Debug)]
pub struct Walk<'a> {
    repository: &'a Repository,
    index: &'a Index,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// The directory that was given out last: it is read when the next entry is asked for.
    below: Option<BlobId>,
    deep: bool,
    nesting: Nesting,
}

#[derive(Debug)]
struct Level {
    nodes: std::vec::IntoIter<Node>,
    path_bytes: usize,
}

impl<'a> Walk<'a> {
    /// Everything below `tree`, whose own path is `path` (empty for the root).
    pub fn new(repository: &'a Repository, index: &'a Index, tree: BlobId, path: &[u8]) -> Self {
        let (path, nesting) = (path.to_vec(), Nesting::of(index));
        Self { repository, index, levels: Vec::new(), path, below: Some(tree), deep: true, nesting }
    }

    /// Only what lies directly in the tree.
    #[must_use]
    pub fn shallow(mut self) -> Self {
        self.deep = false;
        self
    }

    fn descend(&mut self, tree: BlobId) -> Result<()> {
        let read = self.repository.read_tree(self.index, &tree);
        let nodes = read.with_context(|| format!("look into `{}`", self.path.escape_ascii()))?;
        if let Err(error) = self.nesting.enter(&nodes) {
            // Nothing follows.
            self.levels.clear();
            return Err(error);
        }
        self.levels.push(Level { nodes: nodes.into_iter(), path_bytes: self.path.len() });
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(tree) = self.below.take()
            && let Err(error) = self.descend(tree)
        {
            return Some(Err(error));
        }
        loop {
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_bytes);
            let Some(node) = level.nodes.next() else {
                self.levels.pop();
                continue;
            };
            self.path.push(b'/');
            self.path.extend_from_slice(&node.name);
            self.below = node.subtree.filter(|_| self.deep);
            return Some(Ok(Entry { path: self.path.clone(), node }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::packer::Packer;
    use crate::blob;
    use crate::format::{BlobKind, tree};
    use crate::ops::diff::diff;
    use crate::restore;
    use crate::store::{BlockingStore, ObjectStore};
    use retoma_core::Secret;
    use std::sync::{Arc, RwLock};

    /// Stores trees, each of which names the one before `copies` times; gives the last one.
    fn nested(depth: usize, copies: usize) -> (Repository, Index, BlobId) {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
        let (packer, index) = (Packer::new(repository.clone()), RwLock::new(Index::default()));
        let mut below: Option<BlobId> = None;
        for _ in 0..depth {
            let mut nodes = Vec::new();
            for copy in 0..copies {
                let mut node = Node::new(format!("{copy:04}"), NodeKind::Directory);
                node.subtree = below;
                nodes.extend(below.map(|_| node));
            }
            let json = tree::to_json(&nodes).unwrap();
            let (id, mut sealed) = (BlobId::of(&json), Vec::new());
            let uncompressed = blob::seal(&repository, &json, &mut sealed).unwrap();
            packer.add(&index, BlobKind::Tree, id, &sealed, uncompressed).unwrap();
            below = Some(id);
        }
        packer.finish(&index).unwrap();
        let index = repository.load_index().unwrap();
        (repository, index, below.unwrap())
    }

    /// A folder with nothing in it.
    fn leaf() -> BlobId {
        BlobId::of(&tree::to_json(&[]).unwrap())
    }

    #[test]
    fn a_tree_with_more_paths_than_anybody_can_read_ends() {
        let (repository, index, root) = nested(64, 2);
        let (last, count) = Walk::new(&repository, &index, root, b"")
            .fold((None, 0), |(_, count), entry| (Some(entry), count + 1));
        assert_eq!(last.unwrap().unwrap_err().code(), codes::MALFORMED);
        assert!(count < 100_000, "{count}");
        let changes = diff(&repository, &index, leaf(), root);
        assert_eq!(changes.last().unwrap().unwrap_err().code(), codes::MALFORMED);
        let target = std::path::Path::new("/nowhere");
        let error =
            restore::plan(&repository, &index, root, &restore::Options::default(), target).unwrap_err();
        assert_eq!(error.code(), codes::MALFORMED);
    }

    #[test]
    fn many_copies_of_one_folder_are_walked() {
        // More empty folders than the limit, in copies of the same one.
        let (repository, index, root) = nested(3, 60);
        let walked = Walk::new(&repository, &index, root, b"").map(Result::unwrap).count();
        assert_eq!(walked, 60 + 60 * 60);
    }
}
