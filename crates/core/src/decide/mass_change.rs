//! Whether too much of a component changed from one backup to the next, as when somebody encrypts or deletes it.
//! `docs/mass-change.md` says what the counts are and why the limits are what they are.
//!
//! More change never finds less: every count is compared with a limit that does not depend on it.

use crate::units::{ByteSize, counted};
use serde::Serialize;
use std::fmt;

/// Less than this never looks like encryption, however small the tree.
const MIN_ENCRYPTED_BYTES: u64 = 1 << 20;
/// Bytes that are gone count when so large a part of [`Limits::min_files`] is gone.
const FILES_FOR_BYTES: u64 = 10;

/// From which shares on a change is a finding. A share of 0 turns its finding off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files that there must have been before changed and gone files are looked at.
    pub min_files: u64,
    /// Percent of the files before whose contents changed.
    pub changed_percent: u64,
    /// Percent of the files before, or of their bytes, that are gone.
    pub gone_percent: u64,
    /// Percent of all bytes before that were redundant and became dense.
    pub encrypted_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_files: 100, changed_percent: 50, gone_percent: 50, encrypted_percent: 20 }
    }
}

/// What a backup counted beside its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Files of the parent.
    pub files_before: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Those of them that have other contents now.
    pub files_changed: u64,
    /// Those of them that are not there now.
    pub files_gone: u64,
    /// Their bytes.
    pub bytes_gone: u64,
    /// Redundant bytes that went, in files that changed or are gone.
    pub redundant_gone_bytes: u64,
    /// Dense bytes that came, in files that changed or are new.
    pub dense_new_bytes: u64,
}

impl Counts {
    /// Bytes that were redundant and became dense, as far as the sums can tell.
    pub fn encrypted_bytes(&self) -> u64 {
        self.redundant_gone_bytes.min(self.dense_new_bytes)
    }
}

/// What looks like mass change, with its numbers. `Display` gives the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Many files have other contents.
    Changed {
        /// So many.
        files: u64,
        /// Of so many.
        of_files: u64,
    },
    /// Many files, or bytes, are gone.
    Gone {
        /// So many files.
        files: u64,
        /// Of so many.
        of_files: u64,
        /// So many bytes.
        bytes: u64,
        /// Of so many.
        of_bytes: u64,
    },
    /// Much that could be compressed no longer can be.
    Encrypted {
        /// So many bytes.
        bytes: u64,
        /// Of so many.
        of_bytes: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { files, of_files } => {
                write!(f, "{files} of {} have other contents", counted(*of_files, "file", "files"))
            }
            Self::Gone { files, of_files, bytes, of_bytes } => write!(
                f,
                "{files} of {} are gone, {} of {}",
                counted(*of_files, "file", "files"),
                ByteSize(*bytes),
                ByteSize(*of_bytes)
            ),
            Self::Encrypted { bytes, of_bytes } => write!(
                f,
                "{} of {} could be compressed and no longer can be, as if they had been encrypted",
                ByteSize(*bytes),
                ByteSize(*of_bytes)
            ),
        }
    }
}

/// What looks like mass change; nothing on usual days.
pub fn findings(counts: &Counts, limits: &Limits) -> Vec<Finding> {
    let Counts { files_before: of_files, bytes_before: of_bytes, .. } = *counts;
    let is_large = of_files >= limits.min_files;
    let mut found = Vec::new();
    if is_large && reaches(counts.files_changed, of_files, limits.changed_percent) {
        found.push(Finding::Changed { files: counts.files_changed, of_files });
    }
    // One large file that goes is a usual day.
    let many_gone = counts.files_gone.saturating_mul(FILES_FOR_BYTES) >= limits.min_files;
    let bytes_gone = many_gone && reaches(counts.bytes_gone, of_bytes, limits.gone_percent);
    if is_large && (bytes_gone || reaches(counts.files_gone, of_files, limits.gone_percent)) {
        found.push(Finding::Gone { files: counts.files_gone, of_files, bytes: counts.bytes_gone, of_bytes });
    }
    let encrypted = counts.encrypted_bytes();
    if encrypted >= MIN_ENCRYPTED_BYTES && reaches(encrypted, of_bytes, limits.encrypted_percent) {
        found.push(Finding::Encrypted { bytes: encrypted, of_bytes });
    }
    found
}

