//! Checks of what was restored. Each comparison is made in exactly one place: hashes in [`hashes`], rows in
//! [`retoma_sources::sqlite::check`], keys in [`retoma_sources::redis::check`], answers in [`crate::probe::unfulfilled`], and the end of a command here.

pub mod hashes;

use crate::interrupt::Interrupt;
use crate::probe;
use crate::service::{Ended, PROBE_LIMIT, run_to_end};
use retoma_core::drill::{CheckOutcome, CheckResult};
use retoma_core::manifest::{self, Component, HttpCheck, Service, Source};
use retoma_core::units::span;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::index::Index;
use retoma_repo::{Repository, SnapshotId};
use retoma_sources::redis;
use retoma_sources::sqlite::{self, CaptureFacts};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long one of the user's commands may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(5);

/// A check that ran.
pub fn ran(name: &str, passed: bool, expected: &str, found: &str) -> CheckResult {
    CheckResult::ran(name, passed, expected, found)
}

/// A check that could not be run.
pub fn not_run(name: &str, why: &dyn std::fmt::Display) -> CheckResult {
    CheckResult::not_run(name, why)
}

/// The first check that did not pass, as an error: whoever must not go on without them calls this.
///
/// # Errors
/// `Corrupt` with `R0703`, naming the check.
pub fn require_all(component: &str, checks: &[CheckResult]) -> Result<()> {
    let Some(check) = checks.iter().find(|check| check.outcome != CheckOutcome::Passed) else {
        return Ok(());
    };
    let differs = match (&check.expected, &check.found) {
        (Some(expected), Some(found)) => format!(": expected `{expected}`, found `{found}`"),
        _ if check.detail.is_empty() => String::new(),
        _ => format!(": {}", check.detail),
    };
    let message = format!("check `{}` of component `{component}` did not pass{differs}", check.name);
    Err(Error::new(ErrorKind::Corrupt, codes::CHECK_FAILED, message)
        .with_hint("look at the restored copy; another snapshot may be sound (`retoma snapshots`)"))
}

/// A restored copy that is to be checked before anybody uses it.
#[derive(Debug)]
pub struct Copy<'a> {
    /// Where it comes from.
    pub repository: &'a Repository,
    /// The repository's index.
    pub index: &'a Index,
    /// The snapshot.
    pub snapshot: (SnapshotId, &'a Snapshot),
    /// The component's path in the snapshot.
    pub path: &'a [u8],
    /// Where the copy is.
    pub place: &'a Path,
}

/// What the checks of a copy found.
#[derive(Debug)]
pub struct Checked {
    /// Each check.
    pub checks: Vec<CheckResult>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Rows of a database, keys of a Redis server.
    pub rows: Option<u64>,
    /// What the backup had counted, for a database.
    pub facts: Option<CaptureFacts>,
}

/// Checks a copy: every file against the snapshot, read again from disk; a database by SQLite, its rows against what
/// the backup counted; a data set of Redis in a server of its own; then the user's queries and commands.
///
/// # Errors
/// The repository or the disk can't be read; `Cancelled`. What is wrong with the copy is in the result.
pub fn component(copy: &Copy<'_>, described: &Component, interrupt: &Interrupt) -> Result<Checked> {
    let hashed = hashes::compare(copy, interrupt)?;
    let mut checks = vec![hashed.check];
    let (mut rows, mut facts) = (None, None);
    if matches!(described.source, Source::Sqlite { .. }) {
        facts = sqlite::facts_of(copy.repository, copy.index, &copy.snapshot.1.tree)?;
        let report =
            sqlite::check(copy.place, facts.as_ref(), &described.checks, sqlite::Options::default())?;
        rows = Some(report.tables.values().sum());
        checks.extend(report.checks);
    }
    if matches!(described.source, Source::Redis { .. }) {
        let known = redis::facts_of(copy.repository, copy.index, &copy.snapshot.1.tree)?;
        let is_stopped = || interrupt.is_set();
        let options = redis::CheckOptions { is_stopped: &is_stopped, ..redis::CheckOptions::default() };
        let report = redis::check(copy.place, known.as_ref(), &options)?;
        rows = Some(report.databases.values().sum());
        checks.extend(report.checks);
    }
    let dir = if copy.place.is_dir() { copy.place } else { copy.place.parent().unwrap_or(copy.place) };
    for check in &described.checks {
        if let manifest::Check::Command(words) = check {
            checks.push(command(words, dir, interrupt)?);
        }
    }
    Ok(Checked { checks, bytes: hashed.bytes, rows, facts })
}

/// Checks the files of a copy alone, as [`component`] does.
///
/// # Errors
/// As [`component`].
pub fn files(copy: &Copy<'_>, interrupt: &Interrupt) -> Result<CheckResult> {
    hashes::compare(copy, interrupt).map(|hashed| hashed.check)
}

