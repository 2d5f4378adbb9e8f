//! Checks of a restored copy: its checksum, its keys in a server of our own, and samples of them one by one.

use super::connection::Connection;
use super::facts::{DUMP_NAME, RedisFacts};
use super::rdb::value::elements;
use super::rdb::{Keys, Passed, Rdb, Sample, Sampling};
use super::resp::Value;
use super::scratch::Scratch;
use retoma_core::drill::{CheckOutcome, CheckResult};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So many keys of each type are compared one by one.
const SAMPLES_PER_TYPE: usize = 32;
/// How much of the copy is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;
/// What a `DUMP` has behind the value: version and checksum, in bytes.
const DUMP_FOOTER_BYTES: usize = 10;
/// So many differences are shown.
const NAMED: usize = 3;

/// How a copy is checked.
pub struct CheckOptions<'a> {
    /// `redis-server`: a name that is looked up in `PATH`, or a path.
    pub program: PathBuf,
    /// How long the server may take to load.
    pub load_limit: Duration,
    /// Asked while it loads, and between keys: whether to stop.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckOptions").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Default for CheckOptions<'_> {
    fn default() -> Self {
        Self { program: "redis-server".into(), load_limit: Duration::from_hours(1), is_stopped: &|| false }
    }
}

/// What the checks of one copy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Each check, in this order: the data set's checksum, loading it, the keys of each database, the sampled keys.
    pub checks: Vec<CheckResult>,
    /// Keys by database, as the server counts them; empty when it could not be asked.
    pub databases: BTreeMap<u64, u64>,
}

impl CheckReport {
    /// Whether every check ran and passed.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.outcome == CheckOutcome::Passed)
    }
}

/// Checks the copy in the folder `place` (or the file itself) without changing it, in a server that is started for it.
///
/// Keys that expire meanwhile are allowed for: their times are in the data set.
///
/// # Errors
/// `R0401` when there is no file or it may not be read, `R0439` with `NotFound` when the program is missing; `Cancelled`.
/// What is wrong *in* the copy is in the report.
pub fn check(place: &Path, expected: Option<&RedisFacts>, options: &CheckOptions<'_>) -> Result<CheckReport> {
    let file = if place.is_dir() { place.join(DUMP_NAME) } else { place.to_owned() };
    let folder = file.parent().unwrap_or(place);
    let before = now_ms();
    let highest = expected.and_then(|facts| facts.databases.keys().max().copied()).unwrap_or(0);
    let databases = configured_databases(expected).max(highest + 1);
    let started = Scratch::start(&options.program, folder, databases, options.load_limit, options.is_stopped);
    let (mut scratch, loaded) = match started {
        Ok(scratch) => (Some(scratch), result("load in a server", CheckOutcome::Passed, String::new())),
        Err(error) if error.code() == codes::REDIS_SCRATCH && error.kind() == ErrorKind::Corrupt => {
            (None, result("load in a server", CheckOutcome::Failed, error.to_string()))
        }
        Err(error) => return Err(error),
    };
    let counted = scratch.as_mut().map(|scratch| sizes(scratch.connection(), databases)).transpose()?;
    let after = now_ms();
    let (whole, passed) = match pass(&file, [before, after], options.is_stopped)? {
        Ok(passed) => (checksum(expected, &passed), Some(passed)),
        Err(error) => {
            let failed = result("checksum of the data set", CheckOutcome::Failed, error.to_string());
            (CheckResult { expected: Some("right".into()), ..failed }, None)
        }
    };
    let mut checks = vec![whole, loaded];
    checks.extend(compare_keys(expected, passed.as_ref(), counted.as_ref()));
    let name = "sampled keys";
    checks.push(match (&mut scratch, &passed) {
        (Some(scratch), Some(Passed { samples, counts: Ok(_), .. })) => {
            compare_samples(name, scratch.connection(), samples, options.is_stopped)?
        }
        (_, Some(Passed { counts: Err(why), .. })) => result(name, CheckOutcome::NotRun, why.clone()),
        _ => result(name, CheckOutcome::NotRun, "the copy is not sound".into()),
    });
    Ok(CheckReport { checks, databases: counted.unwrap_or_default() })
}

