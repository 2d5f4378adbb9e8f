//! A source of files in memory, given by their paths.

use retoma_core::{Error, ErrorKind, error::codes};
use retoma_repo::backup::Event;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_testkit::MemorySource;
use std::collections::BTreeMap;

/// Contents by path.
pub(super) type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// The parts of a path that are left, and the contents.
type File<'a> = (Vec<&'a [u8]>, &'a Vec<u8>);

pub(super) fn source(files: &Files, unreadable: &[&str]) -> MemorySource {
    let mut source = MemorySource::default();
    let files: Vec<File<'_>> =
        files.iter().map(|(path, contents)| (path.split(|b| *b == b'/').collect(), contents)).collect();
    add(&mut source, files);
    for path in unreadable {
        let error = Error::new(ErrorKind::Unauthorized, codes::SOURCE_UNREADABLE, "not for us");
        source.event(Event::Unreadable(path.as_bytes().to_vec(), error));
    }
    source
}

/// One directory; names ascend.
fn add(source: &mut MemorySource, files: Vec<File<'_>>) {
    let mut names: BTreeMap<&[u8], Vec<File<'_>>> = BTreeMap::new();
    for (path, contents) in files {
        names.entry(path[0]).or_default().push((path[1..].to_vec(), contents));
    }
    for (name, below) in names {
        if let [(rest, contents)] = below.as_slice()
            && rest.is_empty()
        {
            source.file(name, contents);
            continue;
        }
        source.enter(Node::new(name, NodeKind::Directory));
        add(source, below);
        source.leave();
    }
}
