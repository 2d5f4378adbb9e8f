//! Which tablespaces a server has. One that was made behind a backup is in the way of every recovery from it: see `guard`.

use crate::postgres::kept::Kept;
use retoma_core::manifest::Component;
use retoma_core::{Result, ResultExt as _};
use retoma_sources::postgres::wire::Connection;
use std::collections::BTreeSet;

/// Those that every server has are no folders of their own.
const QUESTION: &str = "SELECT oid FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')";

/// Looks at a server's tablespaces, on a connection that is kept.
#[derive(Debug)]
pub struct TablespaceWatch(Kept);

impl TablespaceWatch {
    /// At the server of a component.
    ///
    /// # Errors
    /// `R0002` for a component that is no PostgreSQL server; what its address says.
    pub fn new(component: &Component) -> Result<Self> {
        Kept::of(component).map(Self)
    }

    /// Looks now; gives their numbers (`oid`).
    ///
    /// # Errors
    /// What connecting to the server and asking it says.
    pub fn look(&mut self) -> Result<BTreeSet<u32>> {
        let ask = |connection: &mut Connection| {
            connection.query(QUESTION)?.iter().map(|row| row.value("oid")).collect()
        };
        self.0.ask(ask).context("look at the server's tablespaces")
    }
}
