//! A server that was dumped: a new cluster of its version, roles and all databases loaded into it, asked, and stopped cleanly.
//!
//! The restored folder of the component gets a folder `data` beside the dumps. The cluster is a new one, with an identity of its
//! own: nothing of the original's settings, slots or WAL is in it.

use crate::durable;
use crate::interrupt::Interrupt;
use crate::postgres::{self, Cluster, Instance};
use crate::service::Supervisor;
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::drill::CheckResult;
use retoma_core::manifest::{BackupWay, Component, ComponentKind};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts};
use retoma_sources::postgres::{DATABASES, DumpFacts, GLOBALS, quote_identifier};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cluster's folder beside the dumps.
pub(super) const DATA: &str = "data";
/// How long loading one database may take.
const LOAD_LIMIT: Duration = Duration::from_hours(24);
/// How long loading roles may take.
const ROLES_LIMIT: Duration = Duration::from_mins(10);
/// So many connections load one database at once.
const JOBS: usize = 4;

/// Whether the component is backed up by dumps.
pub(super) fn is_dumped(component: &Component) -> bool {
    component.kind() == ComponentKind::Postgres && component.backup == BackupWay::Logical
}

/// Dumps are as of one moment.
///
/// # Errors
/// `R0002` for a goal that only WAL leads to.
pub(super) fn check_goal(goal: &Goal, name: &str) -> Result<()> {
    let is_a_moment = matches!(goal.target, Target::Latest | Target::Time(_));
    if is_a_moment && goal.inclusive && goal.timeline.is_none() {
        return Ok(());
    }
    let message = format!("`{name}` is backed up by dumps, which lead to no point in time");
    Err(Error::new(ErrorKind::Unsupported, codes::USAGE, message).with_hint(
        "leave the target out, or name a time with `--at`: the newest dump that is not after it comes back",
    ))
}

/// Makes a cluster in the restored folder `place`, loads everything, checks it and stops it.
///
/// # Errors
/// `R0424` without the programs; `R0425` when the cluster cannot be made, started or stopped; `R0427` when something cannot be
/// loaded; `Cancelled`. What is wrong with its data is in the results.
pub(super) fn load(
    place: &Path,
    facts: &DumpFacts,
    described: &Component,
    supervisor: &Supervisor,
    database: &str,
    interrupt: &Interrupt,
) -> Result<Vec<CheckResult>> {
    let data = place.join(DATA);
    let server = facts.as_server(&data.display().to_string());
    // What a new cluster has must be made as the original's `template1` was.
    let template = facts.databases.iter().find(|it| it.database.name == "template1");
    let template = template.ok_or_else(|| malformed("has no `template1`"))?;
    let cluster = Cluster {
        supervisor,
        data: &data,
        facts: &server,
        encoding: &template.database.encoding,
        collate: &template.database.collate,
        ctype: &template.database.ctype,
    };
    // The folder above them is about to be opened for the server's user to pass.
    private(&place.join(GLOBALS), durable::PRIVATE)?;
    private(&place.join(DATABASES), 0o700)?;
    let folder = cluster.initialise(interrupt)?;
    let instance = cluster.serve(folder.path(), interrupt)?;
    roles(&instance, place, facts, interrupt).context("load the roles")?;
    for dumped in &facts.databases {
        let Some(folder) = &dumped.folder else { continue };
        let name = &dumped.database.name;
        interrupt.check()?;
        let dump = place.join(DATABASES).join(folder);
        restore(&instance, name, &dump, interrupt).with_context(|| format!("load the database `{name}`"))?;
    }
    let checks = postgres::check(&instance, &server, database, &described.checks, interrupt)?;
    instance.stop()?;
    Ok(checks)
}

fn malformed(what: &str) -> Error {
    let message = format!("what was recorded of the dumped server {what}");
    Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
}

