#![allow(clippy::cast_possible_truncation, clippy::type_complexity)]

use super::{Excludes, FilesSource};
use jiff::Timestamp;
use retoma_repo::Repository;
use retoma_repo::backup::{Event, Moments, Options, Progress, Source, backup};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::find::{self, Selector, Which};
use retoma_repo::store::{BlockingStore, ObjectStore};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Every entry with its path, contents read through the source.
fn read_all(
    root: &Path,
    excludes: &[&str],
) -> (Vec<(String, Node, Option<Vec<u8>>)>, Vec<(String, retoma_core::Error)>) {
    let patterns: Vec<String> = excludes.iter().map(|pattern| (*pattern).to_owned()).collect();
    let mut source = FilesSource::new(root, Excludes::new(&patterns).unwrap()).unwrap();
    let (mut path, mut entries, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(event) = source.next().unwrap() {
        let name = |node: &Node| String::from_utf8_lossy(&node.name).into_owned();
        match event {
            Event::Enter(node) => {
                path.push(name(&node));
                entries.push((path.join("/"), *node, None));
            }
            Event::Leave => drop(path.pop().unwrap()),
            Event::Entry(mut node, mut content) => {
                let full = format!("{}/{}", path.join("/"), name(&node));
                match content.describe(&mut node).and_then(|_| match node.kind {
                    NodeKind::File => read(&mut *content.open()?).map(Some),
                    _ => Ok(None),
                }) {
                    Ok(bytes) => entries.push((full, *node, bytes)),
                    Err(error) => unreadable.push((full, error)),
                }
            }
            Event::Unreadable(path, error) => {
                unreadable.push((String::from_utf8_lossy(&path).into_owned(), error));
            }
            Event::Reserve(..) | Event::Settle | Event::Late(..) | Event::Ahead(..) | Event::Place(..) => {
                panic!("{event:?}")
            }
        }
    }
    assert!(path.is_empty(), "every directory was left");
    let top = root.to_str().unwrap().trim_start_matches('/').to_owned();
    let below = |path: String| path.strip_prefix(&top).map(|path| path.trim_start_matches('/').to_owned());
    let entries = entries.into_iter().filter_map(|(path, node, bytes)| Some((below(path)?, node, bytes)));
    (entries.filter(|(path, ..)| !path.is_empty()).collect(), unreadable)
}

fn read(reader: &mut dyn retoma_repo::backup::Reader) -> retoma_core::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let zeros = reader.zeros_ahead_bytes()?;
        reader.skip(zeros)?;
        bytes.resize(bytes.len() + zeros as usize, 0);
        let room = (reader.size_bytes().unwrap() - bytes.len() as u64).min(buffer.len() as u64) as usize;
        let count = reader.read(&mut buffer[..room])?;
        bytes.extend_from_slice(&buffer[..count]);
        if count == 0 {
            return reader.finish(bytes.len() as u64).map(|()| bytes);
        }
    }
}

fn names(entries: &[(String, Node, Option<Vec<u8>>)]) -> Vec<&str> {
    entries.iter().map(|(path, ..)| path.as_str()).collect()
}

#[test]
fn a_folder_is_read_in_order_with_what_stat_tells() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("b/inner")).unwrap();
    std::fs::write(root.join("b/inner/file"), b"contents").unwrap();
    std::fs::write(root.join("b.txt"), b"").unwrap();
    std::fs::write(root.join("a"), b"x").unwrap();
    std::fs::set_permissions(root.join("a"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    std::fs::hard_link(root.join("a"), root.join("c")).unwrap();
    symlink("/nowhere/at all", root.join("link")).unwrap();
    let (entries, unreadable) = read_all(root, &[]);
    assert_eq!(names(&entries), ["a", "b", "b/inner", "b/inner/file", "b.txt", "c", "link"]);
    assert!(unreadable.is_empty());
    let node = |name: &str| &entries.iter().find(|(path, ..)| path == name).unwrap().1;
    let stat = std::fs::metadata(root.join("a")).unwrap();
    let a = node("a");
    assert_eq!((a.mode, a.links, a.inode, a.size_bytes), (0o4750, 2, stat.ino(), 1));
    assert_eq!(a.mtime.to_unix(), (stat.mtime(), stat.mtime_nsec()));
    assert_eq!(node("c").inode, a.inode);
    assert_eq!(node("link").link_target.as_deref(), Some(&b"/nowhere/at all"[..]));
    assert_eq!(entries[3].2.as_deref(), Some(&b"contents"[..]));
}

#[test]
fn a_single_file_is_a_source_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"one").unwrap();
    let mut source = FilesSource::new(&path, Excludes::default()).unwrap();
    let mut depth = 0;
    let mut files = 0;
    while let Some(event) = source.next().unwrap() {
        match event {
            Event::Enter(_) => depth += 1,
            Event::Leave => depth -= 1,
            Event::Entry(node, _) => {
                files += 1;
                assert_eq!((node.name.as_slice(), depth > 0), (&b"file"[..], true));
            }
            _ => panic!("{event:?}"),
        }
    }
    assert_eq!((depth, files), (0, 1));
}

#[test]
fn excluded_names_and_folders_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["cache/big", "keep/cache/small", "keep/x.tmp"] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
    let (entries, _) = read_all(folder.path(), &["/cache", "*.tmp"]);
    assert_eq!(names(&entries), ["keep", "keep/cache", "keep/cache/small"]);
}

