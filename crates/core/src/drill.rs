//! The result of a drill, as data: what was destroyed, what came back, how long it took and what was checked.
//!
//! The types are written as JSON with the schema [`SCHEMA`]; `docs/drill.md` describes each field. Invariants that
//! [`DrillReport::from_json`] checks again, since a file may have been edited: the steps of the waterfall touch each
//! other without gap or overlap and add up to the measured RTO, and a green verdict has no reason against it.
//!
//! Nothing here decides whether a drill passed (that is [`crate::decide::drill`]) or how it looks
//! ([`crate::render`]).

mod reason;
mod seconds;
mod waterfall;

pub use reason::{Contradiction, Evidence, Reason, RpoBasis};
pub use seconds::Seconds;
pub use waterfall::{Step, StepName, Waterfall, WaterfallRecorder};

use crate::error::{Error, ErrorKind, Result, codes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The value of the field `schema`.
pub const SCHEMA: &str = "retoma.drill/1";

/// Everything that one drill found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The drill's own id, which its evidence record carries too.
    pub drill: String,
    /// What was broken, for example `application-failure`.
    pub scenario: String,
    /// The service that had to come back.
    pub service: String,
    /// When the drill started, by the clock of the machine that ran it.
    pub started: Timestamp,
    /// What the drill ran with.
    pub environment: Environment,
    /// The command that repeats it.
    pub repeat: String,
    /// The components that had to come back. One of these without a result makes the drill red.
    pub required_components: Vec<String>,
    /// What came back.
    pub components: Vec<ComponentResult>,
    /// From the disaster to the first successful write from outside: the sum of the waterfall.
    pub rto_measured_seconds: Seconds,
    /// Where that time went.
    pub waterfall: Waterfall,
    /// Whether the verifier itself can be trusted.
    pub controls: Vec<ControlResult>,
    /// What follows from all of it.
    pub verdict: VerdictKind,
    /// Why it is not green; empty when it is.
    pub reasons: Vec<Reason>,
    /// Those of the manifest, where the scenario loses some of them; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryResult>,
    /// What ended it before it had its result; absent when nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What this drill leaves open, one sentence each.
    pub not_proven: Vec<String>,
}

/// The error that ended a drill early: what came back until then is in the report, and the verdict is never green.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its code, for example `R0204`.
    pub code: String,
    /// Its text, with what was being done.
    pub message: String,
    /// What to do next, where that is known.
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().to_string(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// What a drill ran with. A change of these makes its evidence stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the program.
    pub tool_version: String,
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest_hash: String,
    /// Id of the repository that the data came from.
    pub repository_id: String,
    /// Id of the key that opened it.
    pub key_id: String,
    /// Operating system and processor, for example `linux x86_64`.
    pub system: String,
    /// Processors that the drill could use.
    pub cpus: u32,
    /// Memory that the drill could use.
    pub memory_bytes: u64,
}

/// What became of a repository in a drill that loses some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryResult {
    /// Its name in the manifest.
    pub repository: String,
    /// Whether the disaster took it.
    pub lost: bool,
    /// Whether data came from it afterwards.
    pub read: bool,
}

/// What one component promised, and what the drill measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentResult {
    /// Its name in the manifest.
    pub component: String,
    /// What it is: `sqlite`, `files`.
    pub kind: String,
    /// The tier that its objectives come from.
    pub tier: String,
    /// How long it may be away.
    pub rto_objective_seconds: Seconds,
    /// How long it was away; absent when it did not come back.
    pub rto_measured_seconds: Option<Seconds>,
    /// How much of the latest work may be lost.
    pub rpo_objective_seconds: Seconds,
    /// How much was lost, counted from markers; absent when nothing could be counted.
    pub rpo_measured_seconds: Option<Seconds>,
    /// How much could have been lost at the worst moment: interval + capture + upload, as measured.
    pub rpo_worst_case_seconds: Option<Seconds>,
    /// Numbered writes that the service had acknowledged before the disaster.
    pub markers_written: u64,
    /// Those of them that were not there after the recovery.
    pub markers_lost: u64,
    /// Size before the disaster.
    pub bytes_before: u64,
    /// Size after the recovery.
    pub bytes: u64,
    /// Rows before the disaster, where the kind has rows.
    pub rows_before: Option<u64>,
    /// Rows after the recovery, where the kind has rows.
    pub rows: Option<u64>,
    /// The snapshot that it came from; absent when none was found.
    pub snapshot: Option<String>,
    /// What was looked at after the recovery.
    pub checks: Vec<CheckResult>,
}

/// One thing that was looked at after the recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// For example `row count` or `GET /healthz`.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// One sentence about it; may be empty.
    pub detail: String,
    /// What had to be found.
    pub expected: Option<String>,
    /// What was found.
    pub found: Option<String>,
}

