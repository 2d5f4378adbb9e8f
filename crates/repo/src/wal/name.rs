//! Names of the objects of the lane `wal`.

use super::FOLDER;
use crate::store::Key;
use retoma_core::postgres::{SegmentName, TimelineId, WalFileName};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::fmt;

/// The folder of the parts in that of a timeline.
const PARTS: &str = "parts";

/// Bytes `from..to` of a segment that is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartName {
    /// The segment.
    pub segment: SegmentName,
    /// The first byte.
    pub from: u32,
    /// The first byte that is not in it; more than `from`.
    pub to: u32,
}

impl PartName {
    /// A part; `None` for an empty one.
    pub fn new(segment: SegmentName, from: u32, to: u32) -> Option<Self> {
        (from < to).then_some(Self { segment, from, to })
    }

    /// Its length in bytes.
    pub fn length(self) -> usize {
        // More than `from`, and what fits 32 bits fits a length.
        (self.to - self.from) as usize
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08X}-{:08X}", self.segment, self.from, self.to)
    }
}

/// What an object of one server's archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalObject {
    /// A file, as `archive_command` got it.
    File(WalFileName),
    /// A part of a segment.
    Part(PartName),
}

impl WalObject {
    /// The timeline in whose folder it lies.
    pub fn timeline(self) -> TimelineId {
        match self {
            Self::File(file) => file.timeline(),
            Self::Part(part) => part.segment.timeline(),
        }
    }

    /// The name of this object in the archive of a server.
    ///
    /// # Errors
    /// `Invalid` with `R0304` for a component that cannot be part of a name.
    pub fn key(self, component: &str, system_identifier: u64) -> Result<Key> {
        let place = Place { component, system_identifier };
        place.check()?;
        place.key(self)
    }

    /// Reads the name of an object: component, system identifier, object. `None` for other objects.
    pub fn parse(name: &str) -> Option<(&str, u64, Self)> {
        let mut segments = name.split('/');
        if segments.next()? != FOLDER {
            return None;
        }
        let component = segments.next().filter(|component| is_component(component))?;
        let server = segments.next()?;
        let system_identifier: u64 = server.parse().ok()?;
        let timeline = segments.next()?;
        let rest: Vec<&str> = segments.collect();
        let object = match rest[..] {
            [file] => Self::File(file.parse().ok()?),
            [_, _, part] => Self::Part(parse_part(part)?),
            _ => return None,
        };
        // One object has one name: no other spelling of a number, no other folder.
        let place = Place { component, system_identifier };
        (timeline == object.timeline().to_hex() && place.name(object) == name).then_some((
            component,
            system_identifier,
            object,
        ))
    }
}

impl fmt::Display for WalObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Part(part) => part.fmt(f),
        }
    }
}

fn parse_part(text: &str) -> Option<PartName> {
    let (segment, range) = text.split_once('.')?;
    let (from, to) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    PartName::new(segment.parse().ok()?, number(from)?, number(to)?)
}

/// Whether this may be a component's name here: one segment of an object's name.
fn is_component(text: &str) -> bool {
    !text.contains('/') && Key::new(text).is_ok()
}

/// Whose archive: the beginning of all names in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) component: &'a str,
    pub(super) system_identifier: u64,
}

