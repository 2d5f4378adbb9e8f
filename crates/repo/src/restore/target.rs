//! The folder that is restored into: everything goes through descriptors, one name at a time, and no link is followed.
//!
//! A path is never handed to the system. Each directory is opened in the one around it with `O_NOFOLLOW`, files are made
//! in it with `O_EXCL`, and names are single parts (checked again here). So neither a name nor a symbolic link — from
//! the snapshot, left in the target, or put there while the restore runs — leads outside; this is what `openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` gives, on every kernel. What is not protected: somebody who may write to the
//! target can move a directory elsewhere while we work in it, and we go on in it there.

use super::layout::{Layout, ROOT};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder that is restored into.
#[derive(Debug)]
pub(super) struct Target {
    root: Arc<OwnedFd>,
    path: PathBuf,
    /// Whether [`Target::create`] made it.
    pub(super) created: bool,
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Target {
    /// Opens a folder that exists. Here, and only here, links are followed: the path is the user's.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { root: Arc::new(root), path: path.to_owned(), created: false })
    }

    /// Opens the folder; makes it, and its parents, where it is missing.
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        match Self::open(path) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(path)?;
        Ok(Self { created: true, ..Self::open(path)? })
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// An entry's path as shown to people.
    pub(super) fn shown(&self, below: &[u8]) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        if !below.is_empty() {
            path.push(b'/');
            path.extend_from_slice(below);
        }
        path
    }
}

/// A name is one part of a path. The tree's parser made sure; nothing is trusted here.
fn checked(name: &[u8]) -> Result<&[u8]> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::INVAL);
    }
    Ok(name)
}

/// The directories of a layout, each opened when it is needed. One for each thread.
#[derive(Debug)]
pub(super) struct Directories<'a> {
    layout: &'a Layout,
    root: Arc<OwnedFd>,
    open: HashMap<u32, Arc<OwnedFd>>,
}

/// So many descriptors of directories are kept by each thread.
const KEPT: usize = 64;

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layout").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> Directories<'a> {
    pub(super) fn new(layout: &'a Layout, target: &Target) -> Self {
        Self { layout, root: Arc::clone(&target.root), open: HashMap::new() }
    }

    /// A directory's descriptor, good for `*at` calls only.
    pub(super) fn get(&mut self, number: u32) -> Result<Arc<OwnedFd>> {
        let (mut missing, mut at) = (Vec::new(), number);
        let mut descriptor = loop {
            if at == ROOT {
                break Arc::clone(&self.root);
            }
            match self.open.get(&at) {
                Some(known) => break Arc::clone(known),
                None => missing.push(at),
            }
            at = self.layout.get(at).parent;
        };
        while let Some(next) = missing.pop() {
            descriptor = Arc::new(open_directory(&*descriptor, self.layout.name(next))?);
            if self.open.len() >= KEPT {
                self.open.clear();
            }
            self.open.insert(next, Arc::clone(&descriptor));
        }
        Ok(descriptor)
    }

    /// The descriptor of the directory that an entry lies in.
    pub(super) fn around(&mut self, number: u32) -> Result<Arc<OwnedFd>> {
        self.get(self.layout.get(number).parent)
    }
}

/// Opens a directory, for `*at` calls only: this needs no permission to list it.
pub(super) fn open_directory(at: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(at, checked(name)?, OFlags::PATH | FOLDER, Mode::empty())
}

/// Opens whatever has this name, for its metadata only.
pub(super) fn open_any(at: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(at, checked(name)?, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file that exists for reading and writing; `LOOP` for a link, `INVAL` for what is no regular file.
pub(super) fn open_file(at: impl AsFd, name: &[u8]) -> Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat(at, checked(name)?, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((file, stat))
}

/// Makes a file that only its owner may read. Whatever has its name goes.
pub(super) fn create_file(at: impl AsFd, name: &[u8], clear: Clear) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(at.as_fd(), name, clear, |at, name| {
        rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR)
    })
}

/// What to do about a directory with something in it that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clear {
    /// Leave it: `NOTEMPTY`.
    Empty,
    /// Remove it.
    Everything,
}

