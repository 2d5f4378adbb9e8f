//! Trees: one directory each, its nodes sorted by name, as JSON.
//!
//! Names are bytes. restic writes them with Go's `strconv.Quote` inside the JSON string; [`name`] does both ways. A name
//! that is empty, `.` or `..`, or has a `/` or a zero byte, makes a tree unreadable: nothing that restores a tree can be
//! led outside its target by a name.

mod name;

use super::malformed;
use super::time::Time;
use crate::id::BlobId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use retoma_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    /// A regular file.
    #[serde(rename = "file")]
    File,
    /// A directory.
    #[serde(rename = "dir")]
    Directory,
    /// A symbolic link.
    #[serde(rename = "symlink")]
    Symlink,
    /// A block device.
    #[serde(rename = "dev")]
    BlockDevice,
    /// A character device.
    #[serde(rename = "chardev")]
    CharDevice,
    /// A named pipe.
    #[serde(rename = "fifo")]
    Fifo,
    /// A socket.
    #[serde(rename = "socket")]
    Socket,
    /// Something else, which is not restored.
    #[serde(rename = "irregular")]
    Irregular,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its name, for example `user.comment`.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// A file, directory or special file in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The last part of its path.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Permissions as `chmod` takes them: the lower twelve bits of `st_mode`.
    pub mode: u32,
    /// When its contents last changed.
    pub mtime: Time,
    /// When it was last read; we write mtime, as restic does, so that reading alone changes nothing.
    pub atime: Time,
    /// When its inode last changed.
    pub ctime: Time,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, for people.
    pub user: Arc<str>,
    /// Group's name.
    pub group: Arc<str>,
    /// Inode number.
    pub inode: u64,
    /// Number of the device that it lies on: with the inode it tells hard links.
    pub device_id: u64,
    /// Size of a file in bytes.
    pub size_bytes: u64,
    /// Number of hard links.
    pub links: u64,
    /// Where a symbolic link points.
    pub link_target: Option<Box<[u8]>>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Number of a device file.
    pub device: u64,
    /// A file's blobs, in order.
    pub content: Vec<BlobId>,
    /// A directory's tree.
    pub subtree: Option<BlobId>,
}

#[derive(Serialize, Deserialize)]
struct NodeJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: NodeKind,
    #[serde(default, skip_serializing_if = "is_zero")]
    mode: u32,
    #[serde(default)]
    mtime: Time,
    #[serde(default)]
    atime: Time,
    #[serde(default)]
    ctime: Time,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    user: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    group: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    linktarget: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    linktarget_raw: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extended_attributes: Option<Vec<XattrJson<'a>>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    device: u64,
    content: Option<Cow<'a, [BlobId]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subtree: Option<BlobId>,
}

#[derive(Serialize, Deserialize)]
struct XattrJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// Go writes an empty value as null.
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's `os.FileMode`: the lower nine bits as in Unix, the others elsewhere.
mod go_mode {
    use super::NodeKind;

    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const STICKY: u32 = 1 << 20;

    pub(super) fn from_unix(kind: NodeKind, mode: u32) -> u32 {
        let of_kind = match kind {
            NodeKind::File => 0,
            NodeKind::Directory => 1 << 31,
            NodeKind::Symlink => 1 << 27,
            NodeKind::BlockDevice => 1 << 26,
            NodeKind::CharDevice => 1 << 26 | 1 << 21,
            NodeKind::Fifo => 1 << 25,
            NodeKind::Socket => 1 << 24,
            NodeKind::Irregular => 1 << 19,
        };
        let flag = |bit: u32, go: u32| if mode & bit == 0 { 0 } else { go };
        of_kind | mode & 0o777 | flag(0o4000, SETUID) | flag(0o2000, SETGID) | flag(0o1000, STICKY)
    }

    pub(super) fn to_unix(mode: u32) -> u32 {
        let flag = |go: u32, bit: u32| if mode & go == 0 { 0 } else { bit };
        mode & 0o777 | flag(SETUID, 0o4000) | flag(SETGID, 0o2000) | flag(STICKY, 0o1000)
    }
}

