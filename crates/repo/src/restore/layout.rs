//! What a plan keeps of each node: little, so that a million files cost about 150 MB with their names and blobs.
//!
//! Paths are not stored: an entry knows its name and its directory. Directories come before what is in them. Rare
//! things (attributes, where a link points) lie beside the entries.

use super::owners::Owners;
use crate::format::time::Time;
use crate::format::tree::{Node, NodeKind, Xattr};
use crate::id::BlobId;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::collections::HashMap;
use std::ops::Range;

/// What an entry becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    /// Another name of a file that comes before it.
    HardLink,
    Symlink,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// One node, without its name, its blobs and what is rare.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The directory that it lies in; the root lies in itself.
    pub(super) parent: u32,
    name_start: u32,
    first_chunk: u32,
    /// Position in `extras` plus one; 0 for none.
    extra: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    mtime_nanoseconds: u32,
    mtime_seconds: i64,
    name_bytes: u16,
    /// The lower twelve bits of `st_mode`.
    pub(super) mode: u16,
    pub(super) kind: Kind,
}

impl Entry {
    /// Seconds and nanoseconds since 1970.
    pub(super) fn mtime(&self) -> (i64, i64) {
        (self.mtime_seconds, i64::from(self.mtime_nanoseconds))
    }
}

/// What few nodes have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) xattrs: Box<[Xattr]>,
    /// Where a symbolic link points.
    pub(super) target: Box<[u8]>,
    /// When it was last read, where that isn't the time of the last change.
    pub(super) atime: Option<Time>,
    /// Number of a device file.
    pub(super) device: u64,
    /// For a hard link: the file that it is another name of.
    pub(super) first: u32,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) id: BlobId,
    /// Where it ends in the file, in bytes.
    pub(super) end: u64,
}

/// All entries of a plan. The first is the target itself.
#[derive(Default)]
pub(super) struct Layout {
    entries: Vec<Entry>,
    names: Vec<u8>,
    chunks: Vec<Chunk>,
    extras: Vec<Extra>,
    /// The other names of files that have several.
    links: HashMap<u32, Vec<u32>>,
    owners: Owners,
}

/// The target itself.
pub(super) const ROOT: u32 = 0;

fn too_many(what: &str) -> Error {
    Error::new(ErrorKind::Exhausted, codes::RESTORE_TOO_LARGE, format!("the snapshot has too many {what}"))
        .with_hint("restore it in parts, by paths")
}

impl Layout {
    /// An empty one, whose entries will belong to whom `owners` says.
    pub(super) fn new(owners: Owners) -> Self {
        Self { owners, ..Self::default() }
    }

    /// Adds `node` without contents as `kind` in the directory `parent`, and gives its number.
    pub(super) fn add(&mut self, parent: u32, node: &Node, kind: Kind, first: u32) -> Result<u32> {
        let number = u32::try_from(self.entries.len()).map_err(|_| too_many("entries"))?;
        let name_start = u32::try_from(self.names.len()).map_err(|_| too_many("names"))?;
        let first_chunk = u32::try_from(self.chunks.len()).map_err(|_| too_many("chunks"))?;
        let name_bytes = u16::try_from(node.name.len()).map_err(|_| too_many("bytes in a name"))?;
        let (mtime_seconds, nanoseconds) = node.mtime.to_unix();
        let (uid, gid) = self.owners.of(node);
        let rare = !node.xattrs.is_empty()
            || node.atime != node.mtime
            || !matches!(kind, Kind::Directory | Kind::File | Kind::Fifo);
        if rare {
            self.extras.push(Extra {
                xattrs: node.xattrs.clone().into_boxed_slice(),
                target: node.link_target.clone().unwrap_or_default(),
                atime: (node.atime != node.mtime).then_some(node.atime),
                device: node.device,
                first,
            });
        }
        if kind == Kind::HardLink {
            self.links.entry(first).or_default().push(number);
        }
        self.names.extend_from_slice(&node.name);
        self.entries.push(Entry {
            parent,
            name_start,
            first_chunk,
            extra: if rare { u32::try_from(self.extras.len()).map_err(|_| too_many("entries"))? } else { 0 },
            uid,
            gid,
            mtime_nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
            mtime_seconds,
            name_bytes,
            mode: u16::try_from(node.mode & 0o7777).unwrap_or(0),
            kind,
        });
        Ok(number)
    }

    /// Adds a chunk to the entry that was added last.
    pub(super) fn add_chunk(&mut self, id: BlobId, end: u64) {
        self.chunks.push(Chunk { id, end });
    }

    pub(super) fn len(&self) -> u32 {
        // `add` lets in no more.
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, number: u32) -> &Entry {
        &self.entries[number as usize]
    }

