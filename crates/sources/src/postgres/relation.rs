//! Names of relation files.

/// The blocks in one file of a relation: 1 GiB.
const BLOCKS_PER_FILE: u32 = 131_072;

/// What a relation's file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map.
    FreeSpace,
    /// The visibility map.
    Visibility,
    /// What an unlogged relation begins with after a crash.
    Init,
}

/// A relation's file, by its name: `16384`, `16384.2`, `16384_vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    /// The relation's file number (`pg_class.relfilenode`).
    pub number: u32,
    /// Which fork.
    pub fork: Fork,
    /// Which file of the fork, from 0 on.
    pub segment: u32,
}

impl RelationFile {
    /// Reads a name; `None` for what is no permanent relation's file.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, segment) = match name.split_once('.') {
            // The first file has no number.
            Some((stem, segment)) => (stem, plain_number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (number, fork) = match stem.split_once('_') {
            None => (stem, Fork::Main),
            Some((number, "fsm")) => (number, Fork::FreeSpace),
            Some((number, "vm")) => (number, Fork::Visibility),
            Some((number, "init")) => (number, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: plain_number(number).filter(|number| *number > 0)?, fork, segment })
    }

    /// The number of the file's first block within its fork.
    pub fn first_block(&self) -> u32 {
        self.segment.saturating_mul(BLOCKS_PER_FILE)
    }
}

/// Decimal without sign and leading zeros.
fn plain_number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    digits.then(|| text.parse().ok()).flatten()
}

/// Whether `name` is a temporary relation's file: `t3_16384`, `t3_16384_fsm.1`.
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix('t')
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(backend, rest)| plain_number(backend).is_some() && RelationFile::parse(rest).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        for (name, expected) in [
            ("16384", file(16384, Fork::Main, 0)),
            ("16384.2", file(16384, Fork::Main, 2)),
            ("16384_fsm", file(16384, Fork::FreeSpace, 0)),
            ("16384_vm.1", file(16384, Fork::Visibility, 1)),
            ("16384_init", file(16384, Fork::Init, 0)),
            ("4294967295.32767", file(u32::MAX, Fork::Main, 32767)),
            ("4294967296", None),
            ("0", None),
            ("016384", None),
            ("16384.0", None),
            ("16384.01", None),
            ("16384.", None),
            ("16384_", None),
            ("16384_toast", None),
            ("16384.1_fsm", None),
            ("+16384", None),
            ("t3_16384", None),
            ("pg_filenode.map", None),
            ("PG_VERSION", None),
            ("", None),
        ] {
            assert_eq!(RelationFile::parse(name), expected, "{name:?}");
        }
    }

    #[test]
    fn blocks_are_counted_over_all_files_of_a_fork() {
        assert_eq!(RelationFile::parse("1").unwrap().first_block(), 0);
        assert_eq!(RelationFile::parse("1.3").unwrap().first_block(), 393_216);
        assert_eq!(RelationFile::parse("1.4294967295").unwrap().first_block(), u32::MAX);
    }

    #[test]
    fn temporary_relations_are_known() {
        for name in ["t3_16384", "t3_16384.1", "t12_16384_fsm", "t0_1_vm.2"] {
            assert!(is_temporary(name), "{name}");
        }
        for name in ["16384", "t16384", "t_16384", "tx_16384", "t3_", "t3_x", "t3_16384_toast"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
