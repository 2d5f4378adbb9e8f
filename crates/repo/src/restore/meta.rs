//! Owner, attributes, mode and times of what was restored; in this order, since each undoes some of the next.
//!
//! Changing the owner takes set-uid bits and capabilities away; a mode may forbid us to write attributes; all of them
//! are changes that the times must not show.

use super::layout::{Entry, Extra};
use super::target::proc_path;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something whose metadata can be set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Object<'a> {
    /// An open file.
    Open(&'a OwnedFd),
    /// Anything but a symbolic link, by a descriptor for `*at` calls.
    Handle(&'a OwnedFd),
    /// A symbolic link: the directory around it and its name.
    Link(&'a OwnedFd, &'a [u8]),
}

/// Counts of what could not be set and need not be, as restic sees it.
#[derive(Debug, Default)]
pub(super) struct NoteCounts {
    pub(super) owners: AtomicU64,
    pub(super) xattrs: AtomicU64,
    pub(super) set_ids: AtomicU64,
}

fn count(note: &AtomicU64) {
    note.fetch_add(1, Ordering::Relaxed);
}

/// What failed, and how.
pub(super) type Failure = (&'static str, Errno);

/// Sets everything and goes on after an error; gives the first. `current` is what it has now, where it is not new.
pub(super) fn apply(
    object: Object<'_>,
    entry: &Entry,
    extra: Option<&Extra>,
    current: Option<&Stat>,
    privileged: bool,
    notes: &NoteCounts,
) -> Result<(), Failure> {
    let mut first = Ok(());
    let mut keep = |result: Result<(), Failure>| {
        if first.is_ok() {
            first = result;
        }
    };
    let mut mode = entry.mode;
    let owned = current.is_some_and(|stat| (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid));
    let chowned = if owned { Ok(()) } else { object.set_owner(entry.uid, entry.gid) };
    match chowned {
        Err(Errno::PERM) if !privileged => {
            count(&notes.owners);
            // Set-uid to somebody else than the file's owner was would be a hole.
            if mode & 0o6000 != 0 {
                mode &= !0o6000;
                count(&notes.set_ids);
            }
        }
        result => keep(result.map_err(|error| ("set the owner", error))),
    }
    keep(set_xattrs(object, extra, current.is_some(), privileged, notes));
    let same = owned && current.is_some_and(|stat| stat.st_mode & 0o7777 == u32::from(mode));
    if !same && !matches!(object, Object::Link(..)) {
        keep(object.set_mode(Mode::from_raw_mode(mode.into())).map_err(|error| ("set the mode", error)));
    }
    keep(object.set_times(&times(entry, extra)).map_err(|error| ("set the times", error)));
    first
}

fn times(entry: &Entry, extra: Option<&Extra>) -> Timestamps {
    let spec = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec };
    let atime = extra.and_then(|extra| extra.atime).map_or(entry.mtime(), crate::format::time::Time::to_unix);
    Timestamps { last_access: spec(atime), last_modification: spec(entry.mtime()) }
}

fn set_xattrs(
    object: Object<'_>,
    extra: Option<&Extra>,
    existed: bool,
    privileged: bool,
    notes: &NoteCounts,
) -> Result<(), Failure> {
    let wanted = extra.map_or(&[][..], |extra| &extra.xattrs);
    let mut first = Ok(());
    if existed {
        for name in object.xattr_names().unwrap_or_default() {
            if !wanted.iter().any(|xattr| xattr.name.as_bytes() == name) && is_ours_to_remove(&name) {
                match object.remove_xattr(&name) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(error) => first = Err(("remove an attribute", error)),
                }
            }
        }
    }
    for xattr in wanted {
        let reserved = ["security.", "trusted."].iter().any(|prefix| xattr.name.starts_with(prefix));
        match object.set_xattr(&xattr.name, &xattr.value) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => count(&notes.xattrs),
            Err(Errno::PERM | Errno::ACCESS) if reserved && !privileged => count(&notes.xattrs),
            Err(error) => first = Err(("set an attribute", error)),
        }
    }
    first
}