/// How many databases the server had; 16 where it did not say.
fn configured_databases(facts: Option<&RedisFacts>) -> u64 {
    let settings = facts.and_then(|facts| facts.server.settings.as_ref());
    settings.and_then(|settings| settings.get("databases")?.parse().ok()).unwrap_or(16)
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Reads the copy. The outer error is about the disk, the inner one about the contents.
fn pass(file: &Path, times: [u64; 2], is_stopped: &dyn Fn() -> bool) -> Result<Result<Passed>> {
    let mut rdb = Rdb::asking(times, Sampling::new(SAMPLES_PER_TYPE));
    let failed = |error| crate::files::node::unreadable(file, error);
    let mut input = File::open(file).map_err(failed)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if is_stopped() {
            return Err(stopped());
        }
        match input.read(&mut buffer) {
            Ok(0) => return Ok(rdb.finish()),
            Ok(count) => rdb.pass(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the check was stopped")
}

fn result(name: &str, outcome: CheckOutcome, detail: String) -> CheckResult {
    CheckResult { name: name.to_owned(), outcome, detail, expected: None, found: None }
}

fn found(name: &str, passed: bool, expected: String, found: String) -> CheckResult {
    let outcome = if passed { CheckOutcome::Passed } else { CheckOutcome::Failed };
    CheckResult { expected: Some(expected), found: Some(found), ..result(name, outcome, String::new()) }
}

fn checksum(expected: Option<&RedisFacts>, passed: &Passed) -> CheckResult {
    let shown = |has: bool, bytes: u64| format!("{} over {bytes} bytes", if has { "right" } else { "none" });
    let now = shown(passed.has_checksum, passed.bytes);
    let was = expected.map_or_else(|| now.clone(), |facts| shown(facts.has_checksum, facts.bytes));
    found("checksum of the data set", was == now, was, now)
}

/// The number of keys in each database that has any.
fn sizes(connection: &mut Connection, databases: u64) -> Result<BTreeMap<u64, u64>> {
    let mut sizes = BTreeMap::new();
    for number in 0..databases {
        connection.call(&[b"SELECT", number.to_string().as_bytes()])?;
        let size = u64::try_from(connection.number(&[b"DBSIZE"])?).unwrap_or(0);
        if size > 0 {
            sizes.insert(number, size);
        }
    }
    Ok(sizes)
}

/// Database by database; one that is too many is as wrong as one that is missing.
fn compare_keys(
    expected: Option<&RedisFacts>,
    passed: Option<&Passed>,
    counted: Option<&BTreeMap<u64, u64>>,
) -> Vec<CheckResult> {
    let none = BTreeMap::new();
    let in_file = passed.and_then(|passed| passed.counts.as_ref().ok()).map(|counts| &counts.databases);
    let facts: Option<BTreeMap<u64, u64>> = expected
        .filter(|facts| facts.not_counted.is_none())
        .map(|facts| facts.databases.iter().map(|(number, keys)| (*number, keys.keys)).collect());
    let name = |number: u64| format!("keys of database `{number}`");
    let (Some(counted), Some(in_file)) = (counted, in_file) else {
        let why = "the copy is not sound, or its keys cannot be counted".to_owned();
        let numbers = facts.as_ref().unwrap_or(&none).keys();
        let all: Vec<_> =
            numbers.map(|number| result(&name(*number), CheckOutcome::NotRun, why.clone())).collect();
        return if all.is_empty() { vec![result("keys", CheckOutcome::NotRun, why)] } else { all };
    };
    let known = facts.as_ref();
    let numbers: BTreeSet<u64> =
        in_file.keys().chain(counted.keys()).chain(known.unwrap_or(&none).keys()).copied().collect();
    let compare = |number: u64| {
        let file = in_file.get(&number).copied().unwrap_or_default();
        let Keys { keys, expired: [before, after], .. } = file;
        let captured = known.map_or(keys, |facts| facts.get(&number).copied().unwrap_or(0));
        let now = counted.get(&number).copied().unwrap_or(0);
        // What had expired before the server began is not loaded; what expires since then may be gone already.
        let range = captured.saturating_sub(after)..=captured.saturating_sub(before);
        let passed = captured == keys && range.contains(&now);
        let shown = match (before, after) {
            (0, 0) => captured.to_string(),
            _ => format!(
                "{} to {}, since {before} to {after} of {captured} have expired",
                range.start(),
                range.end()
            ),
        };
        found(&name(number), passed, shown, now.to_string())
    };
    let checks: Vec<_> = numbers.into_iter().map(compare).collect();
    if checks.is_empty() { vec![found("keys", true, "0".into(), "0".into())] } else { checks }
}

/// How one key compares.
enum Compared {
    Equal,
    /// It is the same by type and expiry; its value was not compared.
    ByType,
    Expired,
    Differs(&'static str),
}

fn compare_samples(
    name: &str,
    connection: &mut Connection,
    samples: &[Sample],
    is_stopped: &dyn Fn() -> bool,
) -> Result<CheckResult> {
    let (mut equal, mut by_type, mut expired, mut differences) = (0u64, 0u64, 0u64, Vec::new());
    for sample in samples {
        if is_stopped() {
            return Err(stopped());
        }
        match compare_sample(connection, sample)? {
            Compared::Equal => equal += 1,
            Compared::ByType => by_type += 1,
            Compared::Expired => expired += 1,
            Compared::Differs(what) => {
                let key = super::error::shown(&sample.key);
                differences.push(format!("`{key}` of database `{}`: {what}", sample.database));
            }
        }
    }
    let same = equal + by_type;
    let wanted = samples.len() as u64 - expired;
    let mut check = found(name, differences.is_empty(), format!("{wanted} equal"), format!("{same} equal"));
    let more = differences.len().saturating_sub(NAMED);
    differences.truncate(NAMED);
    if more > 0 {
        differences.push(format!("{more} more"));
    }
    if by_type > 0 {
        differences.push(format!("{by_type} of them compared by type and expiry alone"));
    }
    check.detail = differences.join(", ");
    Ok(check)
}

fn compare_sample(connection: &mut Connection, sample: &Sample) -> Result<Compared> {
    connection.call(&[b"SELECT", sample.database.to_string().as_bytes()])?;
    let kind = connection.bytes(&[b"TYPE", &sample.key])?;
    let expires = match connection.call(&[b"PEXPIRETIME", &sample.key]) {
        Ok(Value::Integer(time)) => Some(u64::try_from(time).ok()),
        // Servers before 7.0 do not tell the time, only how long it takes.
        Ok(_) => None,
        Err(error) if error.code() == codes::REDIS_REFUSED => None,
        Err(error) => return Err(error),
    };
    let dump = match &sample.value {
        Some(_) => connection.call(&[b"DUMP", &sample.key])?,
        None => Value::Null,
    };
    if sample.expires_ms.is_some_and(|time| time <= now_ms()) {
        return Ok(Compared::Expired);
    }
    if kind == b"none" {
        return Ok(Compared::Differs("it is missing"));
    }
    if sample.kind != "module" && kind != sample.kind.as_bytes() {
        return Ok(Compared::Differs("it has another type"));
    }
    if expires.is_some_and(|expires| expires != sample.expires_ms) {
        return Ok(Compared::Differs("it expires at another time"));
    }
    let (Some(value), Some(dump)) = (&sample.value, dump.bytes()) else { return Ok(Compared::ByType) };
    let Some((&encoding, dump)) = dump.split_first() else {
        return Ok(Compared::Differs("its value is empty"));
    };
    let Some(now) = dump.len().checked_sub(DUMP_FOOTER_BYTES).map(|length| &dump[..length]) else {
        return Ok(Compared::Differs("its value is cut short"));
    };
    if encoding == sample.encoding && now == value {
        return Ok(Compared::Equal);
    }
    Ok(match (elements(sample.encoding, value), elements(encoding, now)) {
        (Some(was), Some(is)) if was == is => Compared::Equal,
        (Some(_), Some(_)) => Compared::Differs("its value is another"),
        _ => Compared::ByType,
    })
}

#[cfg(test)]
mod tests;
