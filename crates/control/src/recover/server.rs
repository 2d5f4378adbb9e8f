//! A restored database server: recovered to its target, asked, and stopped cleanly, so that its files can go on.

use crate::backup;
use crate::interrupt::Interrupt;
use crate::postgres::{self, Instance, Launch};
use crate::service::Supervisor;
use crate::timeline::Timeline;
use retoma_core::Result;
use retoma_core::drill::{CheckResult, StepName};
use retoma_core::manifest::{Component, Source};
use retoma_sources::postgres::{PostgresFacts, Recovery};
use std::path::Path;
use std::time::Duration;

/// How long replaying the WAL may take.
const REPLAY_LIMIT: Duration = Duration::from_hours(24);

pub(super) struct Server<'a> {
    pub(super) described: &'a Component,
    pub(super) facts: &'a PostgresFacts,
    /// The restored data directory.
    pub(super) data: &'a Path,
}

impl Server<'_> {
    /// Starts the server, waits until it has recovered, checks it and stops it. Afterwards the data directory is as after a
    /// clean shutdown, on a timeline of its own.
    ///
    /// # Errors
    /// `R0425` when it does not come up or does not stop; `Cancelled`. What is wrong with its data is in the results.
    pub(super) fn try_out(
        &self,
        supervisor: Option<&Supervisor>,
        timeline: &mut Timeline,
        interrupt: &Interrupt,
    ) -> Result<Vec<CheckResult>> {
        let Some(supervisor) = supervisor else {
            return Ok(vec![CheckResult::not_run("the server starts", &"nothing is to be started")]);
        };
        let name = Some(self.described.name.as_str());
        timeline.begin(StepName::Replay, name)?;
        let recovery = Recovery::default();
        let launch = Launch {
            supervisor,
            data: self.data,
            facts: self.facts,
            recovery: &recovery,
            keep: true,
            limit: REPLAY_LIMIT,
        };
        let instance = Instance::start(&launch, interrupt)?;
        timeline.begin(StepName::Check, name)?;
        let checks =
            postgres::check(&instance, self.facts, &self.database(), &self.described.checks, interrupt)?;
        instance.stop()?;
        Ok(checks)
    }

    /// The database that the user's queries are for.
    fn database(&self) -> String {
        let Source::Postgres { url } = &self.described.source else { return String::new() };
        // On another machine its secret may be out of reach.
        backup::server_address(url)
            .map_or_else(|_| "postgres".to_owned(), |address| address.database().to_owned())
    }
}
