//! A connection for short questions that come again and again: kept between them, and made anew when it broke.

use crate::backup::server_address;
use retoma_core::manifest::{Component, Source};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use std::time::Duration;

/// How long connecting and a question may take, where nobody says otherwise.
const SILENCE: Duration = Duration::from_secs(10);

/// The connection, when there is one.
#[derive(Debug)]
pub(crate) struct Kept {
    connection: Option<Connection>,
    address: Address,
    timeouts: Timeouts,
}

impl Kept {
    /// To the server at `address`; nothing is connected yet.
    pub(crate) fn to(address: Address, timeouts: Timeouts) -> Self {
        Self { connection: None, address, timeouts }
    }

    /// To the server of a component.
    ///
    /// # Errors
    /// `R0002` for a component that is no PostgreSQL server; what its address says.
    pub(crate) fn of(component: &Component) -> Result<Self> {
        let Source::Postgres { url } = &component.source else {
            let message = format!("component `{}` is of kind `{}`", component.name, component.kind());
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message));
        };
        let timeouts = Timeouts { connect: Some(SILENCE), silence: SILENCE };
        Ok(Self::to(server_address(url)?, timeouts))
    }

    /// Asks. A connection on which a question failed is not kept.
    ///
    /// # Errors
    /// What connecting to the server and asking it says.
    pub(crate) fn ask<T>(&mut self, question: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut own = match self.connection.take() {
            Some(own) if !own.is_broken() => own,
            _ => Connection::connect(&self.address, Mode::Sql, self.timeouts)?,
        };
        let answer = question(&mut own)?;
        self.connection = Some(own);
        Ok(answer)
    }
}