/// What an earlier file left and the snapshot does not have; labels of the system's security modules stay.
fn is_ours_to_remove(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

impl Object<'_> {
    fn set_owner(self, uid: u32, gid: u32) -> rustix::io::Result<()> {
        // All ones mean "leave it" to the system; no account has that number.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Open(file) => rustix::fs::fchown(file, uid, gid),
            Self::Handle(handle) => rustix::fs::chownat(handle, c"", uid, gid, AtFlags::EMPTY_PATH),
            Self::Link(at, name) => rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_mode(self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(file) => rustix::fs::fchmod(file, mode),
            Self::Handle(handle) => rustix::fs::chmodat(CWD, proc_path(handle), mode, AtFlags::empty()),
            Self::Link(..) => Ok(()),
        }
    }

    fn set_times(self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(file) => rustix::fs::futimens(file, times),
            Self::Handle(handle) => rustix::fs::utimensat(CWD, proc_path(handle), times, AtFlags::empty()),
            Self::Link(at, name) => rustix::fs::utimensat(at, name, times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_xattr(self, name: &str, value: &[u8]) -> rustix::io::Result<()> {
        let flags = XattrFlags::empty();
        match self {
            Self::Open(file) => rustix::fs::fsetxattr(file, name, value, flags),
            Self::Handle(handle) => rustix::fs::setxattr(proc_path(handle), name, value, flags),
            Self::Link(..) => rustix::fs::lsetxattr(self.link_path(), name, value, flags),
        }
    }

    fn remove_xattr(self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(file) => rustix::fs::fremovexattr(file, name),
            Self::Handle(handle) => rustix::fs::removexattr(proc_path(handle), name),
            Self::Link(..) => rustix::fs::lremovexattr(self.link_path(), name),
        }
    }

    fn xattr_names(self) -> rustix::io::Result<Vec<Vec<u8>>> {
        let into = |list: &mut [u8]| match self {
            Self::Open(file) => rustix::fs::flistxattr(file, list),
            Self::Handle(handle) => rustix::fs::listxattr(proc_path(handle), list),
            Self::Link(..) => rustix::fs::llistxattr(self.link_path(), list),
        };
        let mut list = vec![0; 1 << 10];
        let length = match into(&mut list) {
            Err(Errno::RANGE) => {
                // The system's own limit.
                list.resize(64 << 10, 0);
                into(&mut list)?
            }
            length => length?,
        };
        let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    /// A link's path through its directory's descriptor.
    fn link_path(self) -> Vec<u8> {
        match self {
            Self::Open(descriptor) | Self::Handle(descriptor) => proc_path(descriptor),
            Self::Link(at, name) => [&proc_path(at)[..], b"/", name].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::time::Time;
    use crate::format::tree::{Node, NodeKind, Xattr};
    use crate::restore::layout::{Kind, Layout, ROOT};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    /// A file's metadata as a snapshot has them: owned by us, mode 0640, read later than it was changed.
    fn node() -> Node {
        let mut node = Node::new("file", NodeKind::File);
        (node.uid, node.gid) = crate::host::ids();
        node.mode = 0o640;
        (node.mtime, node.atime) = (Time::from_unix(1_000, 5), Time::from_unix(2_000, 7));
        node
    }

    fn apply_to(
        file: &std::path::Path,
        node: &Node,
        is_new: bool,
        privileged: bool,
    ) -> Result<NoteCounts, Failure> {
        let mut layout = Layout::default();
        let number = layout.add(ROOT, node, Kind::File, 0).unwrap();
        let opened: OwnedFd = std::fs::File::options().write(true).open(file).unwrap().into();
        let current = rustix::fs::fstat(&opened).unwrap();
        let notes = NoteCounts::default();
        let (entry, extra) = (layout.get(number), layout.extra(number));
        let current = (!is_new).then_some(&current);
        apply(Object::Open(&opened), entry, extra, current, privileged, &notes).map(|()| notes)
    }

    #[test]
    fn the_mode_is_set_on_new_files_and_on_those_that_have_another_and_times_come_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for (mode, is_new) in [(0o600, true), (0o600, false), (0o640, false), (0o4640, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            apply_to(&file, &node(), is_new, true).unwrap();
            let now = file.metadata().unwrap();
            assert_eq!(now.mode() & 0o7777, 0o640, "from {mode:o}");
            assert_eq!((now.mtime(), now.mtime_nsec()), (1_000, 5));
            assert_eq!((now.atime(), now.atime_nsec()), (2_000, 7));
        }
        let set_id = Node { mode: 0o4755, ..node() };
        apply_to(&file, &set_id, true, true).unwrap();
        assert_eq!(
            file.metadata().unwrap().mode() & 0o7777,
            0o4755,
            "the owner's change did not take it away"
        );
    }

    #[test]
    fn what_was_never_read_since_its_change_has_one_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        apply_to(&file, &Node { atime: node().mtime, ..node() }, true, true).unwrap();
        assert_eq!(file.metadata().unwrap().atime(), 1_000);
    }

    #[test]
    fn attributes_that_the_snapshot_does_not_have_go_and_labels_of_the_system_stay() {
        for (name, goes) in [
            ("user.mine", true),
            ("system.posix_acl_access", true),
            ("system.posix_acl_default", true),
            ("security.capability", true),
            ("security.selinux", false),
            ("security.ima", false),
            ("trusted.overlay.opaque", false),
            ("system.nfs4_acl", false),
            ("username", false),
        ] {
            assert_eq!(is_ours_to_remove(name.as_bytes()), goes, "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let opened: OwnedFd = std::fs::File::open(&file).unwrap().into();
        let object = Object::Open(&opened);
        if object.set_xattr("user.old", b"1") == Err(Errno::OPNOTSUPP) {
            return;
        }
        object.set_xattr("user.both", b"1").unwrap();
        let wanted = ["user.both", "user.new"];
        let xattrs = wanted.map(|name| Xattr { name: name.to_owned(), value: b"2".to_vec() }).to_vec();
        apply_to(&file, &Node { xattrs, ..node() }, false, true).unwrap();
        let mut names = object.xattr_names().unwrap();
        names.retain(|name| name.starts_with(b"user."));
        names.sort();
        assert_eq!(names, wanted.map(|name| name.as_bytes().to_vec()));
        let mut value = [0; 8];
        let length = rustix::fs::fgetxattr(&opened, "user.both", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"2");
    }

    #[test]
    fn nobody_owns_what_belongs_to_the_number_that_means_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
            let failed = apply_to(&file, &Node { uid, gid, ..node() }, true, true).unwrap_err();
            assert_eq!(failed, ("set the owner", Errno::INVAL));
            assert_eq!(file.metadata().unwrap().mtime(), 1_000, "the rest is set all the same");
        }
    }
}
