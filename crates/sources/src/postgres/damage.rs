//! Bad pages that a backup found: which of them count, and what is said about them.

use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, error::codes};
use retoma_repo::backup::Event;
use std::ops::RangeInclusive;
use std::path::Path;

/// So many bad pages a message names.
const NAMED: usize = 5;

/// The blocks among `wrong` (blocks with their LSNs) that are bad: what the WAL of the backup replaces may be anything, what
/// claims to be from the future may not.
pub(super) fn bad_blocks(wrong: &[(u32, u64)], replaced: &RangeInclusive<u64>) -> Vec<u32> {
    wrong.iter().filter(|(_, lsn)| !replaced.contains(lsn)).map(|(block, _)| *block).collect()
}

/// Says that the file at `path` within the data directory `data` has bad pages, and notes it in `noted`. `bad`: blocks;
/// `unknown`: how many more there may be, of which it cannot be said that the WAL replaces them.
pub(super) fn event(noted: &mut Vec<String>, data: &Path, path: &[u8], bad: &[u32], unknown: u64) -> Event {
    let shown = String::from_utf8_lossy(path).into_owned();
    let named: Vec<String> = bad.iter().take(NAMED).map(u32::to_string).collect();
    let count = bad.len() as u64 + unknown;
    let more = count - named.len() as u64;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "`{shown}` has {} whose checksums do not fit: {}{more}",
        counted(count, "page", "pages"),
        named.join(", ")
    );
    noted.push(message.clone());
    let error = Error::new(ErrorKind::Corrupt, codes::POSTGRES_BAD_PAGE, message).with_hint(
        "ask `SELECT oid::regclass FROM pg_class WHERE relfilenode = …` in its database for the relation; restore it from an earlier snapshot",
    );
    Event::Unreadable(data.join(shown).into_os_string().into_encoded_bytes(), error)
}

#[cfg(test)]
mod tests;
