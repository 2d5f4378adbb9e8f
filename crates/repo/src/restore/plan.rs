//! The plan: which entries there will be. Trees are read several at a time.

use super::layout::{Kind, Layout, ROOT, kind_of};
use super::owners::Owners;
use super::select::{PathSet, Reach, parts};
use super::target::{Directories, Target, names_below};
use super::{Notes, Options, trees};
use crate::format::BlobKind;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::index::Index;
use crate::ops::find::Nesting;
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What [`apply`](super::apply) will do.
pub struct Plan<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Index,
    pub(super) target: PathBuf,
    pub(super) layout: Layout,
    pub(super) options: Options,
    /// What is in the way of a snapshot that is the whole truth: a directory and a name in it.
    pub(super) extra: Vec<(u32, Vec<u8>)>,
    /// What can't be restored as the repository is.
    pub(super) unreadable: Vec<(u32, Error)>,
    pub(super) notes: Notes,
    files: u64,
    directories: u64,
    bytes: u64,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("target", &self.target)
            .field("files", &self.files)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Plan<'_> {
    /// Number of regular files, hard links among them.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Number of directories, without the target itself.
    pub fn directories(&self) -> u64 {
        self.directories
    }

    /// Bytes of all files; what has several names counts once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The paths that `delete_extra` will remove, each with everything below it.
    pub fn extra(&self) -> Vec<PathBuf> {
        use std::os::unix::ffi::OsStrExt as _;
        let path = |(directory, name): &(u32, Vec<u8>)| {
            let below = self.layout.path(*directory);
            self.target.join(std::ffi::OsStr::from_bytes(&below)).join(std::ffi::OsStr::from_bytes(name))
        };
        self.extra.iter().map(path).collect()
    }

    /// What is known already to be lost, because the repository is damaged: paths below the target.
    pub fn unreadable(&self) -> impl Iterator<Item = (Vec<u8>, &Error)> {
        self.unreadable.iter().map(|(entry, error)| (self.layout.path(*entry), error))
    }
}

/// Plans the restore of the snapshot with the root `tree` into `target`, which need not exist. Changes nothing.
///
/// # Errors
/// `NotFound` or `Invalid` with `R0504` for paths that are not in the snapshot; `Corrupt` when the root, or a directory
/// on the way to `strip`, can't be read; `Exhausted` with `R0505`. Damage below is listed in the plan.
pub fn plan<'a>(
    repository: &'a Repository,
    index: &'a Index,
    tree: BlobId,
    options: &Options,
    target: &Path,
) -> Result<Plan<'a>> {
    let everything = [b"/".to_vec()];
    let paths = if options.paths.is_empty() { &everything[..] } else { &options.paths };
    let existing = if options.delete_extra { Target::open(target).ok() } else { None };
    let mut walk = Walk {
        plan: Plan {
            repository,
            index,
            target: target.to_owned(),
            layout: Layout::new(Owners::by(options.owners)),
            options: options.clone(),
            extra: Vec::new(),
            unreadable: Vec::new(),
            notes: Notes::default(),
            files: 0,
            directories: 0,
            bytes: 0,
        },
        paths: PathSet::new(paths)?,
        whole: PathSet::new(&options.whole)?,
        left_out: PathSet::new(&options.leave_out)?,
        inodes: HashMap::new(),
        existing,
    };
    let root = walk.root(tree)?;
    walk.follow(root)?;
    if let Some(path) = walk.paths.unseen() {
        return Err(not_there(path));
    }
    Ok(walk.plan)
}

fn not_there(path: &[u8]) -> Error {
    let message = format!("the snapshot has no `{}` in what was asked for", path.escape_ascii());
    Error::new(ErrorKind::NotFound, codes::RESTORE_PATH, message)
        .with_hint("`retoma ls COMPONENT --recursive` shows what it has")
}

/// A directory that is still to be read.
struct Pending {
    entry: u32,
    tree: BlobId,
    wanted: Reach,
    whole: Reach,
    left_out: Reach,
}

struct Walk<'a> {
    plan: Plan<'a>,
    paths: PathSet,
    whole: PathSet,
    left_out: PathSet,
    /// The first name of each file that has several, by device and inode.
    inodes: HashMap<(u64, u64), u32>,
    existing: Option<Target>,
}

/// Directories that are read at once.
const BATCH: usize = 64;

