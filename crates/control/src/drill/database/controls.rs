//! Tests of the verifier with what only a server has: WAL, pages, and tables without rows.

use super::Scene;
use super::run::{flip_in_page, plan};
use super::tables;
use crate::check;
use crate::drill::Context;
use crate::drill::controls as general;
use crate::drill::copy::copy_repository;
use crate::drill::patient::address_of;
use crate::open::open_address;
use crate::postgres::{self, Instance, Serve};
use crate::watch::Note;
use retoma_core::decide::recovery::Goal;
use retoma_core::drill::ControlResult;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::SnapshotId;
use retoma_sources::postgres::PostgresFacts;
use retoma_sources::postgres::wire::Address;
use std::path::Path;
use std::time::Duration;

/// How long `pg_checksums` may take.
const CHECKSUMS_LIMIT: Duration = Duration::from_hours(12);
/// The table whose page is made bad.
const TABLE: &str = "public.retoma_control";

/// What controls of a server work with.
pub(super) struct Bench<'a> {
    pub(super) scene: &'a Scene,
    pub(super) serve: Serve<'a>,
    /// Of the snapshot that was recovered from.
    pub(super) facts: &'a PostgresFacts,
    pub(super) address: &'a Address,
    /// A segment behind the snapshot, and not the last one.
    pub(super) middle: &'a str,
    pub(super) context: &'a Context<'a>,
}

impl Bench<'_> {
    /// Runs all controls. The recovered server is spoilt by them, and stopped.
    ///
    /// # Errors
    /// A control could not be set up (not: it went wrong); `Cancelled`.
    pub(super) fn run(
        &self,
        server: Instance,
        snapshot: Option<SnapshotId>,
        not_proven: &mut Vec<String>,
    ) -> Result<Vec<ControlResult>> {
        let context = self.context;
        context.watch.note(&Note::Doing("test the verifier".to_owned()));
        let scratch = tempfile::Builder::new().prefix("controls-").tempdir_in(&self.scene.scratch);
        let scratch = scratch.map_err(|error| Error::io("the controls' folder", error))?;
        let component = self.scene.component()?;
        let snapshots: Vec<_> = snapshot.iter().map(|id| (component.name.clone(), *id)).collect();
        let bench = general::Bench {
            repository_dir: &self.scene.repository_dir,
            password: &self.scene.password,
            manifest: &self.scene.manifest,
            snapshots: &snapshots,
            scratch: scratch.path(),
        };
        let mut results = general::run(&bench, context.watch, context.interrupt)?;
        let mut add = |result: ControlResult| {
            context.watch.note(&Note::Control(result.clone()));
            results.push(result);
        };
        let whole = scratch.path().join("repository-wal");
        copy_repository(&self.scene.repository_dir, &whole)?;
        let is_gap = self.scenario_has_gap(&whole)?;
        if !is_gap {
            add(positive("whole WAL", &self.plan(&whole)));
            remove_segment(&whole, self.middle)?;
        }
        add(negative("missing segment of WAL", codes::WAL_MISSING, &self.plan(&whole)));
        add(negative("tables without rows", codes::CHECK_FAILED, &self.emptied(&server)));
        let page = self.page(server)?;
        if self.facts.server.data_checksums {
            add(positive("pages of the recovered server", &self.checksums(None)));
            flip_in_page(&self.scene.data.join(&page))?;
            add(negative("bad page", codes::POSTGRES_BAD_PAGE, &self.checksums(Some(&page))));
        } else {
            not_proven.push("That a bad page would be found: the server has no data checksums.".to_owned());
        }
        context.interrupt.check()?;
        Ok(results)
    }

    /// Whether the segment was removed already: then there is no whole WAL to begin with.
    fn scenario_has_gap(&self, repository: &Path) -> Result<bool> {
        Ok(objects_of(&repository.join("wal"), self.middle)?.is_empty())
    }

    fn plan(&self, repository: &Path) -> Result<()> {
        let opened = open_address(&address_of(repository)?, &self.scene.password, false)?;
        plan(self.scene, &opened.repository, Goal::default()).map(drop)
    }

    /// The recovered server without any row, looked at as after a recovery.
    fn emptied(&self, server: &Instance) -> Result<()> {
        tables::truncate_all(self.address, self.facts)?;
        let component = self.scene.component()?;
        let checks =
            postgres::check(server, self.facts, self.address.database(), &[], self.context.interrupt)?;
        check::require_all(&component.name, &checks)
    }

    /// Makes a table and stops the server cleanly. Gives the table's file, below the data directory.
    fn page(&self, server: Instance) -> Result<String> {
        let mut connection = tables::connect(self.address)?;
        connection.execute(&format!(
            "CREATE TABLE {TABLE} AS SELECT n, repeat('x', 1000) AS filling FROM generate_series(1, 100) AS n"
        ))?;
        let rows = connection.query(&format!("SELECT pg_relation_filepath('{TABLE}') AS path"))?;
        let path = rows.one()?.text("path")?.to_owned();
        drop(connection);
        server.stop().context("stop the recovered server")?;
        Ok(path)
    }

    /// Has PostgreSQL's own program look at all pages, or at those of one table.
    fn checksums(&self, file: Option<&str>) -> Result<()> {
        let mut options = vec!["--check"];
        if let Some(number) = file.and_then(|file| file.rsplit('/').next()) {
            options.extend(["--filenode", number]);
        }
        let ran =
            self.serve.run_offline("pg_checksums", &options, CHECKSUMS_LIMIT, self.context.interrupt)?;
        match ran {
            (0, _) => Ok(()),
            (_, said) => Err(Error::new(ErrorKind::Corrupt, codes::POSTGRES_BAD_PAGE, said)),
        }
    }
}

fn code_of(outcome: &Result<()>) -> Option<&'static str> {
    outcome.as_ref().err().map(|error| error.code().as_str())
}

fn detail(outcome: &Result<()>) -> String {
    outcome.as_ref().map_or_else(ToString::to_string, |()| "accepted".to_owned())
}

fn positive(name: &str, outcome: &Result<()>) -> ControlResult {
    ControlResult::positive(name, code_of(outcome), &detail(outcome))
}

fn negative(name: &str, expected: retoma_core::Code, outcome: &Result<()>) -> ControlResult {
    ControlResult::negative(name, expected.as_str(), code_of(outcome), &detail(outcome))
}

/// Removes a segment from the archive in a copy of a repository, whole or in parts.
///
/// # Errors
/// It is not there, or cannot be removed.
pub(super) fn remove_segment(repository: &Path, segment: &str) -> Result<()> {
    let objects = objects_of(&repository.join("wal"), segment)?;
    if objects.is_empty() {
        return Err(Error::internal(format!("`{segment}` is not in the archive")));
    }
    for object in objects {
        std::fs::remove_file(&object).map_err(|error| Error::io(object.display(), error))?;
    }
    Ok(())
}

/// The files of a segment below a folder.
fn objects_of(folder: &Path, segment: &str) -> Result<Vec<std::path::PathBuf>> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = waiting.pop() {
        let io = |error| Error::io(folder.display(), error);
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_dir() {
                waiting.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with(segment) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
