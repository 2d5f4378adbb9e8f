//! PostgreSQL's positions and names, as values: where a record of the write-ahead log (WAL) is, what its file is called.
//!
//! Everything here comes from the server's documentation and from `xlog_internal.h` and `timeline.c` of its source, and
//! is the same in versions 13 to 18. Nothing here reads WAL.

mod file_name;
mod lsn;
mod segment;
mod timeline;

pub use file_name::{SegmentName, WalFileName};
pub use lsn::{Lsn, SegmentSize};
pub use segment::SegmentHeader;
pub use timeline::{HistoryEntry, TimelineHistory, TimelineId};

use std::fmt;

/// Why a text is not what it should be; prints as a reason without the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError(pub(crate) &'static str);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ParseError {}

/// Reads 1 to 8 hexadecimal digits and nothing else: `from_str_radix` would also take a sign.
fn hex(text: &str) -> Option<u32> {
    let is_hex = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Reads exactly 8 hexadecimal digits in upper case, as file names have them.
fn hex8(text: &str) -> Option<u32> {
    let is_name = text.len() == 8 && !text.bytes().any(|byte| byte.is_ascii_lowercase());
    is_name.then(|| hex(text)).flatten()
}