impl Walk<'_> {
    /// Where the walk starts; nothing when `strip` names something else than a directory.
    fn root(&mut self, tree: BlobId) -> Result<Option<Pending>> {
        let strip = self.plan.options.strip.clone().unwrap_or_default();
        let mut node = Node::new("", NodeKind::Directory);
        node.subtree = Some(tree);
        let (mut wanted, mut whole) = (self.paths.start(), self.whole.start());
        let mut left_out = self.left_out.start();
        for part in parts(&strip)? {
            let Some(tree) = node.subtree else { return Err(not_there(&strip)) };
            let nodes = self.plan.repository.read_tree(self.plan.index, &tree)?;
            let inner = nodes.into_iter().find(|node| node.name == part);
            node = inner.ok_or_else(|| not_there(&strip))?;
            wanted = self.paths.step(wanted, part);
            whole = self.whole.step(whole, part);
            left_out = self.left_out.step(left_out, part);
        }
        let outer =
            if node.kind == NodeKind::Directory { node.clone() } else { Node::new("", NodeKind::Directory) };
        self.plan.layout.add(ROOT, &outer, Kind::Directory, 0)?;
        if let Some(tree) = node.subtree {
            return Ok(Some(Pending { entry: ROOT, tree, wanted, whole, left_out }));
        }
        if wanted == Reach::Inside {
            self.add(ROOT, &node)?;
        }
        Ok(None)
    }

    fn follow(&mut self, root: Option<Pending>) -> Result<()> {
        let mut waiting: Vec<Pending> = root.into_iter().collect();
        let mut first = true;
        let mut nesting = Nesting::of(self.plan.index);
        while !waiting.is_empty() {
            let batch = waiting.split_off(waiting.len().saturating_sub(BATCH));
            for (pending, nodes) in batch.iter().zip(self.read(&batch)) {
                match nodes {
                    Ok(mut nodes) => {
                        nesting.enter(&nodes)?;
                        let left_out = &mut self.left_out;
                        nodes.retain(|node| left_out.step(pending.left_out, &node.name) != Reach::Inside);
                        self.directory(pending, &nodes, &mut waiting)?;
                    }
                    Err(error) if first => return Err(error),
                    Err(error) => self.plan.unreadable.push((pending.entry, error)),
                }
            }
            first = false;
        }
        Ok(())
    }

    /// Reads the trees of a batch, in its order.
    fn read(&self, batch: &[Pending]) -> Vec<Result<Vec<Node>>> {
        let ids: Vec<BlobId> = batch.iter().map(|pending| pending.tree).collect();
        trees::read(self.plan.repository, self.plan.index, &self.plan.options, &ids)
    }

    fn directory(&mut self, pending: &Pending, nodes: &[Node], waiting: &mut Vec<Pending>) -> Result<()> {
        for node in nodes {
            let wanted = self.paths.step(pending.wanted, &node.name);
            let on_the_way = matches!(wanted, Reach::Towards(_)) && node.kind == NodeKind::Directory;
            if wanted != Reach::Inside && !on_the_way {
                continue;
            }
            let entry = self.add(pending.entry, node)?;
            if let (Some(entry), Some(tree)) = (entry, node.subtree) {
                let whole = self.whole.step(pending.whole, &node.name);
                let left_out = self.left_out.step(pending.left_out, &node.name);
                waiting.push(Pending { entry, tree, wanted, whole, left_out });
            }
        }
        if pending.wanted == Reach::Inside && pending.whole == Reach::Inside {
            self.find_extra(pending.entry, nodes);
        }
        Ok(())
    }

    /// What the target has in a directory and the snapshot has not.
    fn find_extra(&mut self, directory: u32, nodes: &[Node]) {
        let Some(target) = &self.existing else { return };
        let opened = Directories::new(&self.plan.layout, target).get(directory);
        // A directory that isn't there, or is a link, has nothing of ours.
        let Ok(names) = opened.and_then(|opened| names_below(&opened)) else { return };
        for name in names {
            if nodes.binary_search_by(|node| node.name.as_slice().cmp(&name)).is_err() {
                self.plan.extra.push((directory, name));
            }
        }
    }

    fn add(&mut self, parent: u32, node: &Node) -> Result<Option<u32>> {
        let Some(kind) = kind_of(node) else {
            self.plan.notes.skipped += 1;
            return Ok(None);
        };
        let layout = &mut self.plan.layout;
        match kind {
            Kind::Directory => self.plan.directories += 1,
            Kind::File => self.plan.files += 1,
            _ => {}
        }
        if kind != Kind::File {
            return layout.add(parent, node, kind, 0).map(Some);
        }
        if node.links > 1 {
            let first = *self.inodes.entry((node.device_id, node.inode)).or_insert(layout.len());
            if first != layout.len() && layout.same_content(first, &node.content) {
                return layout.add(parent, node, Kind::HardLink, first).map(Some);
            }
        }
        let entry = layout.add(parent, node, Kind::File, 0)?;
        let mut end = 0u64;
        for id in &node.content {
            match self.plan.repository.plaintext_bytes(self.plan.index, BlobKind::Data, id) {
                Some(bytes) => end += bytes,
                None => self.plan.unreadable.push((entry, missing(id))),
            }
            self.plan.layout.add_chunk(*id, end);
        }
        self.plan.bytes += end;
        if end != node.size_bytes {
            self.plan.notes.sizes += 1;
        }
        Ok(Some(entry))
    }
}

pub(super) fn missing(id: &BlobId) -> Error {
    Error::new(ErrorKind::Corrupt, codes::BLOB_MISSING, format!("blob {id} is in no index"))
        .with_hint("run `retoma verify` to see which snapshots are hit")
}