/// Runs a user's command in `dir`; it passes when it ends with 0.
fn command(words: &manifest::Command, dir: &Path, interrupt: &Interrupt) -> Result<CheckResult> {
    let name = format!("command `{}`", words.program);
    let silent = [Stdio::null(), Stdio::null()];
    let found = match run_to_end(words, dir, silent, COMMAND_LIMIT, interrupt)? {
        Ended::NotStarted(error) => return Ok(not_run(&name, &error)),
        Ended::With(status) => status.code().map_or_else(|| "a signal".to_owned(), |code| code.to_string()),
        Ended::Killed => format!("nothing in {}", span(COMMAND_LIMIT)),
    };
    Ok(ran(&name, found == "0", "0", &found))
}

/// What is asked of the running service: its health, then the user's checks.
pub fn of_service(service: &Service) -> Vec<HttpCheck> {
    let health = service.health.iter().map(|url| HttpCheck {
        url: url.clone(),
        expect_status: 200,
        expect_body: None,
    });
    health.chain(service.checks.iter().cloned()).collect()
}

/// Asks the running service everything once more, from outside.
pub fn service(service: &Service) -> Vec<CheckResult> {
    let ask = |check: HttpCheck| {
        // A deep check may take a while; what must be fast has been asked until it was.
        let limit = PROBE_LIMIT.max(Duration::from_secs(service.ready_seconds));
        let seen = probe::get(&check.url, limit);
        let why = probe::unfulfilled(&check, &seen);
        let expected = format!("status {}", check.expect_status);
        ran(&format!("GET {}", check.url), why.is_none(), &expected, &why.unwrap_or(expected.clone()))
    };
    of_service(service).into_iter().map(ask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tests::{answer, with_body};

    #[test]
    fn a_command_passes_when_it_ends_with_0() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str| {
            let words = manifest::Command {
                program: "sh".to_owned(),
                arguments: vec!["-c".to_owned(), script.to_owned()],
            };
            command(&words, folder.path(), &Interrupt::default()).unwrap()
        };
        std::fs::write(folder.path().join("x"), "").unwrap();
        assert_eq!(run("test -e x").outcome, CheckOutcome::Passed);
        let failed = run("exit 7");
        assert_eq!((failed.outcome, failed.found.as_deref()), (CheckOutcome::Failed, Some("7")));
        assert_eq!(run("kill -9 $$").found.as_deref(), Some("a signal"));
    }

    #[test]
    fn a_command_that_is_stopped_leaves_nothing_running() {
        let folder = tempfile::tempdir().unwrap();
        let words = manifest::Command {
            program: "sh".to_owned(),
            // What it starts would wait for ever: the shell holds the other end of its pipe.
            arguments: ["-c", "mkfifo p; cat p & echo $! > pid.new; mv pid.new pid; wait"]
                .map(Into::into)
                .to_vec(),
        };
        let interrupt = Interrupt::default();
        let started = std::thread::scope(|scope| {
            let running = scope.spawn(|| command(&words, folder.path(), &interrupt));
            let started = retoma_testkit::wait_for(|| {
                let pid = std::fs::read_to_string(folder.path().join("pid")).ok()?.trim().parse().ok()?;
                crate::service::Identity::of(pid)
            });
            interrupt.set();
            assert_eq!(running.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
            started
        });
        retoma_testkit::wait_for(|| (!started.runs()).then_some(()));
    }

    #[test]
    fn whatever_did_not_pass_is_an_error() {
        assert!(require_all("c", &[ran("a", true, "1", "1")]).is_ok());
        for check in [ran("b", false, "1", "2"), not_run("b", &"no time")] {
            let error = require_all("c", &[ran("a", true, "1", "1"), check]).unwrap_err();
            assert_eq!(error.code(), codes::CHECK_FAILED);
            assert!(error.message().contains("check `b` of component `c`"), "{error}");
        }
    }

    #[test]
    fn the_running_service_is_asked_for_its_health_first_and_each_answer_is_a_check() {
        let (health, requests) = answer(vec![with_body("200 OK", ""), with_body("201 Made", "")]);
        let (deep, _more) = answer(vec![with_body("200 OK", "green"), with_body("200 OK", "red")]);
        let check =
            HttpCheck { url: deep.clone(), expect_status: 200, expect_body: Some("green".to_owned()) };
        let described = Service {
            name: "s".to_owned(),
            health: Some(health.clone()),
            start: None,
            stop: None,
            ready_seconds: 20,
            checks: vec![check.clone()],
        };
        let asked = of_service(&described);
        assert_eq!(asked[0], HttpCheck { url: health.clone(), expect_status: 200, expect_body: None });
        assert_eq!(asked[1..], [check]);
        let look = || service(&described);
        let found: Vec<_> = look().into_iter().map(|it| (it.name, it.outcome, it.found.unwrap())).collect();
        let passed = |url: &str| (format!("GET {url}"), CheckOutcome::Passed, "status 200".to_owned());
        assert_eq!(found, [passed(&health), passed(&deep)]);
        let found: Vec<_> = look().into_iter().map(|it| (it.outcome, it.found.unwrap())).collect();
        let why = ["status 201 instead of status 200", "the body does not contain `green`"];
        assert_eq!(found, why.map(|why| (CheckOutcome::Failed, why.to_owned())));
        assert_eq!(requests.iter().count(), 2);
    }
}