/// Makes something new under `name`; what has the name already is removed first.
pub(super) fn replacing<T>(
    at: rustix::fd::BorrowedFd<'_>,
    name: &[u8],
    clear: Clear,
    make: impl Fn(rustix::fd::BorrowedFd<'_>, &[u8]) -> Result<T>,
) -> Result<T> {
    let name = checked(name)?;
    match make(at, name) {
        Err(Errno::EXIST) => {
            remove(at, name, clear)?;
            make(at, name)
        }
        made => made,
    }
}

/// Removes `name`, whatever it is. A directory goes with its contents only if `clear` says so.
pub(super) fn remove(at: impl AsFd, name: &[u8], clear: Clear) -> Result<()> {
    let (at, name) = (at.as_fd(), checked(name)?);
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match clear {
        Clear::Empty => rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR),
        Clear::Everything => {
            let device = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?.st_dev;
            remove_folder(at, name, device, DEEPEST)
        }
    }
}

/// Folders within folders that are removed; each level holds a descriptor.
const DEEPEST: usize = 200;

/// Removes a directory with its contents; what is mounted in it stays, with `XDEV`.
fn remove_folder(at: rustix::fd::BorrowedFd<'_>, name: &[u8], device: u64, deepest: usize) -> Result<()> {
    let Some(deepest) = deepest.checked_sub(1) else { return Err(Errno::NAMETOOLONG) };
    let folder = rustix::fs::openat(at, name, OFlags::RDONLY | FOLDER, Mode::empty())?;
    if rustix::fs::fstat(&folder)?.st_dev != device {
        return Err(Errno::XDEV);
    }
    for inner in names(&folder)? {
        match rustix::fs::unlinkat(&folder, inner.as_slice(), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(folder.as_fd(), &inner, device, deepest)?,
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// The names in a directory that is open for reading.
pub(super) fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// The names in the directory `below` of the target; `None` where it isn't there, or is no directory.
pub(super) fn names_below(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    names(&rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// The path through which the system reaches an open descriptor: for calls that take no `O_PATH` descriptor.
pub(super) fn proc_path(descriptor: impl AsFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()).into_bytes()
}

/// What a name is, without following it.
pub(super) fn stat(at: impl AsFd, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(at, checked(name)?, AtFlags::SYMLINK_NOFOLLOW)
}

/// Writes all of `data` at `offset`.
pub(super) fn write_all(file: impl AsFd, mut data: &[u8], mut offset: u64) -> Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => (data, offset) = (&data[count..], offset + count as u64),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn target() -> (tempfile::TempDir, Target) {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::open(folder.path()).unwrap();
        (folder, target)
    }

    #[test]
    fn a_name_is_one_part_and_nothing_else() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b"../a"] {
            assert_eq!(checked(name), Err(Errno::INVAL), "{}", name.escape_ascii());
        }
        for name in [&b"a"[..], b"...", b".a", b"\xff", b"a b", b"-"] {
            assert_eq!(checked(name), Ok(name));
        }
    }

    #[test]
    fn only_a_folder_that_is_made_is_said_to_be_made_and_it_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        assert!(Target::create(&deep).unwrap().created);
        assert_eq!(deep.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!Target::create(&deep).unwrap().created);
        std::fs::write(folder.path().join("file"), "").unwrap();
        Target::create(&folder.path().join("file")).unwrap_err();
        // The user's own path may be a link.
        std::os::unix::fs::symlink(&deep, folder.path().join("link")).unwrap();
        assert!(!Target::create(&folder.path().join("link")).unwrap().created);
        assert_eq!(
            Target::open(&deep).unwrap().shown(b"x/y"),
            deep.join("x/y").as_os_str().as_encoded_bytes()
        );
        assert_eq!(Target::open(&deep).unwrap().shown(b""), deep.as_os_str().as_encoded_bytes());
    }

    #[test]
    fn a_folder_goes_with_its_contents_only_when_asked_and_links_in_it_lead_nowhere() {
        let (folder, target) = target();
        let precious = tempfile::tempdir().unwrap();
        std::fs::write(precious.path().join("file"), "p").unwrap();
        std::fs::create_dir_all(folder.path().join("full/deep/er")).unwrap();
        std::fs::write(folder.path().join("full/deep/file"), "f").unwrap();
        std::os::unix::fs::symlink(precious.path(), folder.path().join("full/deep/link")).unwrap();
        std::os::unix::fs::symlink(precious.path(), folder.path().join("link")).unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let remove = |name: &str, clear| remove(target.root(), name.as_bytes(), clear);
        assert_eq!(remove("full", Clear::Empty), Err(Errno::NOTEMPTY));
        assert!(folder.path().join("full/deep/file").exists());
        for name in ["full", "empty", "link", "absent"] {
            remove(name, if name == "full" { Clear::Everything } else { Clear::Empty }).unwrap();
        }
        assert_eq!(
            names(&std::fs::File::open(folder.path()).unwrap().into()).unwrap(),
            Vec::<Vec<u8>>::new()
        );
        assert!(precious.path().join("file").exists());
        assert_eq!(remove("..", Clear::Everything), Err(Errno::INVAL));
    }

    #[test]
    fn folders_nested_without_end_are_left_where_descriptors_would_run_out() {
        let (folder, target) = target();
        let nest = |name: &str, depth: usize| {
            let path =
                std::iter::repeat_n("d", depth - 1).fold(folder.path().join(name), |at, part| at.join(part));
            std::fs::create_dir_all(path).unwrap();
            remove(target.root(), name.as_bytes(), Clear::Everything)
        };
        assert_eq!(nest("deepest", DEEPEST), Ok(()));
        assert_eq!(nest("deeper", DEEPEST + 1), Err(Errno::NAMETOOLONG));
        assert!(folder.path().join("deeper").exists());
    }

    #[test]
    fn a_file_is_made_anew_and_what_had_its_name_keeps_its_contents_elsewhere() {
        let (folder, target) = target();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "precious").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        std::fs::hard_link(outside.path(), folder.path().join("same")).ok();
        std::fs::create_dir_all(folder.path().join("full/in")).unwrap();
        for name in ["new", "link", "same"] {
            let file = create_file(target.root(), name.as_bytes(), Clear::Empty).unwrap();
            write_all(&file, b"abc", 0).unwrap();
            write_all(&file, b"BC", 1).unwrap();
            let path = folder.path().join(name);
            assert_eq!(std::fs::read(&path).unwrap(), b"aBC", "{name}");
            assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"precious");
        assert_eq!(create_file(target.root(), b"full", Clear::Empty).unwrap_err(), Errno::NOTEMPTY);
        create_file(target.root(), b"full", Clear::Everything).unwrap();
    }

    #[test]
    fn only_a_regular_file_is_opened_to_be_changed() {
        let (folder, target) = target();
        std::fs::write(folder.path().join("file"), "f").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        rustix::fs::mknodat(target.root(), "pipe", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let open = |name: &str| open_file(target.root(), name.as_bytes()).map(|(_, stat)| stat.st_size);
        assert_eq!(open("file"), Ok(1));
        assert_eq!(open("pipe"), Err(Errno::INVAL), "and nobody waits for its other end");
        assert_eq!(open("link"), Err(Errno::LOOP));
        open("folder").unwrap_err();
        assert!(
            open_directory(target.root(), b"link").is_err()
                && open_directory(target.root(), b"folder").is_ok()
        );
    }

    #[test]
    fn more_directories_than_are_kept_open_are_found_all_the_same() {
        use crate::format::tree::{Node, NodeKind};
        use crate::restore::layout::Kind;
        let (folder, target) = target();
        let mut layout = Layout::default();
        layout.add(ROOT, &Node::new("", NodeKind::Directory), Kind::Directory, 0).unwrap();
        let mut parent = ROOT;
        for number in 0..3 * KEPT {
            let name = format!("d{number}");
            // Every third one lies in the one before it.
            let around = if number % 3 == 0 { parent } else { ROOT };
            parent = layout
                .add(around, &Node::new(name.as_str(), NodeKind::Directory), Kind::Directory, 0)
                .unwrap();
            let path =
                std::str::from_utf8(&layout.path(parent)).map(|path| folder.path().join(path)).unwrap();
            std::fs::create_dir_all(&path).unwrap();
        }
        let mut directories = Directories::new(&layout, &target);
        for (number, _) in layout.iter().chain(layout.iter().rev()) {
            let found = rustix::fs::fstat(&*directories.get(number).unwrap()).unwrap().st_ino;
            let path = folder.path().join(std::str::from_utf8(&layout.path(number)).unwrap());
            let expected = std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
            assert_eq!(found, expected, "{}", path.display());
            assert!(directories.open.len() <= KEPT);
        }
    }
}
