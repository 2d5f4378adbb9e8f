//! Floors: what a prune wrote down about WAL that nobody needed any more at that time. `docs/wal.md`, "Keeping".

use super::archive::Archive;
use super::name::WalObject;
use crate::format::time::Time;
use crate::store::{Key, PutMode};
use bytes::Bytes;
use retoma_core::decide::keep::Floors;
use retoma_core::postgres::TimelineId;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FOLDER: &str = "floors";
const FORMAT: u32 = 1;
/// Digits of the seconds in a name, so that names sort as times do.
const DIGITS: usize = 20;

/// A floor as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFloor {
    /// When, in whole seconds.
    pub time: Time,
    /// Before these positions nothing was needed then.
    pub floors: Floors,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    format: u32,
    /// Timelines as in names, positions as PostgreSQL writes them.
    floors: BTreeMap<String, String>,
}

impl Raw {
    fn new(floors: &Floors) -> Self {
        let floors = floors.iter().map(|(timeline, lsn)| (timeline.to_hex(), lsn.to_string()));
        Self { format: FORMAT, floors: floors.collect() }
    }

    /// `None` for what is no timeline or no position.
    fn read(&self) -> Option<Floors> {
        let one = |(timeline, lsn): (&String, &String)| {
            let number = u32::from_str_radix(timeline, 16).ok()?;
            Some((TimelineId::new(number)?, lsn.parse().ok()?))
        };
        self.floors.iter().map(one).collect()
    }
}

impl Archive {
    fn floor_folder(&self) -> String {
        format!("{}/{FOLDER}", self.place().folder())
    }

    fn floor_key(&self, time: Time) -> Result<Key> {
        let seconds = u64::try_from(time.to_unix().0).unwrap_or_default();
        Key::new(format!("{}/{seconds:0DIGITS$}", self.floor_folder()))
    }

    /// The floors that are there, oldest first.
    ///
    /// # Errors
    /// `Corrupt` with `R0203` for one that cannot be read: what it lets go of is not known. What the store says.
    pub fn floors(&self) -> Result<Vec<StoredFloor>> {
        let mut keys = Vec::new();
        let folder = self.floor_folder();
        self.store()
            .for_each(&folder, |meta| keys.push(meta.key.clone()))
            .context("list the floors of the WAL")?;
        keys.sort_unstable();
        keys.iter().filter_map(|key| self.floor(key).transpose()).collect()
    }

    /// `None` for what is no floor, or has gone meanwhile.
    fn floor(&self, key: &Key) -> Result<Option<StoredFloor>> {
        let digits = key.as_str().rsplit('/').next().filter(|digits| digits.len() == DIGITS);
        let Some(seconds) = digits.and_then(|digits| digits.parse::<i64>().ok()) else { return Ok(None) };
        let sealed = match self.store().get(key) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let doing = || format!("read `{key}`");
        let json = self.lane().open(key, &sealed).with_context(doing)?;
        let raw: Raw = serde_json::from_slice(&json)
            .map_err(|error| Error::new(ErrorKind::Corrupt, codes::MALFORMED, format!("`{key}`: {error}")))?;
        if raw.format != FORMAT {
            let message = format!("`{key}` has format `{}`, this version knows `{FORMAT}`", raw.format);
            return Err(Error::new(ErrorKind::Unsupported, codes::MALFORMED, message));
        }
        let malformed = || Error::new(ErrorKind::Corrupt, codes::MALFORMED, format!("`{key}` is no floor"));
        let floors = raw.read().ok_or_else(malformed)?;
        Ok(Some(StoredFloor { time: Time::from_unix(seconds, 0), floors }))
    }

    /// Writes a floor down. One of the same second stays as it is.
    ///
    /// # Errors
    /// What the store says.
    pub fn put_floor(&self, time: Time, floors: &Floors) -> Result<()> {
        let key = self.floor_key(time)?;
        let json = serde_json::to_vec(&Raw::new(floors))
            .map_err(|error| Error::internal("a floor is no JSON").with_source(error))?;
        let sealed = Bytes::from(self.lane().seal(&key, &json)?);
        match self.store().put(&key, sealed, PutMode::Create) {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            other => other.with_context(|| format!("write `{key}`")),
        }
    }

    /// Deletes a floor that is done with.
    ///
    /// # Errors
    /// What the store says.
    pub fn delete_floor(&self, time: Time) -> Result<()> {
        self.remove(&self.floor_key(time)?)
    }

    /// Deletes WAL. Only `prune` does, of what nobody needs. One that is gone already is no failure.
    ///
    /// # Errors
    /// What the store says.
    pub fn delete(&self, object: WalObject) -> Result<()> {
        self.remove(&self.place().key(object)?)
    }

    fn remove(&self, key: &Key) -> Result<()> {
        match self.store().delete(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("delete `{key}`")),
        }
    }
}
