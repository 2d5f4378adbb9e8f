//! The replication slot: its name, what it keeps, and how it is given up.

use super::worker::{News, Stop};
use crate::postgres::kept::Kept;
use retoma_core::postgres::Lsn;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _};
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts, quote_literal};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// How often the slot is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a question about the slot may take; connecting, as long as its address says.
const TIMEOUTS: Timeouts = Timeouts { connect: None, silence: Duration::from_secs(20) };
/// How long a slot that is to be dropped may still be in use.
const IN_USE: Duration = Duration::from_secs(10);
/// The longest name (`NAMEDATALEN` in `pg_config_manual.h`, less one).
const NAME_BYTES: usize = 63;

/// The name of a component's slot and of its stream in `synchronous_standby_names`: letters, digits and `_`.
pub fn slot_name(component: &str) -> String {
    let clean = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let mut name: String = "retoma_".chars().chain(component.chars().map(clean)).collect();
    if name.len() > NAME_BYTES {
        name.truncate(NAME_BYTES - 9);
        name.push('_');
        for byte in Sha256::digest(component).iter().take(4) {
            // Writing into a string cannot fail.
            write!(name, "{byte:02x}").ok();
        }
    }
    name
}

/// What a slot is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotUse {
    /// There is none.
    Missing,
    /// The server has removed WAL that it should keep: nobody can use it any more.
    Lost,
    /// It keeps WAL, and nobody reads.
    Idle,
    /// Somebody reads from it.
    Active,
}

/// A slot as the server shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// What it is good for now.
    pub usage: SlotUse,
    /// From where on it keeps WAL.
    pub restart: Option<Lsn>,
    /// How far the server's WAL goes beyond that, in bytes.
    pub retained_bytes: u64,
    /// Whether the server is a standby.
    pub is_standby: bool,
}

/// Looks at a slot.
///
/// # Errors
/// As [`Connection::query`].
pub(super) fn look(connection: &mut Connection, name: &str) -> Result<SlotState> {
    let rows = connection.query(&format!(
        "SELECT pg_is_in_recovery() AS standby, s.slot_name IS NOT NULL AS exists, coalesce(s.active, false) AS active, \
         coalesce(s.wal_status = 'lost', false) AS lost, s.restart_lsn AS restart, \
         coalesce(greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() \
         ELSE pg_current_wal_lsn() END, s.restart_lsn), 0), 0)::bigint AS retained \
         FROM (SELECT 1) AS one LEFT JOIN pg_replication_slots s ON s.slot_name = {}",
        quote_literal(name)
    ));
    let rows = rows.context("look at the replication slot")?;
    let row = rows.one()?;
    let usage = match (row.boolean("exists")?, row.boolean("active")?, row.boolean("lost")?) {
        (false, _, _) => SlotUse::Missing,
        (_, true, _) => SlotUse::Active,
        (_, _, true) => SlotUse::Lost,
        _ => SlotUse::Idle,
    };
    Ok(SlotState {
        usage,
        restart: row.optional("restart")?,
        retained_bytes: row.value("retained")?,
        is_standby: row.boolean("standby")?,
    })
}

/// A connection that asks about slots.
///
/// # Errors
/// As [`Connection::connect`].
pub(super) fn connect(address: &Address) -> Result<Connection> {
    Connection::connect(address, Mode::Sql, TIMEOUTS)
}

/// Drops the slot, which nobody of ours uses any more; the server may take a moment to see that.
///
/// # Errors
/// As [`Connection::query`]; of kind `Conflict` when somebody else still reads from it.
pub(super) fn give_up(address: &Address, name: &str) -> Result<()> {
    let mut connection = connect(address)?;
    let deadline = Instant::now() + IN_USE;
    let name = quote_literal(name);
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {name}"
    );
    loop {
        match connection.query(&sql) {
            Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            done => return done.map(drop).context("drop the replication slot"),
        }
    }
}

/// Looks at the slot every few seconds, on a connection of its own, until it is stopped.
pub(super) fn watch(address: Address, name: String, news: SyncSender<News>, stop: Stop) -> Result<()> {
    let work = move || {
        let mut kept = Kept::to(address, TIMEOUTS);
        while !stop.wait(LOOK) {
            let found = kept.ask(|connection| look(connection, &name));
            let told = news.try_send(found.map_or_else(News::NoServer, News::Slot));
            if matches!(told, Err(TrySendError::Disconnected(_))) {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("wal-slot".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| Error::io("a thread that looks at the slot", error))
}

/// Looks at a slot from outside of a stream, on a connection that is kept.
#[derive(Debug)]
pub struct SlotWatch {
    kept: Kept,
    name: String,
}

impl SlotWatch {
    /// At the slot of this job.
    pub fn new(job: &super::StreamJob) -> Self {
        Self { kept: Kept::to(job.address.clone(), TIMEOUTS), name: job.slot.clone() }
    }

    /// Looks now.
    ///
    /// # Errors
    /// What connecting to the server and asking it says.
    pub fn look(&mut self) -> Result<SlotState> {
        self.kept.ask(|connection| look(connection, &self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slot_is_named_after_its_component() {
        assert_eq!(slot_name("db"), "retoma_db");
        assert_eq!(slot_name("orders-db"), "retoma_orders_db");
        let (one, other) = (slot_name(&"a".repeat(63)), slot_name(&format!("{}b", "a".repeat(62))));
        assert!(one.len() == 63 && other.len() == 63 && one != other, "{one} {other}");
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_postgresql_takes(component in ".{0,80}") {
            let name = slot_name(&component);
            prop_assert!(name.len() <= NAME_BYTES);
            prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')));
        }
    }
}