impl Place<'_> {
    /// # Errors
    /// `Invalid` with `R0304` for a component that cannot be part of a name.
    pub(super) fn check(self) -> Result<()> {
        if is_component(self.component) {
            return Ok(());
        }
        let message = format!("`{}` cannot name a component's WAL", self.component.escape_debug());
        Err(Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message))
    }

    /// The folder of everything.
    pub(super) fn folder(self) -> String {
        format!("{FOLDER}/{}/{}", self.component, self.system_identifier)
    }

    fn name(self, object: WalObject) -> String {
        let folder = format!("{}/{}", self.folder(), object.timeline().to_hex());
        match object {
            WalObject::File(file) => format!("{folder}/{file}"),
            WalObject::Part(part) => format!("{}/{part}", self.parts_folder(part.segment)),
        }
    }

    /// The folder of a segment's parts: that of its 4 GiB of WAL, so that a look for them lists few objects.
    pub(super) fn parts_folder(self, segment: SegmentName) -> String {
        let (timeline, name) = (segment.timeline().to_hex(), segment.to_string());
        format!("{}/{timeline}/{PARTS}/{}", self.folder(), &name[8..16])
    }

    /// The folder of the parts of all segments of a timeline.
    pub(super) fn timeline_parts_folder(self, timeline: TimelineId) -> String {
        format!("{}/{}/{PARTS}", self.folder(), timeline.to_hex())
    }

    pub(super) fn key(self, object: WalObject) -> Result<Key> {
        Key::new(self.name(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER: u64 = 7_123;

    fn name(object: WalObject) -> String {
        Place { component: "orders-db", system_identifier: SERVER }.key(object).unwrap().as_str().to_owned()
    }

    fn objects() -> impl Strategy<Value = WalObject> {
        let segment = (1u32.., any::<u32>(), any::<u32>())
            .prop_map(|(t, log, at)| format!("{t:08X}{log:08X}{at:08X}").parse::<SegmentName>().unwrap());
        (segment, any::<u32>(), 0u8..5, any::<u32>()).prop_map(|(segment, offset, kind, length)| match kind {
            0 => WalObject::File(WalFileName::Segment(segment)),
            1 => WalObject::File(WalFileName::Partial(segment)),
            2 => WalObject::File(WalFileName::Backup { segment, offset }),
            3 => WalObject::File(WalFileName::History(segment.timeline())),
            _ => {
                let from = offset / 2;
                WalObject::Part(PartName::new(segment, from, from + 1 + length / 2).unwrap())
            }
        })
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        for text in [
            "wal/orders-db/7123/00000001/000000010000000000000007",
            "wal/orders-db/7123/00000001/000000010000000000000007.partial",
            "wal/orders-db/7123/00000001/000000010000000000000007.00000028.backup",
            "wal/orders-db/7123/00000002/00000002.history",
            "wal/orders-db/7123/00000001/parts/0000000A/000000010000000A00000007.00000000-00002000",
        ] {
            let (component, server, object) = WalObject::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((component, server, name(object).as_str()), ("orders-db", SERVER, text));
        }
        for other in [
            "wal/orders-db/7123/00000002/000000010000000000000007",
            "wal/orders-db/07123/00000001/000000010000000000000007",
            "wal/orders-db/+7123/00000001/000000010000000000000007",
            "wal/orders-db/7123/1/000000010000000000000007",
            "wal/orders-db/7123/000000010000000000000007",
            "wal//7123/00000001/000000010000000000000007",
            "wals/orders-db/7123/00000001/000000010000000000000007",
            "wal/orders-db/7123/00000001/000000010000000000000007.ready",
            "wal/orders-db/7123/00000001/parts/0000000B/000000010000000A00000007.00000000-00002000",
            "wal/orders-db/7123/00000001/part/0000000A/000000010000000A00000007.00000000-00002000",
            "wal/orders-db/7123/00000001/parts/0000000A/000000010000000A00000007.00002000-00002000",
            "wal/orders-db/7123/00000001/parts/0000000A/000000010000000A00000007.0000000a-00002000",
            "wal/orders-db/7123/00000001/parts/0000000A/000000010000000A00000007",
        ] {
            assert_eq!(WalObject::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_component_stays_in_its_own_folder() {
        for component in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(Place { component, system_identifier: 1 }.check().is_err(), "{component}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_read_as_what_it_was_made_of(object in objects()) {
            let name = name(object);
            prop_assert_eq!(WalObject::parse(&name), Some(("orders-db", SERVER, object)));
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in "wal/[a-z.]{1,3}/[0-9]{1,20}/[0-9A-F]{8}/(parts/[0-9A-F]{8}/)?[0-9A-F]{24}(\\.[0-9A-F]{8}-[0-9A-F]{8})?|.{0,90}",
        ) {
            if let Some((component, system_identifier, object)) = WalObject::parse(&text) {
                prop_assert_eq!(Place { component, system_identifier }.name(object), text.clone());
            }
        }
    }
}