impl CheckResult {
    /// A check that ran.
    pub fn ran(name: &str, passed: bool, expected: &str, found: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome: if passed { CheckOutcome::Passed } else { CheckOutcome::Failed },
            detail: String::new(),
            expected: Some(expected.to_owned()),
            found: Some(found.to_owned()),
        }
    }

    /// A check that could not be run.
    pub fn not_run(name: &str, why: &dyn std::fmt::Display) -> Self {
        Self {
            name: name.to_owned(),
            outcome: CheckOutcome::NotRun,
            detail: why.to_string(),
            expected: None,
            found: None,
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It ran, and found what it expected.
    Passed,
    /// It ran, and found something else.
    Failed,
    /// It did not run, so it says nothing.
    NotRun,
}

/// What a control feeds to the verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlKind {
    /// Something broken: it must be refused, with the code that the control names.
    Negative,
    /// Something sound: it must be accepted.
    Positive,
}

/// Whether a control went as it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlOutcome {
    /// The verifier did what it must.
    AsExpected,
    /// It did something else, so that none of its other answers count.
    Wrong,
}

/// One test of the verifier itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlResult {
    /// For example `flipped byte in a pack`.
    pub name: String,
    /// What was fed.
    pub kind: ControlKind,
    /// The error code that must come; none for a positive control.
    pub expected_code: Option<String>,
    /// The error code that came; none when the verifier accepted it.
    pub found_code: Option<String>,
    /// What follows: see [`ControlResult::judge`].
    pub outcome: ControlOutcome,
    /// One sentence about it; may be empty.
    pub detail: String,
}

impl ControlResult {
    /// The result of a negative control: `expected` is the code that it names, `found` the one that came, if any.
    pub fn negative(name: &str, expected: &str, found: Option<&str>, detail: &str) -> Self {
        Self::of(ControlKind::Negative, name, Some(expected), found, detail)
    }

    /// The result of a positive control: `found` is the code of the error that should not have come, if any.
    pub fn positive(name: &str, found: Option<&str>, detail: &str) -> Self {
        Self::of(ControlKind::Positive, name, None, found, detail)
    }

    fn of(kind: ControlKind, name: &str, expected: Option<&str>, found: Option<&str>, detail: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            expected_code: expected.map(str::to_owned),
            found_code: found.map(str::to_owned),
            outcome: Self::judge(kind, expected, found),
            detail: detail.to_owned(),
        }
    }

    /// The one rule for controls. A negative one must name a code, and that code must come; a positive one must name
    /// none, and none may come.
    pub fn judge(kind: ControlKind, expected: Option<&str>, found: Option<&str>) -> ControlOutcome {
        let as_expected = match kind {
            ControlKind::Negative => expected.is_some_and(|code| !code.is_empty()) && expected == found,
            ControlKind::Positive => expected.is_none() && found.is_none(),
        };
        if as_expected { ControlOutcome::AsExpected } else { ControlOutcome::Wrong }
    }
}

/// A verdict without its reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// Everything came back, was checked, and met its objectives; the verifier was shown to fail.
    Green,
    /// An objective or a check was missed, or evidence is missing.
    Red,
    /// A control went wrong: whatever else the drill says, it proves nothing.
    BrokenVerifier,
}

impl DrillReport {
    /// Writes the report as JSON, with line breaks, for people and programs.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Error::internal("a drill's result cannot be written as JSON").with_source(error))
    }

    /// Reads a report and checks what every report promises. Fields that are not known are ignored.
    ///
    /// # Errors
    /// `Unsupported` for another schema; `Corrupt` for text that is no report or contradicts itself.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let malformed = |error: serde_json::Error| {
            corrupt(format!("the drill's result cannot be read: {error}")).with_source(error)
        };
        let head: Head = serde_json::from_str(text).map_err(malformed)?;
        if head.schema != SCHEMA {
            return Err(Error::new(
                ErrorKind::Unsupported,
                codes::DRILL_RESULT_MALFORMED,
                format!("the drill's result has the schema `{}`, not `{SCHEMA}`", head.schema.escape_debug()),
            )
            .with_hint("read it with the version of the program that wrote it"));
        }
        let report: Self = serde_json::from_str(text).map_err(malformed)?;
        if report.rto_measured_seconds != report.waterfall.total() {
            return Err(corrupt(format!(
                "the steps of the waterfall take `{}` s, and the measured RTO is `{}` s",
                report.waterfall.total(),
                report.rto_measured_seconds
            )));
        }
        if (report.verdict == VerdictKind::Green) != report.reasons.is_empty() {
            return Err(corrupt("the drill's verdict and its reasons contradict each other".to_owned()));
        }
        Ok(report)
    }

    /// From the disaster until the service was back; absent when the drill ended before that.
    pub fn back_after(&self) -> Option<Seconds> {
        let is_back = self.components.iter().any(|component| component.rto_measured_seconds.is_some());
        (self.failure.is_none() || is_back).then_some(self.rto_measured_seconds)
    }

    /// The components that had to come back and have no result.
    pub fn missing_components(&self) -> impl Iterator<Item = &str> {
        let found = |name: &str| self.components.iter().any(|result| result.component == name);
        self.required_components.iter().map(String::as_str).filter(move |name| !found(name))
    }
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, codes::DRILL_RESULT_MALFORMED, message)
        .with_hint("run the drill again, or check the signed record of it")
}

#[cfg(test)]
mod tests;