#[test]
fn extended_attributes_and_holes_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    std::fs::write(&path, b"start").unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3 << 20).unwrap();
    let has_xattrs = xattr::set(&path, "user.note", b"va\0lue").is_ok();
    let (entries, unreadable) = read_all(folder.path(), &[]);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    let (_, node, bytes) = &entries[0];
    let bytes = bytes.as_ref().unwrap();
    assert_eq!((bytes.len(), &bytes[..5]), (3 << 20, &b"start"[..]));
    assert!(bytes[5..].iter().all(|byte| *byte == 0));
    if has_xattrs {
        assert_eq!(
            (node.xattrs[0].name.as_str(), node.xattrs[0].value.as_slice()),
            ("user.note", &b"va\0lue"[..])
        );
    }
}

/// Opens a file's contents, changes the file, then reads: what the reader says at the end.
fn changed_while_read(change: impl FnOnce(&Path)) -> retoma_core::Result<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![7; 300_000]).unwrap();
    // A change within one tick of the clock would not show in the times.
    let old = std::fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    std::fs::File::open(&path).unwrap().set_times(old).unwrap();
    let mut source = FilesSource::new(&path, Excludes::default()).unwrap();
    loop {
        if let Some(Event::Entry(mut node, mut content)) = source.next().unwrap() {
            content.describe(&mut node)?;
            let mut reader = content.open()?;
            change(&path);
            return read(&mut *reader);
        }
    }
}

#[test]
fn a_file_that_shrinks_or_is_overwritten_is_not_taken_for_whole() {
    let shrunk = changed_while_read(|path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(9).unwrap();
    });
    assert_eq!(shrunk.unwrap_err().code().as_str(), "R0402");
    let overwritten = changed_while_read(|path| {
        use std::os::unix::fs::FileExt;
        std::fs::File::options().write(true).open(path).unwrap().write_all_at(b"other", 100).unwrap();
    });
    assert_eq!(overwritten.unwrap_err().code().as_str(), "R0402");
}

#[test]
fn a_file_that_grows_is_kept_as_it_was_when_it_was_opened() {
    let grown = changed_while_read(|path| {
        use std::io::Write;
        std::fs::File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
    });
    assert_eq!(grown.unwrap().len(), 300_000);
}

#[test]
fn a_file_that_vanishes_between_listing_and_reading_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gone");
    std::fs::write(&path, b"x").unwrap();
    let mut source = FilesSource::new(folder.path(), Excludes::default()).unwrap();
    let error = loop {
        if let Some(Event::Entry(mut node, mut content)) = source.next().unwrap() {
            std::fs::remove_file(&path).unwrap();
            break content.describe(&mut node).unwrap_err();
        }
    };
    assert_eq!(error.code().as_str(), "R0401");
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn roots_that_are_relative_or_missing_are_refused() {
    let error = FilesSource::new(Path::new("relative"), Excludes::default()).unwrap_err();
    assert_eq!(error.kind(), retoma_core::ErrorKind::Invalid);
    let error = FilesSource::new(Path::new("/a/../b"), Excludes::default()).unwrap_err();
    assert_eq!(error.kind(), retoma_core::ErrorKind::Invalid);
    let error = FilesSource::new(Path::new("/nowhere/at/all"), Excludes::default()).unwrap_err();
    assert_eq!(error.kind(), retoma_core::ErrorKind::NotFound);
}

/// Writes a file when the walk is behind another.
struct Meanwhile {
    source: FilesSource,
    write: Option<Box<dyn FnOnce() + Send>>,
}

impl Source for Meanwhile {
    fn next(&mut self) -> retoma_core::Result<Option<Event>> {
        let event = self.source.next()?;
        if matches!(event, Some(Event::Entry(..)))
            && let Some(write) = self.write.take()
        {
            write();
        }
        Ok(event)
    }

    fn moments(&self) -> Option<Moments> {
        self.source.moments()
    }
}

/// Who asks for the state of a time must not get what was written after it, also when the backup had begun before.
#[test]
fn a_snapshot_with_what_was_written_while_it_was_read_is_of_a_later_time() {
    let store = BlockingStore::new(std::sync::Arc::new(ObjectStore::memory())).unwrap();
    let repository = Repository::init(store, &retoma_core::Secret::new("a test".to_owned())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(folder.path().join(name), "old").unwrap();
    }
    let source = || FilesSource::new(folder.path(), Excludes::default()).unwrap();
    assert_eq!(source().moments(), None, "nothing was read");
    let (options, progress) = (Options::default(), Progress::default());
    let first = backup(&repository, &mut source(), &options, &progress).unwrap().snapshot;
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let later = folder.path().join("b");
    let write = move || {
        tell.send(Timestamp::now()).unwrap();
        std::fs::write(later, "newer").unwrap();
    };
    let mut meanwhile = Meanwhile { source: source(), write: Some(Box::new(write)) };
    let second = backup(&repository, &mut meanwhile, &options, &progress).unwrap();
    let before_the_write = told.recv().unwrap();
    let index = repository.load_index().unwrap();
    let path = folder.path().join("b");
    let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    let newer = find::node(&repository, &index, &second.tree, path).unwrap();
    assert_eq!(newer.size_bytes, 5, "the test shows something");
    let snapshot = repository.snapshot(second.snapshot).unwrap();
    assert!(snapshot.time.0 <= before_the_write && before_the_write <= snapshot.until());
    let at = |time| find::snapshot(&repository, &Selector { which: Which::At(time), ..Selector::default() });
    assert_eq!(at(before_the_write).unwrap().0, first);
    assert_eq!(at(snapshot.until()).unwrap().0, second.snapshot);
}
