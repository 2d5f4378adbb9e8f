//! What a server says of its `archive_command`: `pg_stat_archiver`, and the settings around it.

use crate::postgres::kept::Kept;
use retoma_core::decide::archiving::{ArchiverState, Writing};
use retoma_core::manifest::Component;
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_sources::postgres::wire::Connection;

/// A name that is no segment's (a history's) is none here; of a backup's history file, the segment is the first part.
const QUESTION: &str = "SELECT current_setting('archive_mode') <> 'off' AS is_on, \
    (SELECT setting FROM pg_settings WHERE name = 'archive_timeout')::bigint AS timeout, \
    (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size')::bigint AS segment_bytes, \
    coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL) AS is_failing, \
    substring(last_archived_wal FROM '^[0-9A-F]{24}') AS archived, \
    coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, '0/0') AS position, \
    (SELECT system_identifier FROM pg_control_system()) AS server, \
    CASE WHEN pg_is_in_recovery() THEN NULL \
         ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline \
    FROM pg_stat_archiver";

/// Looks at a server's archiver, on a connection that is kept.
#[derive(Debug)]
pub struct ArchiverWatch(Kept);

impl ArchiverWatch {
    /// At the server of a component.
    ///
    /// # Errors
    /// `R0002` for a component that is no PostgreSQL server; what its address says.
    pub fn new(component: &Component) -> Result<Self> {
        Kept::of(component).map(Self)
    }

    /// Looks now.
    ///
    /// # Errors
    /// What connecting to the server and asking it says.
    pub fn look(&mut self) -> Result<ArchiverState> {
        self.0.ask(ask).context("look at the server's archiver")
    }
}

fn ask(connection: &mut Connection) -> Result<ArchiverState> {
    let rows = connection.query(QUESTION)?;
    let row = rows.one()?;
    let size = SegmentSize::new(row.value("segment_bytes")?).map_err(|error| {
        Error::new(ErrorKind::Unsupported, codes::WAL_MALFORMED, format!("the server's segments: {error}"))
    })?;
    let archived: Option<SegmentName> = row.optional("archived")?;
    let timeline = row.optional("timeline")?.and_then(TimelineId::new);
    let system_identifier = row.value("server")?;
    Ok(ArchiverState {
        is_on: row.boolean("is_on")?,
        timeout_seconds: row.value("timeout")?,
        is_failing: row.boolean("is_failing")?,
        archived_segment: archived.and_then(|name| name.number(size)),
        writing: timeline.map(|timeline| Writing { system_identifier, timeline }),
        current_segment: size.number_of(row.value::<Lsn>("position")?),
    })
}
