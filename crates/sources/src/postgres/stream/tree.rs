//! Where everything belongs: an archive has its entries in the order of the server's folders, a snapshot by names.

use super::tar::Entry;
use crate::postgres::walk::own_node;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Event, Found, Reader};
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A folder and what is in it.
#[derive(Debug)]
pub(super) struct Folder {
    node: Node,
    children: BTreeMap<Vec<u8>, Child>,
}

#[derive(Debug)]
enum Child {
    Folder(Folder),
    Link(Node),
    /// A file that was read ahead under this number.
    File(u64),
}

/// The node of an entry, with the owner's names as the archive's header always has them left out: numbers count.
pub(super) fn node(entry: &Entry, kind: NodeKind) -> Node {
    let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut node = Node::new(name, kind);
    (node.mode, node.uid, node.gid) = (entry.mode, entry.uid, entry.gid);
    let time = Time::from_unix(entry.modified_seconds, 0);
    (node.mtime, node.atime, node.ctime) = (time, time, time);
    node.size_bytes = entry.size_bytes;
    node
}

fn wrong(path: &[u8], what: &str) -> Error {
    let message = format!("PostgreSQL sends `{}` {what}", path.escape_ascii());
    Error::new(ErrorKind::Corrupt, codes::POSTGRES_PROTOCOL, message)
        .with_hint("see that the address is that of a PostgreSQL server; then report this")
}

/// The parts of a path.
fn parts(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect()
}

impl Folder {
    /// The root of a snapshot.
    pub(super) fn root() -> Self {
        Self { node: own_node("", NodeKind::Directory, 0o755), children: BTreeMap::new() }
    }

    /// Makes the folder at an absolute path of the snapshot, with those above it, which are root's.
    pub(super) fn make(&mut self, path: &[u8]) -> Result<()> {
        let mut at = self;
        for part in parts(path) {
            let child = at.children.entry(part.to_vec()).or_insert_with(|| {
                let mut node = own_node("", NodeKind::Directory, 0o755);
                node.name = part.to_vec();
                (node.uid, node.gid) = (0, 0);
                (node.user, node.group) = (Arc::from("root"), Arc::from("root"));
                Child::Folder(Self { node, children: BTreeMap::new() })
            });
            let Child::Folder(folder) = child else { return Err(wrong(path, "where no folder is")) };
            at = folder;
        }
        Ok(())
    }

    /// The node of the folder at a path.
    pub(super) fn node_of(&mut self, path: &[u8]) -> Result<&mut Node> {
        self.folder(path).map(|folder| &mut folder.node)
    }

    fn folder(&mut self, path: &[u8]) -> Result<&mut Self> {
        let mut at = self;
        for part in parts(path) {
            at = match at.children.get_mut(part) {
                Some(Child::Folder(folder)) => folder,
                _ => return Err(wrong(path, "before its folder")),
            };
        }
        Ok(at)
    }

    /// A folder in the one at `above`.
    pub(super) fn add_folder(&mut self, above: &[u8], node: Node) -> Result<()> {
        self.add(above, node.name.clone(), Child::Folder(Self { node, children: BTreeMap::new() }))
    }

    /// A link in the folder at `above`.
    pub(super) fn add_link(&mut self, above: &[u8], node: Node) -> Result<()> {
        self.add(above, node.name.clone(), Child::Link(node))
    }

    /// A file in the folder at `above`, that is read ahead under this number.
    pub(super) fn add_file(&mut self, above: &[u8], name: &[u8], number: u64) -> Result<()> {
        self.add(above, name.to_vec(), Child::File(number))
    }

    /// Whether the folder at `above` has something of this name.
    pub(super) fn has(&mut self, above: &[u8], name: &[u8]) -> Result<bool> {
        Ok(self.folder(above)?.children.contains_key(name))
    }

    fn add(&mut self, above: &[u8], name: Vec<u8>, child: Child) -> Result<()> {
        let folder = self.folder(above)?;
        if folder.children.contains_key(&name) {
            return Err(wrong(&[above, b"/", &name].concat(), "twice"));
        }
        folder.children.insert(name, child);
        Ok(())
    }

    /// Everything in the order of a snapshot.
    pub(super) fn events(self) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        self.into_events(&mut events);
        events
    }

    /// As deep as paths are long: an archive has at most 99 bytes.
    fn into_events(self, events: &mut VecDeque<Event>) {
        for child in self.children.into_values() {
            match child {
                Child::Folder(mut folder) => {
                    let node = std::mem::replace(&mut folder.node, Node::new("", NodeKind::Directory));
                    events.push_back(Event::Enter(Box::new(node)));
                    folder.into_events(events);
                    events.push_back(Event::Leave);
                }
                Child::Link(node) => events.push_back(Event::Entry(Box::new(node), Box::new(Link))),
                Child::File(number) => events.push_back(Event::Place(number)),
            }
        }
    }
}

/// A link whose node says where it leads.
struct Link;

impl Content for Link {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Err(Error::internal("a link has no contents"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::stream::tar::Kind;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::Folder,
            mode: 0o700,
            uid: 104,
            gid: 111,
            size_bytes: 0,
            modified_seconds: 7,
        }
    }

    #[test]
    fn entries_in_any_order_come_out_by_name() {
        let mut tree = Folder::root();
        tree.make(b"/var/data").unwrap();
        tree.make(b"/srv/fast").unwrap();
        tree.add_file(b"/var/data", b"postgresql.conf", 1).unwrap();
        tree.add_folder(b"/var/data", node(&entry("base"), NodeKind::Directory)).unwrap();
        tree.add_file(b"/var/data/base", b"2", 2).unwrap();
        tree.add_file(b"/var/data/base", b"10", 3).unwrap();
        tree.add_link(b"/var/data", Node::new("link", NodeKind::Symlink)).unwrap();
        assert!(tree.has(b"/var/data", b"base").unwrap() && !tree.has(b"/var/data", b"x").unwrap());
        let shown: Vec<String> = tree.events().iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(
            shown,
            [
                "Enter(srv)",
                "Enter(fast)",
                "Leave",
                "Leave",
                "Enter(var)",
                "Enter(data)",
                "Enter(base)",
                "Place(3)",
                "Place(2)",
                "Leave",
                "Entry(link)",
                "Place(1)",
                "Leave",
                "Leave"
            ]
        );
    }

    #[test]
    fn what_comes_twice_or_before_its_folder_or_in_a_file_is_refused() {
        let mut tree = Folder::root();
        tree.make(b"/data").unwrap();
        tree.add_file(b"/data", b"a", 1).unwrap();
        for refused in [
            tree.add_file(b"/data", b"a", 2),
            tree.add_file(b"/data/base", b"x", 3),
            tree.add_file(b"/data/a", b"x", 4),
            tree.make(b"/data/a/x"),
            tree.add_folder(b"/data", Node::new("a", NodeKind::Directory)),
        ] {
            assert_eq!(refused.unwrap_err().code(), codes::POSTGRES_PROTOCOL);
        }
    }
}
