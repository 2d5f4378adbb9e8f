//! What a record means for whoever looks for a point in time: the ends of transactions, and restore points.

use super::HEADER_BYTES;
use crate::postgres::wire::stream::time;
use jiff::Timestamp;

/// What a record means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A transaction committed, also one that had been prepared.
    Commit {
        /// Its identifier.
        xid: u32,
        /// When, by the server's clock.
        at: Timestamp,
    },
    /// A transaction was rolled back.
    Abort {
        /// Its identifier.
        xid: u32,
        /// When, by the server's clock.
        at: Timestamp,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// Its name.
        name: String,
        /// When, by the server's clock.
        at: Timestamp,
    },
    /// A tablespace was made; replaying it makes or takes over its folder.
    Tablespace {
        /// Its number.
        oid: u32,
        /// Where it lies, as an absolute path.
        location: String,
    },
    /// Anything else.
    Other,
}

/// `RM_XLOG_ID` and what of it is looked at.
const XLOG: u8 = 0;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;
/// `RM_XACT_ID` and what of it is looked at.
const XACT: u8 = 1;
const XACT_OPERATIONS: u8 = 0x70;
const XACT_HAS_INFO: u8 = 0x80;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;

/// `RM_TBLSPC_ID` and what of it is looked at.
const TABLESPACE: u8 = 5;
const TABLESPACE_CREATE: u8 = 0x00;

/// Parts of a commit, in this order: the bit in `xinfo`, and the bytes of each entry behind a count of them.
const HAS_DATABASE: u32 = 1;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_DROPPED_STATS: u32 = 1 << 8;
/// Magic numbers of pages: version 15 compresses images of pages in more ways, 18 has longer names of statistics.
const MAGIC_15: u16 = 0xD110;
const MAGIC_18: u16 = 0xD118;

/// Whether the rest of the segment is left empty behind such a record.
pub(super) fn is_switch(resource_manager: u8, info: u8) -> bool {
    resource_manager == XLOG && info & 0xF0 == XLOG_SWITCH
}

/// `None` where the record does not have what its kind must have.
pub(super) fn of(resource_manager: u8, info: u8, xid: u32, record: &[u8], magic: u16) -> Option<Meaning> {
    match (resource_manager, info & 0xF0) {
        (XLOG, XLOG_RESTORE_POINT) => {
            let data = main_data(record, magic)?;
            let name = data.get(8..)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(Meaning::RestorePoint {
                name: String::from_utf8_lossy(name).into_owned(),
                at: timestamp(data)?,
            })
        }
        (XACT, _) => {
            let operation = info & XACT_OPERATIONS;
            let is_commit = operation == COMMIT || operation == COMMIT_PREPARED;
            if !is_commit && operation != ABORT && operation != ABORT_PREPARED {
                return Some(Meaning::Other);
            }
            let data = main_data(record, magic)?;
            let at = timestamp(data)?;
            let xid = match operation {
                COMMIT_PREPARED | ABORT_PREPARED => prepared_xid(info, data, is_commit, magic)?,
                _ => xid,
            };
            Some(if is_commit { Meaning::Commit { xid, at } } else { Meaning::Abort { xid, at } })
        }
        (TABLESPACE, TABLESPACE_CREATE) => {
            let (oid, path) = main_data(record, magic)?.split_first_chunk::<4>()?;
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            // Without a place of its own it lies in the data directory (`allow_in_place_tablespaces`).
            let location = String::from_utf8_lossy(path).into_owned();
            let oid = u32::from_ne_bytes(*oid);
            Some(if location.is_empty() { Meaning::Other } else { Meaning::Tablespace { oid, location } })
        }
        _ => Some(Meaning::Other),
    }
}

fn timestamp(data: &[u8]) -> Option<Timestamp> {
    let microseconds = i64::from_ne_bytes(data.get(..8)?.try_into().ok()?);
    time(microseconds).ok()
}

/// The transaction that was prepared: the record itself carries none.
fn prepared_xid(info: u8, data: &[u8], is_commit: bool, magic: u16) -> Option<u32> {
    let mut rest = data.get(8..)?;
    let parts = if info & XACT_HAS_INFO != 0 { number(&mut rest)? } else { 0 };
    if parts & HAS_DATABASE != 0 {
        rest = rest.get(8..)?;
    }
    let stats_bytes = if magic >= MAGIC_18 { 16 } else { 12 };
    // Subtransactions, files of relations, dropped statistics, messages of invalidation.
    for (bit, entry_bytes, in_abort) in
        [(1 << 1, 4, true), (1 << 2, 12, true), (HAS_DROPPED_STATS, stats_bytes, true), (1 << 3, 16, false)]
    {
        if parts & bit != 0 && (is_commit || in_abort) {
            let count = usize::try_from(number(&mut rest)?).ok()?;
            rest = rest.get(count.checked_mul(entry_bytes)?..)?;
        }
    }
    if parts & HAS_TWO_PHASE == 0 {
        return None;
    }
    number(&mut rest)
}

/// Takes the next number off.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let (first, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_ne_bytes(*first))
}

/// The data of a record that belongs to no block: it is the last part, behind what belongs to blocks.
fn main_data(record: &[u8], magic: u16) -> Option<&[u8]> {
    let mut at = HEADER_BYTES;
    let mut length = None;
    // Headers first, of blocks, origin, top transaction; that of the main data ends them.
    while length.is_none() {
        let id = *record.get(at)?;
        at += 1;
        match id {
            0..=32 => at += block_header(record, at, magic)?,
            255 => length = Some(usize::from(*record.get(at)?)),
            254 => length = Some(usize::try_from(number(&mut record.get(at..)?)?).ok()?),
            253 => at += 2,
            252 => at += 4,
            _ => return None,
        }
    }
    record.get(record.len().checked_sub(length?)?..)
}

/// How many bytes the header of a block has behind its first one (`XLogRecordBlockHeader`).
fn block_header(record: &[u8], at: usize, magic: u16) -> Option<usize> {
    const HAS_IMAGE: u8 = 0x10;
    const SAME_RELATION: u8 = 0x80;
    const HAS_HOLE: u8 = 1;
    let flags = *record.get(at)?;
    let mut bytes = 3;
    if flags & HAS_IMAGE != 0 {
        let image = *record.get(at + bytes + 4)?;
        bytes += 5;
        // The length of a hole is there only where it does not follow from that of the image.
        let is_compressed = image & if magic < MAGIC_15 { 0x02 } else { 0x1C } != 0;
        if image & HAS_HOLE != 0 && is_compressed {
            bytes += 2;
        }
    }
    if flags & SAME_RELATION == 0 {
        bytes += 12;
    }
    Some(bytes + 4)
}
