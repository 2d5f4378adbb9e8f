//! Why a drill is not green. Values, not sentences: [`crate::render`] puts them into words, in each language.

use super::Seconds;
use crate::error::{Code, codes};
use serde::{Deserialize, Serialize};

/// One reason against a green verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The drill ended with an error before it had its result.
    Failed {
        /// The error's code.
        code: String,
        /// The error's text.
        message: String,
    },
    /// No control was run that feeds something broken.
    NoNegativeControl,
    /// No control was run that feeds something sound.
    NoPositiveControl,
    /// A negative control names no code that it expects, or a positive one names one.
    ControlMalformed {
        /// The control's name.
        control: String,
    },
    /// The verifier accepted something broken.
    ControlAccepted {
        /// The control's name.
        control: String,
        /// The code that had to come.
        expected_code: String,
    },
    /// The verifier refused something broken, for another reason than the one that it had to find.
    ControlOtherCode {
        /// The control's name.
        control: String,
        /// The code that had to come.
        expected_code: String,
        /// The code that came.
        found_code: String,
    },
    /// The verifier refused something sound.
    ControlRefused {
        /// The control's name.
        control: String,
        /// The code that came.
        found_code: String,
    },
    /// A control says about itself that it went as expected, and its codes say otherwise, or the other way round.
    ControlMisjudged {
        /// The control's name.
        control: String,
    },
    /// The drill had nothing to bring back.
    NothingRequired,
    /// A component had to come back and has no result.
    ComponentMissing {
        /// The component's name.
        component: String,
    },
    /// A component has two results, so that one could hide the other.
    ComponentTwice {
        /// The component's name.
        component: String,
    },
    /// Something that must be measured was not.
    NoEvidence {
        /// The component's name; absent for the whole service.
        component: Option<String>,
        /// What is missing.
        evidence: Evidence,
    },
    /// The component came back too late.
    RtoMissed {
        /// The component's name.
        component: String,
        /// The promise.
        objective_seconds: Seconds,
        /// The fact.
        measured_seconds: Seconds,
    },
    /// Too much work was lost, or could have been.
    RpoMissed {
        /// The component's name.
        component: String,
        /// The promise.
        objective_seconds: Seconds,
        /// The larger of the counted loss and the worst case.
        measured_seconds: Seconds,
        /// Which of the two it is.
        basis: RpoBasis,
    },
    /// A check ran and found something else than expected.
    CheckFailed {
        /// The component's name.
        component: String,
        /// The check's name.
        check: String,
    },
    /// A check was planned and did not run.
    CheckNotRun {
        /// The component's name.
        component: String,
        /// The check's name.
        check: String,
    },
    /// The component is empty after the recovery, and was not before or must never be.
    EmptyBytes {
        /// The component's name.
        component: String,
        /// Its size before the disaster.
        before: u64,
    },
    /// The component has no rows after the recovery, and had some.
    EmptyRows {
        /// The component's name.
        component: String,
        /// Its rows before the disaster.
        before: u64,
    },
    /// Two numbers of the component cannot both be true.
    Contradiction {
        /// The component's name.
        component: String,
        /// Which ones.
        what: Contradiction,
    },
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// No step of the recovery was timed.
    Waterfall,
    /// No check ran.
    Checks,
    /// The RTO was not measured: the component did not come back.
    Rto,
    /// No marker was written, or none could be counted.
    Markers,
    /// The worst case was not measured.
    RpoWorstCase,
    /// The rows after the recovery were not counted, and those before were.
    Rows,
    /// The snapshot that the data came from is not known.
    Snapshot,
}

/// What the larger RPO is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpoBasis {
    /// Counted from the markers of this drill.
    Counted,
    /// The worst case: interval + capture + upload.
    WorstCase,
}

/// Two numbers that cannot both be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contradiction {
    /// The component came back after the last step of the waterfall.
    RtoBeyondWaterfall,
    /// More markers were lost than written.
    MarkersLostBeyondWritten,
}

impl Reason {
    /// The code that `docs/errors.md` explains.
    pub fn code(&self) -> Code {
        match self {
            // A text that is no code of ours comes from a file that somebody wrote.
            Self::Failed { code, .. } => codes::find(code).unwrap_or(codes::DRILL_RESULT_MALFORMED),
            Self::NoNegativeControl | Self::NoPositiveControl => codes::NO_CONTROLS,
            Self::ControlMalformed { .. }
            | Self::ControlAccepted { .. }
            | Self::ControlOtherCode { .. }
            | Self::ControlRefused { .. }
            | Self::ControlMisjudged { .. } => codes::CONTROL_WRONG,
            Self::NothingRequired
            | Self::ComponentMissing { .. }
            | Self::NoEvidence { .. }
            | Self::CheckNotRun { .. } => codes::NO_EVIDENCE,
            Self::ComponentTwice { .. } | Self::Contradiction { .. } => codes::EVIDENCE_CONTRADICTS,
            Self::RtoMissed { .. } => codes::RTO_MISSED,
            Self::RpoMissed { .. } => codes::RPO_MISSED,
            Self::CheckFailed { .. } => codes::CHECK_FAILED,
            Self::EmptyBytes { .. } | Self::EmptyRows { .. } => codes::EMPTY_DATA,
        }
    }

    /// Whether it says that the verifier is broken, and not that the recovery was.
    pub fn is_about_verifier(&self) -> bool {
        !matches!(self, Self::Failed { .. })
            && matches!(self.code(), codes::NO_CONTROLS | codes::CONTROL_WRONG)
    }
}
