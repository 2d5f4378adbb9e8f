//! Commands of the replication protocol: who the server is, its slots, its timelines.

use super::connection::Connection;
use super::error::{answer, sqlstate};
use super::{limits, quote_identifier};
use bytes::Bytes;
use retoma_core::postgres::{Lsn, TimelineHistory, TimelineId};
use retoma_core::{ErrorKind, Result, ResultExt};

/// Which cluster a server is, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The number that `initdb` gave to the cluster; its copies have the same.
    pub system_id: u64,
    /// The timeline that it writes, or replays, now.
    pub timeline: TimelineId,
    /// Up to where its WAL is durable there.
    pub flushed: Lsn,
}

/// A timeline's history file, as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// Its name, such as `00000002.history`.
    pub name: String,
    /// Its bytes.
    pub contents: Bytes,
}

impl HistoryFile {
    /// What it says about `timeline`.
    ///
    /// # Errors
    /// `R0417` when it is no history file.
    pub fn parse(&self, timeline: TimelineId) -> Result<TimelineHistory> {
        let text = String::from_utf8_lossy(&self.contents);
        TimelineHistory::parse(timeline, &text).map_err(|error| answer(format!("`{}`: {error}", self.name)))
    }
}

/// How a physical replication slot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// It stays until it is dropped, and keeps WAL from now on.
    Permanent,
    /// It goes with this session, and keeps WAL from now on.
    Temporary,
}

/// A physical replication slot as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysicalSlot {
    /// From where on it keeps WAL; `None` when it keeps none yet.
    pub restart: Option<Lsn>,
    /// The timeline of that position.
    pub restart_timeline: Option<TimelineId>,
}

impl Connection {
    /// Which cluster this is.
    pub fn identify_system(&mut self) -> Result<SystemIdentity> {
        self.need_replication()?;
        let rows = self.query("IDENTIFY_SYSTEM").context("ask the server who it is")?;
        let row = rows.one()?;
        Ok(SystemIdentity {
            system_id: row.value("systemid")?,
            timeline: row.value("timeline")?,
            flushed: row.lsn("xlogpos")?,
        })
    }

    /// The history file of a timeline; the first one has none.
    ///
    /// # Errors
    /// `R0413` of kind `NotFound` when the server does not have it.
    pub fn timeline_history(&mut self, timeline: TimelineId) -> Result<HistoryFile> {
        self.need_replication()?;
        let rows =
            self.query(&format!("TIMELINE_HISTORY {timeline}")).context("ask for a timeline's history")?;
        let row = rows.one()?;
        let name = row.text("filename")?;
        if name != timeline.history_file_name() {
            return Err(answer(format!("the history of timeline {timeline} has another name")));
        }
        let contents = row.bytes("content")?.ok_or_else(|| answer("a history without contents"))?;
        if contents.len() > limits::HISTORY_FILE_BYTES {
            return Err(answer("a history file that is too long"));
        }
        Ok(HistoryFile { name: name.to_owned(), contents: Bytes::copy_from_slice(contents) })
    }

    /// Makes a physical replication slot that keeps WAL from this moment on.
    ///
    /// # Errors
    /// `R0413` of kind `Conflict` when there is one of this name; `R0418` when the server has no slot left.
    pub fn create_physical_slot(&mut self, name: &str, kind: SlotKind) -> Result<()> {
        self.need_replication()?;
        let temporary = if kind == SlotKind::Temporary { "TEMPORARY " } else { "" };
        let name = quote_identifier(name);
        self.query(&format!("CREATE_REPLICATION_SLOT {name} {temporary}PHYSICAL RESERVE_WAL"))
            .context("create a replication slot")?;
        Ok(())
    }

    /// Drops a replication slot that nobody uses.
    ///
    /// # Errors
    /// `R0413`: of kind `NotFound` when there is none, `Conflict` when somebody reads from it.
    pub fn drop_slot(&mut self, name: &str) -> Result<()> {
        self.need_replication()?;
        let name = quote_identifier(name);
        self.execute(&format!("DROP_REPLICATION_SLOT {name}")).context("drop a replication slot")?;
        Ok(())
    }

    /// Looks at a physical slot; `None` when there is none of this name. Servers from version 15 on can tell.
    ///
    /// # Errors
    /// `R0417` of kind `Unsupported` for older servers, where `pg_replication_slots` tells it in SQL.
    pub fn read_physical_slot(&mut self, name: &str) -> Result<Option<PhysicalSlot>> {
        self.need_replication()?;
        if self.server_version_num()? < 150_000 {
            return Err(answer("servers before version 15 do not tell about a slot in this way"));
        }
        let name = quote_identifier(name);
        let rows =
            self.query(&format!("READ_REPLICATION_SLOT {name}")).context("look at a replication slot")?;
        let row = rows.one()?;
        if row.get("slot_type")?.is_none() {
            return Ok(None);
        }
        Ok(Some(PhysicalSlot {
            restart: row.optional("restart_lsn")?,
            restart_timeline: row.optional("restart_tli")?,
        }))
    }

    /// Makes sure that a permanent slot is there. Gives whether it was made now.
    pub fn ensure_physical_slot(&mut self, name: &str) -> Result<bool> {
        match self.create_physical_slot(name, SlotKind::Permanent) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict && sqlstate(&error) == Some("42710") => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