/// Loads the roles; the one that `initdb` made is there already.
fn roles(instance: &Instance, place: &Path, facts: &DumpFacts, interrupt: &Interrupt) -> Result<()> {
    let path = place.join(GLOBALS);
    let sql = std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?;
    let sql = String::from_utf8(sql).map_err(|_| {
        let message = format!("`{GLOBALS}` is not UTF-8");
        Error::new(ErrorKind::Unsupported, codes::POSTGRES_DUMP, message)
            .with_hint("load the dumps by hand: see `postgres.md`, *By dumps*")
    })?;
    interrupt.check()?;
    let timeouts = Timeouts { silence: ROLES_LIMIT, ..Timeouts::default() };
    // Not by `psql`: a line such as `\!` in what a server or a repository says would run a program as ourselves.
    let mut connection = Connection::connect(&instance.address("template1"), Mode::Sql, timeouts)?;
    connection.execute(&statements(&sql, &facts.superuser)).map(drop).map_err(|error| {
        let message = format!("the roles cannot be made: {}", error.message());
        Error::new(ErrorKind::Corrupt, codes::POSTGRES_DUMP, message).with_source(error)
    })
}

/// The statements of the script, without the one that makes the superuser and without what only `psql` understands.
fn statements(sql: &str, superuser: &str) -> String {
    let made = [format!("CREATE ROLE {superuser};"), format!("CREATE ROLE {};", quote_identifier(superuser))];
    let is_left_out = |line: &&str| {
        let line = line.trim_end();
        let token = line.strip_prefix("\\restrict ").or_else(|| line.strip_prefix("\\unrestrict "));
        made.iter().any(|made| made == line)
            || token.is_some_and(|token| token.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    sql.split_inclusive('\n').filter(|line| !is_left_out(line)).collect()
}

/// Takes the rights of others away.
fn private(path: &Path, mode: u32) -> Result<()> {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(|error| Error::io(path.display(), error))
}

/// Loads one database. `template1` is there and stays; all others are made as they were, `postgres` anew.
fn restore(instance: &Instance, name: &str, dump: &Path, interrupt: &Interrupt) -> Result<()> {
    let mut options = vec![
        "--exit-on-error".to_owned(),
        "--no-tablespaces".to_owned(),
        "--no-password".to_owned(),
        format!("--jobs={JOBS}"),
    ];
    if name == "template1" {
        options.push("--dbname=template1".to_owned());
    } else {
        options.extend(["--create", "--dbname=template1"].map(str::to_owned));
        if name == "postgres" {
            options.extend(["--clean", "--if-exists"].map(str::to_owned));
        }
    }
    options.push(dump.display().to_string());
    run(instance, "pg_restore", &options, LOAD_LIMIT, interrupt)
}

fn run(
    instance: &Instance,
    program: &str,
    options: &[String],
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<()> {
    let (status, said) = instance.run_as_us(program, options, limit, interrupt)?;
    if status == 0 && !said.contains("error:") && !said.contains("ERROR:") {
        return Ok(());
    }
    let message = format!("`{program}` ended with status {status}: {said}");
    Err(Error::new(ErrorKind::Corrupt, codes::POSTGRES_DUMP, message)
        .with_hint("see whether an extension, a locale or a library that the original has is missing here"))
}

/// Where the cluster of a dumped component is, below where its dumps are.
pub(super) fn data_in(place: &Path) -> PathBuf {
    place.join(DATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_role_that_is_there_already_is_not_made() {
        let sql = "CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\nCREATE ROLE postgres2;\n\\x\n";
        let left = statements(sql, "postgres");
        assert_eq!(left, "ALTER ROLE postgres WITH SUPERUSER;\nCREATE ROLE postgres2;\n\\x\n");
        let odd = statements("CREATE ROLE \"Root User\";\nSELECT 1;", "Root User");
        assert_eq!(odd, "SELECT 1;");
        assert_eq!(statements("\\restrict aB3\nSELECT 1;\n\\unrestrict aB3\n", "x"), "SELECT 1;\n");
    }

    #[test]
    fn only_moments_are_goals() {
        let at = Goal { target: Target::Time(jiff::Timestamp::UNIX_EPOCH), ..Goal::default() };
        assert!(check_goal(&Goal::default(), "db").is_ok() && check_goal(&at, "db").is_ok());
        for target in
            [Target::Lsn(retoma_core::postgres::Lsn(1)), Target::Transaction(7), Target::Name("x".into())]
        {
            let goal = Goal { target, ..Goal::default() };
            assert_eq!(check_goal(&goal, "db").unwrap_err().code(), codes::USAGE);
        }
        assert!(check_goal(&Goal { inclusive: false, ..at }, "db").is_err());
    }
}