    /// All entries in order, with their numbers.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &Entry)> + ExactSizeIterator {
        self.entries
            .iter()
            .enumerate()
            .map(|(number, entry)| (u32::try_from(number).unwrap_or(u32::MAX), entry))
    }

    pub(super) fn name(&self, number: u32) -> &[u8] {
        let entry = self.get(number);
        let start = entry.name_start as usize;
        &self.names[start..start + usize::from(entry.name_bytes)]
    }

    pub(super) fn extra(&self, number: u32) -> Option<&Extra> {
        (self.get(number).extra as usize).checked_sub(1).map(|at| &self.extras[at])
    }

    /// The other names of a file.
    pub(super) fn links(&self, number: u32) -> &[u32] {
        self.links.get(&number).map_or(&[], Vec::as_slice)
    }

    /// Numbers of a file's chunks.
    pub(super) fn chunks(&self, number: u32) -> Range<u32> {
        let end = match self.entries.get(number as usize + 1) {
            Some(next) => next.first_chunk,
            None => u32::try_from(self.chunks.len()).unwrap_or(u32::MAX),
        };
        self.get(number).first_chunk..end
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn chunk(&self, chunk: u32) -> &Chunk {
        &self.chunks[chunk as usize]
    }

    /// Where a chunk starts in its file, and the file.
    pub(super) fn place(&self, chunk: u32) -> (u32, u64) {
        // Entries without chunks share the number of the next one: the last of them has the chunks.
        let after = self.entries.partition_point(|entry| entry.first_chunk <= chunk);
        let file = u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX);
        let first = self.chunks(file).start;
        (file, if chunk == first { 0 } else { self.chunk(chunk - 1).end })
    }

    /// A chunk's length in bytes.
    pub(super) fn chunk_bytes(&self, chunk: u32) -> u64 {
        let (_, start) = self.place(chunk);
        self.chunk(chunk).end.saturating_sub(start)
    }

    /// A file's size in bytes.
    pub(super) fn size_bytes(&self, number: u32) -> u64 {
        let chunks = self.chunks(number);
        if chunks.is_empty() { 0 } else { self.chunk(chunks.end - 1).end }
    }

    /// The path below the target, with `/` between its parts; empty for the target itself.
    pub(super) fn path(&self, number: u32) -> Vec<u8> {
        let (mut parts, mut at) = (Vec::new(), number);
        while at != ROOT {
            parts.push(self.name(at));
            at = self.get(at).parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Whether two nodes have the same contents.
    pub(super) fn same_content(&self, number: u32, content: &[BlobId]) -> bool {
        let chunks = self.chunks(number);
        chunks.len() == content.len() && chunks.zip(content).all(|(chunk, id)| self.chunk(chunk).id == *id)
    }
}

/// What a node becomes; `None` for what can't be restored (sockets, as in restic).
pub(super) fn kind_of(node: &Node) -> Option<Kind> {
    match node.kind {
        NodeKind::File => Some(Kind::File),
        NodeKind::Directory => Some(Kind::Directory),
        NodeKind::Symlink => Some(Kind::Symlink),
        NodeKind::Fifo => Some(Kind::Fifo),
        NodeKind::CharDevice => Some(Kind::CharDevice),
        NodeKind::BlockDevice => Some(Kind::BlockDevice),
        NodeKind::Socket | NodeKind::Irregular => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
        assert_eq!(size_of::<Chunk>(), 40);
    }

    #[test]
    fn chunks_find_their_file_also_behind_empty_ones() {
        let mut layout = Layout::default();
        let root = Node::new("", NodeKind::Directory);
        layout.add(ROOT, &root, Kind::Directory, 0).unwrap();
        let mut expected = Vec::new();
        for (name, lengths) in [("empty", &[][..]), ("two", &[3, 4][..]), ("none", &[]), ("one", &[9])] {
            let file = layout.add(ROOT, &Node::new(name, NodeKind::File), Kind::File, 0).unwrap();
            let mut end = 0;
            for length in lengths {
                expected.push((file, end));
                end += length;
                layout.add_chunk(BlobId([1; 32]), end);
            }
            assert_eq!(layout.size_bytes(file), end);
        }
        let found: Vec<(u32, u64)> = (0..3).map(|chunk| layout.place(chunk)).collect();
        assert_eq!(found, expected);
        assert_eq!(layout.path(4), b"one");
    }

    fn kinds() -> impl Strategy<Value = NodeKind> {
        use NodeKind::{BlockDevice, CharDevice, Directory, Fifo, File, Symlink};
        prop::sample::select(vec![Directory, File, Symlink, Fifo, CharDevice, BlockDevice])
    }

    prop_compose! {
        fn nodes()(
            kind in kinds(),
            name in "[a-z]{1,9}",
            mode in any::<u32>(),
            ids in any::<(u32, u32)>(),
            mtime in (-1000i64..4_000_000_000, 0i64..1_000_000_000),
            atime in prop::option::of((0i64..1000, 0i64..1_000_000_000)),
            attributes in prop::collection::vec(any::<u8>(), 0..3),
            device in any::<u64>(),
        ) -> Node {
            let mut node = Node::new(name.as_str(), kind);
            node.mode = mode;
            (node.uid, node.gid) = ids;
            node.mtime = Time::from_unix(mtime.0, mtime.1);
            node.atime = atime.map_or(node.mtime, |(seconds, nanoseconds)| Time::from_unix(seconds, nanoseconds));
            node.xattrs = attributes.iter()
                .map(|value| Xattr { name: format!("user.{value}"), value: vec![*value] }).collect();
            node.device = device;
            node.link_target = (kind == NodeKind::Symlink).then(|| name.as_bytes().into());
            node
        }
    }

    proptest! {
        /// Everything of a node that a restore sets is there again, wherever in the plan it stands.
        #[test]
        fn what_is_added_is_given_back(
            added in prop::collection::vec((nodes(), any::<prop::sample::Index>(), prop::collection::vec(1u64..50, 0..3)), 0..20),
        ) {
            let mut layout = Layout::default();
            layout.add(ROOT, &Node::new("", NodeKind::Directory), Kind::Directory, 0).unwrap();
            let (mut directories, mut paths) = (vec![ROOT], vec![Vec::new()]);
            let mut chunks = Vec::new();
            for (node, place, lengths) in &added {
                let parent = *place.get(&directories);
                let kind = kind_of(node).unwrap();
                let number = layout.add(parent, node, kind, 0).unwrap();
                let path: Vec<u8> = [&paths[parent as usize][..], &node.name].join(&b'/');
                paths.push(if parent == ROOT { node.name.clone() } else { path });
                let mut end = 0;
                if kind == Kind::Directory {
                    directories.push(number);
                } else if kind == Kind::File {
                    for length in lengths {
                        chunks.push((number, end));
                        end += length;
                        layout.add_chunk(BlobId::of(&end.to_le_bytes()), end);
                    }
                }
            }
            prop_assert_eq!(layout.len() as usize, added.len() + 1);
            for ((node, _, lengths), number) in added.iter().zip(1u32..) {
                let entry = layout.get(number);
                prop_assert_eq!(layout.name(number), &node.name[..]);
                prop_assert_eq!(&layout.path(number), &paths[number as usize]);
                prop_assert_eq!((entry.uid, entry.gid), (node.uid, node.gid));
                prop_assert_eq!(u32::from(entry.mode), node.mode & 0o7777);
                prop_assert_eq!(entry.mtime(), node.mtime.to_unix());
                let extra = layout.extra(number);
                let atime = extra.and_then(|extra| extra.atime).unwrap_or(node.mtime);
                prop_assert_eq!(atime, node.atime);
                prop_assert_eq!(extra.map_or(&[][..], |extra| &extra.xattrs), &node.xattrs[..]);
                if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
                    prop_assert_eq!(extra.unwrap().device, node.device);
                }
                if entry.kind == Kind::Symlink {
                    prop_assert_eq!(&extra.unwrap().target[..], node.link_target.as_deref().unwrap());
                }
                if entry.kind == Kind::File {
                    prop_assert_eq!(layout.size_bytes(number), lengths.iter().sum::<u64>());
                    let ids: Vec<BlobId> = layout.chunks(number).map(|chunk| layout.chunk(chunk).id).collect();
                    prop_assert!(layout.same_content(number, &ids));
                    prop_assert!(!layout.same_content(number, &[&ids[..], &[BlobId([9; 32])]].concat()));
                }
            }
            let places: Vec<(u32, u64)> = (0..).take(layout.chunk_count()).map(|chunk| layout.place(chunk)).collect();
            prop_assert_eq!(places, chunks);
        }
    }

    #[test]
    fn a_hard_link_knows_its_file_and_the_file_its_other_names() {
        let mut layout = Layout::default();
        layout.add(ROOT, &Node::new("", NodeKind::Directory), Kind::Directory, 0).unwrap();
        let add = |layout: &mut Layout, name, kind, first| {
            layout.add(ROOT, &Node::new(name, NodeKind::File), kind, first).unwrap()
        };
        let file = add(&mut layout, "a", Kind::File, 0);
        let other = add(&mut layout, "b", Kind::File, 0);
        let links = ["c", "d"].map(|name| add(&mut layout, name, Kind::HardLink, file));
        assert_eq!((layout.links(file), layout.links(other)), (&links[..], &[][..]));
        assert_eq!(links.map(|link| layout.extra(link).unwrap().first), [file; 2]);
    }
}