impl Node {
    /// A node of `kind` with nothing else set.
    pub fn new(name: impl Into<Vec<u8>>, kind: NodeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: if kind == NodeKind::Directory { 0o755 } else { 0o644 },
            mtime: Time::default(),
            atime: Time::default(),
            ctime: Time::default(),
            uid: 0,
            gid: 0,
            user: Arc::from(""),
            group: Arc::from(""),
            inode: 0,
            device_id: 0,
            size_bytes: 0,
            links: 0,
            link_target: None,
            xattrs: Vec::new(),
            device: 0,
            content: Vec::new(),
            subtree: None,
        }
    }

    /// Appends the node as JSON.
    ///
    /// # Errors
    /// `Invalid` for a name that no file can have.
    pub fn append_json(&self, output: &mut Vec<u8>) -> Result<()> {
        name::check(&self.name)?;
        let target = self.link_target.as_deref().unwrap_or_default();
        let text = String::from_utf8_lossy(target);
        let xattr = |xattr: &Xattr| XattrJson {
            name: Cow::Owned(xattr.name.clone()),
            value: Some(Cow::Owned(BASE64.encode(&xattr.value))),
        };
        let json = NodeJson {
            name: name::quote(&self.name),
            kind: self.kind,
            mode: go_mode::from_unix(self.kind, self.mode),
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            uid: self.uid,
            gid: self.gid,
            user: Cow::Borrowed(&self.user),
            group: Cow::Borrowed(&self.group),
            inode: self.inode,
            device_id: self.device_id,
            size: self.size_bytes,
            links: self.links,
            linktarget_raw: matches!(text, Cow::Owned(_)).then(|| Cow::Owned(BASE64.encode(target))),
            linktarget: text,
            extended_attributes: (!self.xattrs.is_empty()).then(|| self.xattrs.iter().map(xattr).collect()),
            device: self.device,
            content: (self.kind == NodeKind::File).then_some(Cow::Borrowed(&self.content)),
            subtree: self.subtree,
        };
        serde_json::to_writer(output, &json).map_err(|error| Error::internal(format!("tree: {error}")))
    }

    fn from_json(json: NodeJson<'_>, names: &mut Names) -> Result<Self> {
        let bytes = name::unquote(&json.name)?;
        name::check(&bytes)?;
        let bad = |what: &str| malformed(format!("tree: node `{}`: {what}", bytes.escape_ascii()));
        let decode = |text: &str| BASE64.decode(text).map_err(|_| bad("a value is not base64"));
        let link_target = match (&json.linktarget_raw, json.linktarget) {
            (Some(raw), _) => Some(decode(raw)?.into_boxed_slice()),
            (None, text) if text.is_empty() => None,
            (None, text) => Some(text.as_bytes().into()),
        };
        // A link to nowhere cannot be made again.
        let link_target = link_target.filter(|target: &_| !<[u8]>::is_empty(target));
        let xattr = |xattr: XattrJson<'_>| {
            let value = decode(xattr.value.as_deref().unwrap_or_default())?;
            Ok(Xattr { name: xattr.name.into_owned(), value })
        };
        let xattrs =
            json.extended_attributes.unwrap_or_default().into_iter().map(xattr).collect::<Result<_>>()?;
        match json.kind {
            NodeKind::File if json.content.is_none() => return Err(bad("a file without a list of blobs")),
            NodeKind::Directory if json.subtree.is_none() => return Err(bad("a directory without a tree")),
            NodeKind::Symlink if link_target.is_none() => return Err(bad("a link without a target")),
            _ => {}
        }
        Ok(Self {
            kind: json.kind,
            mode: go_mode::to_unix(json.mode),
            mtime: json.mtime,
            atime: json.atime,
            ctime: json.ctime,
            uid: json.uid,
            gid: json.gid,
            user: names.get(&json.user),
            group: names.get(&json.group),
            inode: json.inode,
            device_id: json.device_id,
            size_bytes: json.size,
            links: json.links,
            link_target,
            xattrs,
            device: json.device,
            content: json.content.map(Cow::into_owned).unwrap_or_default(),
            subtree: json.subtree.filter(|_| json.kind == NodeKind::Directory),
            name: bytes,
        })
    }
}

/// Owners' names repeat from node to node: each is kept once.
#[derive(Default)]
struct Names(Vec<Arc<str>>);

impl Names {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| known.as_ref() == text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        if self.0.len() < 16 {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}

/// The beginning of a tree's JSON; nodes follow, with commas between them.
pub const OPENING: &[u8] = b"{\"nodes\":[";
/// Its end; restic wants the line feed.
pub const CLOSING: &[u8] = b"]}\n";

/// The JSON of a whole tree. Nodes must be sorted by name.
///
/// # Errors
/// `Invalid` for a name that no file can have.
pub fn to_json(nodes: &[Node]) -> Result<Vec<u8>> {
    let mut json = OPENING.to_vec();
    for (position, node) in nodes.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        node.append_json(&mut json)?;
    }
    json.extend_from_slice(CLOSING);
    Ok(json)
}

/// Reads a tree.
///
/// # Errors
/// `Corrupt`: not the JSON of a tree, names that no file can have, twice the same, or out of order.
pub fn from_json(json: &[u8]) -> Result<Vec<Node>> {
    #[derive(Deserialize)]
    struct TreeJson<'a> {
        #[serde(borrow)]
        nodes: Option<Vec<NodeJson<'a>>>,
    }
    let tree: TreeJson<'_> =
        serde_json::from_slice(json).map_err(|error| malformed(format!("tree: {error}")))?;
    let mut names = Names::default();
    let nodes = tree.nodes.unwrap_or_default().into_iter().map(|node| Node::from_json(node, &mut names));
    let nodes = nodes.collect::<Result<Vec<_>>>()?;
    if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        let name = pair[1].name.escape_ascii();
        return Err(malformed(format!("tree: node `{name}` is there twice or out of order")));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests;
