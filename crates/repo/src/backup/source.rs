//! What a backup reads: a stream of directories and entries, and contents that are opened when they are needed.

use crate::format::tree::Node;
use jiff::Timestamp;
use retoma_core::{Error, Result};

/// One step through a source, depth first; names in a directory ascend by bytes.
pub enum Event {
    /// A directory begins; what follows lies in it until the matching [`Event::Leave`].
    Enter(Box<Node>),
    /// The directory ends.
    Leave,
    /// Anything else: a file, a link, a device.
    Entry(Box<Node>, Box<dyn Content>),
    /// Something could not be read: its path as shown to people. The snapshot is marked incomplete.
    Unreadable(Vec<u8>, Error),
    /// Keeps a place in the current directory, in the order of names, for something of this name of which nothing is
    /// known yet. The number is the source's own; it is used once. A place that nobody fills is left out.
    Reserve(u32, Vec<u8>),
    /// What comes before this has been read, or is the same as in the parent snapshot, or could not be read, before
    /// the source is asked again: for what may be stopped, or is known, only then.
    Settle,
    /// The directory or the entry for a place that was reserved, when all other directories are left: an
    /// [`Event::Enter`] or an [`Event::Entry`] of the reserved name.
    Late(u32, Box<Event>),
    /// A file whose place is not known yet: its contents are read at once, before the source is asked again. For what comes
    /// in an order of its own, such as an archive over a network. The number is the source's own; it is used once.
    Ahead(u64, Box<Node>, Box<dyn Content>),
    /// Puts the file that was read ahead under this number into the current directory.
    Place(u64),
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Enter(node) => write!(f, "Enter({})", node.name.escape_ascii()),
            Self::Leave => f.write_str("Leave"),
            Self::Entry(node, _) => write!(f, "Entry({})", node.name.escape_ascii()),
            Self::Unreadable(path, error) => write!(f, "Unreadable({}, {error:?})", path.escape_ascii()),
            Self::Reserve(number, name) => write!(f, "Reserve({number}, {})", name.escape_ascii()),
            Self::Settle => f.write_str("Settle"),
            Self::Late(number, event) => write!(f, "Late({number}, {event:?})"),
            Self::Ahead(number, node, _) => write!(f, "Ahead({number}, {})", node.name.escape_ascii()),
            Self::Place(number) => write!(f, "Place({number})"),
        }
    }
}

/// What is protected. Errors that concern one path are events; an error here ends the backup.
pub trait Source: Send {
    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// The source as a whole cannot be read; no snapshot is written.
    fn next(&mut self) -> Result<Option<Event>>;

    /// Asked after the last event: when what was read was as it was read, where the source knows that better than that it was not
    /// before the backup began.
    fn moments(&self) -> Option<Moments> {
        None
    }
}

/// When what was read was so. A source whose parts are of moments of their own has two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moments {
    /// All that was written before this is there: the snapshot's time.
    pub earliest: Timestamp,
    /// Nothing that was written after this is there.
    pub latest: Timestamp,
}

/// Whether an entry is still there when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is.
    There,
    /// It is not, and need not be: it is left out. Where a missing entry is a failure, an error says so instead.
    Gone,
}

/// One entry's contents and details, asked for only when the entry is not the same as in the parent snapshot.
pub trait Content: Send {
    /// Fills in what listing a directory does not tell: extended attributes, where a link points.
    ///
    /// # Errors
    /// They could not be read: the entry counts as unreadable.
    fn describe(&mut self, node: &mut Node) -> Result<Found>;

    /// Opens a file's contents.
    ///
    /// # Errors
    /// They could not be opened: the entry counts as unreadable.
    fn open(&mut self) -> Result<Box<dyn Reader>>;
}

/// A file's contents.
pub trait Reader: Send {
    /// The size to read, in bytes: what grows beyond it is left to the next backup. 0 for streams of unknown length.
    fn size_bytes(&self) -> Option<u64>;

    /// Cuts at multiples of so many bytes, at most [`chunk::FILES`](crate::chunk::FILES)`.max_bytes`, instead of by content:
    /// for files whose pages keep their places. See [`chunk::block_bytes`](crate::chunk::block_bytes).
    fn block_bytes(&self) -> Option<usize> {
        None
    }

    /// Fills the front of `buffer`; 0 at the end.
    ///
    /// # Errors
    /// The file counts as unreadable.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Number of bytes from here on that are known to be zero, such as a hole in a sparse file.
    ///
    /// # Errors
    /// The file counts as unreadable.
    fn zeros_ahead_bytes(&mut self) -> Result<u64> {
        Ok(0)
    }

    /// Passes over bytes that are known to be zero.
    ///
    /// # Errors
    /// The file counts as unreadable.
    fn skip(&mut self, _bytes: u64) -> Result<()> {
        Ok(())
    }

    /// Called after the last byte: whether the `read_bytes` that were read are one state of the file.
    ///
    /// # Errors
    /// It was cut or changed while it was read: the file counts as unreadable.
    fn finish(&mut self, read_bytes: u64) -> Result<()>;
}
