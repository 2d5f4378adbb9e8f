//! From `stat` to a node. Shared with the other kinds of components that are files underneath.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind, Xattr};
use retoma_repo::host;
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Names of users and groups, read once.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    users: HashMap<u32, Arc<str>>,
    groups: HashMap<u32, Arc<str>>,
    passwd: String,
    group: String,
}

impl Owners {
    pub(crate) fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self { passwd: text("/etc/passwd"), group: text("/etc/group"), ..Self::default() }
    }

    fn user(&mut self, id: u32) -> Arc<str> {
        let name = || host::name_of(&self.passwd, id).unwrap_or_default().into();
        Arc::clone(self.users.entry(id).or_insert_with(name))
    }

    fn group(&mut self, id: u32) -> Arc<str> {
        let name = || host::name_of(&self.group, id).unwrap_or_default().into();
        Arc::clone(self.groups.entry(id).or_insert_with(name))
    }
}

fn kind(mode: u32) -> NodeKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::Unknown => NodeKind::Irregular,
    }
}

/// The node of a file with this name and `stat`.
pub(crate) fn from_stat(name: &[u8], stat: &Stat, owners: &mut Owners) -> Node {
    let mut node = Node::new(name, kind(stat.st_mode));
    update(&mut node, stat);
    node.user = owners.user(stat.st_uid);
    node.group = owners.group(stat.st_gid);
    node
}

/// Takes over what `stat` tells now; the kind and the owners' names stay.
#[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)] // The fields' types differ between systems.
pub(crate) fn update(node: &mut Node, stat: &Stat) {
    let time = |seconds, nanoseconds| Time::from_unix(seconds as i64, nanoseconds as i64);
    node.mode = stat.st_mode & 0o7777;
    node.mtime = time(stat.st_mtime, stat.st_mtime_nsec);
    node.atime = node.mtime;
    node.ctime = time(stat.st_ctime, stat.st_ctime_nsec);
    node.uid = stat.st_uid;
    node.gid = stat.st_gid;
    node.inode = stat.st_ino as u64;
    node.device_id = stat.st_dev as u64;
    node.links = stat.st_nlink as u64;
    match node.kind {
        NodeKind::File => node.size_bytes = u64::try_from(stat.st_size).unwrap_or(0),
        NodeKind::BlockDevice | NodeKind::CharDevice => node.device = stat.st_rdev as u64,
        _ => {}
    }
}

/// `path` in its plain form.
///
/// # Errors
/// `Invalid` unless it is absolute and without `.` and `..`.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        let message = format!("`{}` is not an absolute path without `..`", path.display());
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message));
    }
    Ok(path.components().collect())
}

/// The node of a folder on the way to what is protected.
pub(crate) fn folder_above(path: &Path, owners: &mut Owners) -> Result<Node> {
    // The path may lead through links; the snapshot holds directories.
    let stat = rustix::fs::stat(path).map_err(|error| unreadable(path, error))?;
    let mut node = from_stat(path.file_name().unwrap_or_default().as_bytes(), &stat, owners);
    node.xattrs = xattrs(path)?;
    Ok(node)
}

/// The extended attributes of `path` itself, sorted by name; none where the file system has none.
pub(crate) fn xattrs(path: &Path) -> Result<Vec<Xattr>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(path, error)),
    };
    let mut xattrs = Vec::new();
    for name in names {
        // One that vanished since it was listed is not there.
        let Some(value) = xattr::get(path, &name).map_err(|error| unreadable(path, error))? else { continue };
        xattrs.push(Xattr { name: name.to_string_lossy().into_owned(), value });
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

/// Where a symbolic link points.
pub(crate) fn link_target(path: &Path) -> Result<Box<[u8]>> {
    let target = std::fs::read_link(path).map_err(|error| unreadable(path, error))?;
    Ok(target.as_os_str().as_bytes().into())
}

/// A path of the source that can't be read.
pub(crate) fn unreadable(path: &Path, error: impl Into<std::io::Error>) -> Error {
    let error = error.into();
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Unauthorized,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, codes::SOURCE_UNREADABLE, format!("`{}`: {error}", path.display())).with_source(error)
}
