//! Which controls of well-known frameworks a record bears on. Data for auditors; a mapping, never a claim of
//! conformity: a control also asks for people, decisions and documents that no program sees.
//!
//! Sources: AICPA Trust Services Criteria (2017, points of focus 2022), A1.2 and A1.3; ISO 22301:2019, 8.5; NIST SP
//! 800-34 Rev. 1 with the controls of SP 800-53 Rev. 5; Regulation (EU) 2022/2554 (DORA), Articles 11 and 12.

use super::record::{Outcome, Record, What};
use jiff::Timestamp;
use serde::Serialize;

/// A control, and the records that bear on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Where it is from.
    pub framework: &'static str,
    /// Its number there.
    pub id: &'static str,
    /// What it is about, in our words.
    pub title: &'static str,
    /// The values of a record's `what` that bear on it.
    #[serde(skip)]
    pub what: &'static [What],
}

/// All controls that are mapped.
pub const CONTROLS: &[Control] = &[
    Control {
        framework: "SOC 2",
        id: "A1.2",
        title: "data backup processes and recovery infrastructure are operated and monitored",
        what: &[
            What::Backup,
            What::Verify,
            What::Restore,
            What::Recover,
            What::Failover,
            What::Forget,
            What::Prune,
        ],
    },
    Control {
        framework: "SOC 2",
        id: "A1.3",
        title: "recovery plan procedures are tested",
        what: &[What::Drill],
    },
    Control { framework: "ISO 22301:2019", id: "8.5", title: "exercise programme", what: &[What::Drill] },
    Control {
        framework: "NIST SP 800-34 Rev. 1",
        id: "CP-4",
        title: "contingency plan testing",
        what: &[What::Drill],
    },
    Control {
        framework: "NIST SP 800-34 Rev. 1",
        id: "CP-9",
        title: "system backup",
        what: &[What::Backup, What::Verify, What::Forget, What::Prune, What::Key],
    },
    Control {
        framework: "NIST SP 800-34 Rev. 1",
        id: "CP-10",
        title: "system recovery and reconstitution",
        what: &[What::Drill, What::Restore, What::Recover, What::Failover],
    },
    Control {
        framework: "DORA",
        id: "Art. 11",
        title: "response and recovery, with tests of the plans",
        what: &[What::Drill, What::Recover, What::Failover],
    },
    Control {
        framework: "DORA",
        id: "Art. 12",
        title: "backup, restoration and recovery, with their tests",
        what: &[What::Backup, What::Verify, What::Drill, What::Restore, What::Recover],
    },
];

/// What a record says about a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bearing {
    /// It was done and passed.
    Supports,
    /// It was done and did not pass: an exception that an auditor asks about. It still shows that it was done.
    Deviates,
}

/// The controls that a record of `what` and `outcome` bears on, and how.
pub fn controls(what: &What, outcome: &Outcome) -> impl Iterator<Item = (&'static Control, Bearing)> {
    let bearing = if *outcome == Outcome::Passed { Bearing::Supports } else { Bearing::Deviates };
    CONTROLS.iter().filter(move |control| control.what.contains(what)).map(move |control| (control, bearing))
}

/// How many records bear on one control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// The control.
    #[serde(flatten)]
    pub control: Control,
    /// Records that support it.
    pub supporting: u64,
    /// Records of what did not pass.
    pub deviating: u64,
    /// The latest time in a record that supports it.
    pub last_supported: Option<Timestamp>,
}

/// All mapped controls with what `records` say about them; also those about which they say nothing.
pub fn coverage<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Coverage> {
    let nothing =
        |control: &Control| Coverage { control: *control, supporting: 0, deviating: 0, last_supported: None };
    let mut found: Vec<Coverage> = CONTROLS.iter().map(nothing).collect();
    for record in records {
        let payload = record.payload();
        for (control, bearing) in controls(&payload.what, &payload.outcome) {
            for coverage in found.iter_mut().filter(|coverage| coverage.control == *control) {
                match bearing {
                    Bearing::Supports => {
                        coverage.supporting += 1;
                        coverage.last_supported = coverage.last_supported.max(Some(payload.time));
                    }
                    Bearing::Deviates => coverage.deviating += 1,
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(what: &What) -> Vec<&'static str> {
        controls(what, &Outcome::Passed).map(|(control, _)| control.id).collect()
    }

    #[test]
    fn what_was_done_bears_on_the_controls_that_ask_for_it() {
        assert_eq!(ids(&What::Drill), ["A1.3", "8.5", "CP-4", "CP-10", "Art. 11", "Art. 12"]);
        assert_eq!(ids(&What::Backup), ["A1.2", "CP-9", "Art. 12"]);
        assert_eq!(ids(&What::Key), ["CP-9"]);
        assert!(ids(&What::Other("teleport".to_owned())).is_empty());
    }

    #[test]
    fn only_what_passed_supports() {
        for outcome in [Outcome::Failed, Outcome::Incomplete, Outcome::Other("half".to_owned())] {
            assert!(controls(&What::Drill, &outcome).all(|(_, bearing)| bearing == Bearing::Deviates));
        }
        assert!(controls(&What::Drill, &Outcome::Passed).all(|(_, bearing)| bearing == Bearing::Supports));
    }

    #[test]
    fn every_control_is_listed_once() {
        let mut seen: Vec<_> = CONTROLS.iter().map(|control| (control.framework, control.id)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), CONTROLS.len());
    }
}