/// Whether `part` is at least so many percent of `whole`, and something. Never when that is 0 percent.
fn reaches(part: u64, whole: u64, percent: u64) -> bool {
    percent > 0 && part > 0 && u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    /// A tree of 200 files, 10 MiB, two thirds of which are redundant.
    const TREE: Counts = Counts {
        files_before: 200,
        bytes_before: 10 * MIB,
        files_changed: 0,
        files_gone: 0,
        bytes_gone: 0,
        redundant_gone_bytes: 0,
        dense_new_bytes: 0,
    };

    fn names(counts: &Counts, limits: &Limits) -> Vec<&'static str> {
        let name = |finding: &Finding| match finding {
            Finding::Changed { .. } => "changed",
            Finding::Gone { .. } => "gone",
            Finding::Encrypted { .. } => "encrypted",
        };
        findings(counts, limits).iter().map(name).collect()
    }

    fn usual(counts: Counts) -> Vec<&'static str> {
        names(&counts, &Limits::default())
    }

    #[test]
    fn usual_days_find_nothing() {
        let days = [
            TREE,
            Counts::default(),
            // The first backup has no files before it; all is new.
            Counts { dense_new_bytes: 500 * MIB, ..Counts::default() },
            Counts { files_changed: 99, files_gone: 99, bytes_gone: 5 * MIB - 1, ..TREE },
            // Pictures come, and nothing goes.
            Counts { dense_new_bytes: 500 * MIB, ..TREE },
            // A log is compressed: much goes, little comes.
            Counts { redundant_gone_bytes: 6 * MIB, dense_new_bytes: MIB, files_gone: 1, ..TREE },
            // One large file is rotated.
            Counts { files_gone: 1, bytes_gone: 9 * MIB, ..TREE },
        ];
        for day in days {
            assert_eq!(usual(day), Vec::<&str>::new(), "{day:?}");
        }
    }

    #[test]
    fn each_limit_is_where_it_says() {
        assert_eq!(usual(Counts { files_changed: 100, ..TREE }), ["changed"]);
        assert_eq!(usual(Counts { files_gone: 100, ..TREE }), ["gone"]);
        assert_eq!(usual(Counts { files_gone: 10, bytes_gone: 5 * MIB, ..TREE }), ["gone"]);
        assert_eq!(usual(Counts { files_gone: 9, bytes_gone: 5 * MIB, ..TREE }), Vec::<&str>::new());
        let encrypted = Counts { redundant_gone_bytes: 2 * MIB, dense_new_bytes: 2 * MIB, ..TREE };
        assert_eq!(usual(encrypted), ["encrypted"]);
        let less = Counts { dense_new_bytes: 2 * MIB - 1, ..encrypted };
        assert_eq!(usual(less), Vec::<&str>::new());
        // All at once, each said once.
        let all = Counts { files_changed: 150, files_gone: 50, bytes_gone: 5 * MIB, ..encrypted };
        assert_eq!(usual(all), ["changed", "gone", "encrypted"]);
    }

    #[test]
    fn small_trees_are_only_looked_at_for_encryption() {
        let small = Counts { files_before: 99, files_changed: 99, ..TREE };
        assert_eq!(usual(small), Vec::<&str>::new());
        let database = Counts {
            files_before: 2,
            redundant_gone_bytes: 6 * MIB,
            dense_new_bytes: 7 * MIB,
            files_changed: 2,
            ..TREE
        };
        assert_eq!(usual(database), ["encrypted"]);
        let tiny =
            Counts { bytes_before: MIB, redundant_gone_bytes: MIB - 1, dense_new_bytes: MIB - 1, ..database };
        assert_eq!(usual(tiny), Vec::<&str>::new());
    }

    #[test]
    fn a_tree_that_was_dense_before_is_not_found_encrypted() {
        let pictures = Counts { files_changed: 10, dense_new_bytes: 10 * MIB, ..TREE };
        assert_eq!(usual(pictures), Vec::<&str>::new());
    }

    #[test]
    fn zero_percent_turns_a_finding_off() {
        let all = Counts {
            files_changed: 200,
            files_gone: 200,
            bytes_gone: 10 * MIB,
            redundant_gone_bytes: 10 * MIB,
            dense_new_bytes: 10 * MIB,
            ..TREE
        };
        let usual = Limits::default();
        assert_eq!(names(&all, &Limits { changed_percent: 0, ..usual }), ["gone", "encrypted"]);
        assert_eq!(names(&all, &Limits { gone_percent: 0, ..usual }), ["changed", "encrypted"]);
        assert_eq!(names(&all, &Limits { encrypted_percent: 0, ..usual }), ["changed", "gone"]);
    }

    #[test]
    fn a_finding_says_its_numbers() {
        let all = Counts {
            files_changed: 150,
            files_gone: 120,
            bytes_gone: 5 * MIB,
            redundant_gone_bytes: 4 * MIB,
            dense_new_bytes: 6 * MIB,
            ..TREE
        };
        let words: Vec<String> = findings(&all, &Limits::default()).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "150 of 200 files have other contents",
                "120 of 200 files are gone, 5.0 MiB of 10.0 MiB",
                "4.0 MiB of 10.0 MiB could be compressed and no longer can be, as if they had been encrypted",
            ]
        );
    }

    fn any_counts() -> impl Strategy<Value = Counts> {
        let amount = || prop_oneof![0u64..400, 0u64..(64 << 20), Just(u64::MAX)];
        prop::array::uniform7(amount()).prop_map(|[files, bytes, changed, gone, gone_bytes, went, came]| {
            Counts {
                files_before: files,
                bytes_before: bytes,
                files_changed: changed,
                files_gone: gone,
                bytes_gone: gone_bytes,
                redundant_gone_bytes: went,
                dense_new_bytes: came,
            }
        })
    }

    proptest! {
        #[test]
        fn more_change_never_finds_less(
            counts in any_counts(),
            more in prop::array::uniform5(prop_oneof![Just(0u64), 0u64..300, 0u64..(32 << 20)]),
            limits in (0u64..300, 0u64..101, 0u64..101, 0u64..101),
        ) {
            let (min_files, changed_percent, gone_percent, encrypted_percent) = limits;
            let limits = Limits { min_files, changed_percent, gone_percent, encrypted_percent };
            let larger = Counts {
                files_changed: counts.files_changed.saturating_add(more[0]),
                files_gone: counts.files_gone.saturating_add(more[1]),
                bytes_gone: counts.bytes_gone.saturating_add(more[2]),
                redundant_gone_bytes: counts.redundant_gone_bytes.saturating_add(more[3]),
                dense_new_bytes: counts.dense_new_bytes.saturating_add(more[4]),
                ..counts
            };
            let found = names(&larger, &limits);
            for name in names(&counts, &limits) {
                prop_assert!(found.contains(&name), "{name} is found in {counts:?} and not in {larger:?}");
            }
        }
    }
}
