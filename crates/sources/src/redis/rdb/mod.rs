//! A data set in Redis's own file format, followed while it passes by: checksum, and what is counted.
//!
//! Values are passed over by their lengths, in all encodings up to version 11 (Redis 7.2); nothing is decoded but what
//! [`value`] compares. Memory is bounded by one header, one key's name and, where samples are taken, these.
//!
//! Invariants: any bytes are followed or refused, without a panic. A data set that cannot be followed is no damaged one as
//! long as its checksum fits: then it is said that nothing was counted.

mod follow;
mod sample;
pub mod value;

pub use sample::{Sample, Sampling};

use super::crc64;
use follow::Follower;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// The last version whose encodings are all known.
pub const COUNTED_VERSION: u32 = 11;
/// Since this version, a checksum ends the file.
const CHECKSUM_VERSION: u32 = 5;
const CHECKSUM_BYTES: usize = 8;

/// The keys of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys {
    /// All of them.
    pub keys: u64,
    /// Those with a time at which they expire.
    pub expires: u64,
    /// Of those, how many have expired at each of the times that were asked about ([`Rdb::asking`]).
    pub expired: [u64; 2],
}

/// What was counted in a data set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Keys by database; databases without any are not in it.
    pub databases: BTreeMap<u64, Keys>,
    /// Keys by type: `string`, `list`, `set`, `zset`, `hash`, `stream`, `module`.
    pub types: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Keys of all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|keys| keys.keys).sum()
    }
}

/// What a data set that has passed by is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Its length in bytes.
    pub bytes: u64,
    /// The version of the format.
    pub version: u32,
    /// Whether it has a checksum, which then fits; a server with `rdbchecksum no` writes none.
    pub has_checksum: bool,
    /// What was counted, or why nothing was.
    pub counts: Result<Counts, String>,
    /// What the server says about itself, such as `redis-ver`, `repl-id` and `repl-offset`.
    pub auxiliary: BTreeMap<String, String>,
    /// The samples that were taken.
    pub samples: Vec<Sample>,
}

/// A data set that passes by.
#[derive(Debug)]
pub struct Rdb {
    follower: Follower,
    /// The sum of all but the last bytes.
    crc: u64,
    /// The last bytes: the checksum, once all has passed.
    last: Vec<u8>,
    bytes: u64,
}

impl Rdb {
    /// Nothing has passed yet; nothing is sampled.
    pub fn new() -> Self {
        Self::asking([0; 2], Sampling::default())
    }

    /// Counts also which keys have expired at two times (Unix, in milliseconds), and takes samples.
    pub fn asking(times: [u64; 2], sampling: Sampling) -> Self {
        let follower = Follower::new(times, sampling);
        Self { follower, crc: 0, last: Vec::new(), bytes: 0 }
    }

    /// The next bytes.
    pub fn pass(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let keep = bytes.len().min(CHECKSUM_BYTES);
        let (front, back) = bytes.split_at(bytes.len() - keep);
        let over = (self.last.len() + keep).saturating_sub(CHECKSUM_BYTES);
        self.crc = crc64::update(self.crc, &self.last[..over]);
        self.crc = crc64::update(self.crc, front);
        self.last.drain(..over);
        self.last.extend(back);
        self.follower.pass(bytes);
    }

    /// All has passed.
    ///
    /// # Errors
    /// `R0437` for what is no data set, is not whole, has a checksum that does not fit, or has neither a checksum nor a
    /// known structure.
    pub fn finish(self) -> Result<Passed> {
        let version = self.follower.version.ok_or_else(|| damaged("does not begin as one"))?;
        let mut has_checksum = false;
        if version >= CHECKSUM_VERSION {
            let stored: [u8; CHECKSUM_BYTES] =
                self.last.as_slice().try_into().map_err(|_| damaged("is cut short"))?;
            let stored = u64::from_le_bytes(stored);
            has_checksum = stored != 0;
            if has_checksum && stored != self.crc {
                let what = format!("has the checksum `{:016x}`, and its end says `{stored:016x}`", self.crc);
                return Err(damaged(&what));
            }
        }
        let (counts, auxiliary, samples) = self.follower.finish();
        if let (false, Err(why)) = (has_checksum, &counts) {
            return Err(damaged(&format!("has no checksum, and {why}"))
                .with_hint("set `rdbchecksum yes` in the server, and restart it"));
        }
        Ok(Passed { bytes: self.bytes, version, has_checksum, counts, auxiliary, samples })
    }
}

impl Default for Rdb {
    fn default() -> Self {
        Self::new()
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, codes::REDIS_DAMAGED, format!("the data set of Redis {what}")).with_hint(
        "try again; if it stays so, look at the server's memory and disk, and check its own file with `redis-check-rdb`",
    )
}

#[cfg(test)]
mod tests;
