//! How far a restored server replays its WAL, as settings.

use jiff::Timestamp;
use retoma_core::postgres::{Lsn, TimelineId};

/// Where recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// At the end of the WAL.
    #[default]
    End,
    /// As soon as the data are consistent: where the backup ended.
    Consistent,
    /// At the last commit before a time.
    Time(Timestamp),
    /// At a position in the WAL.
    Lsn(Lsn),
    /// At the commit of a transaction.
    Transaction(u64),
    /// At a point that `pg_create_restore_point` named.
    Name(String),
}

/// Along which history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Along {
    /// The timeline of the backup.
    #[default]
    Backup,
    /// This timeline, which must come after it.
    Timeline(TimelineId),
}

/// What a restored server does before it takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where it ends.
    pub target: Target,
    /// Whether what is exactly at the target is replayed too.
    pub inclusive: bool,
    /// Along which history. Never what PostgreSQL takes for the latest: it need not lead there.
    pub along: Along,
    /// Fetches a segment `%f` to `%p`; ends with 1 when there is none.
    pub restore_command: String,
}

impl Default for Recovery {
    /// To the end of the WAL that is in the backup.
    fn default() -> Self {
        Self {
            target: Target::End,
            inclusive: true,
            along: Along::Backup,
            restore_command: "false".to_owned(),
        }
    }
}

impl Recovery {
    /// All settings of recovery, also those that only undo what the backed-up configuration says.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let timeline = match self.along {
            Along::Backup => "current".to_owned(),
            Along::Timeline(timeline) => timeline.to_string(),
        };
        let mut settings = vec![
            ("restore_command", self.restore_command.clone()),
            ("archive_cleanup_command", String::new()),
            ("recovery_end_command", String::new()),
            ("primary_conninfo", String::new()),
            ("primary_slot_name", String::new()),
            ("recovery_target_timeline", timeline),
            ("recovery_target_action", "promote".to_owned()),
            ("recovery_target_inclusive", if self.inclusive { "on" } else { "off" }.to_owned()),
        ];
        let (name, value) = match &self.target {
            Target::End => ("recovery_target", String::new()),
            Target::Consistent => ("recovery_target", "immediate".to_owned()),
            Target::Time(time) => {
                ("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string())
            }
            Target::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
            Target::Transaction(id) => ("recovery_target_xid", id.to_string()),
            Target::Name(name) => ("recovery_target_name", name.clone()),
        };
        // At most one may be set; the others are emptied, whatever the configuration says.
        let all = [
            "recovery_target",
            "recovery_target_time",
            "recovery_target_lsn",
            "recovery_target_xid",
            "recovery_target_name",
        ];
        settings.extend(all.into_iter().filter(|other| *other != name).map(|other| (other, String::new())));
        settings.push((name, value));
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(target: Target) -> Vec<String> {
        let settings = Recovery { target, ..Recovery::default() }.settings();
        let targets = settings.into_iter().filter(|(name, value)| {
            name.starts_with("recovery_target")
                && !value.is_empty()
                && !matches!(
                    *name,
                    "recovery_target_timeline" | "recovery_target_action" | "recovery_target_inclusive"
                )
        });
        targets.map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn exactly_one_target_is_set() {
        let time: Timestamp = "2026-11-22T10:00:00.1234569Z".parse().unwrap();
        assert_eq!(set(Target::End), Vec::<String>::new());
        assert_eq!(set(Target::Consistent), ["recovery_target=immediate"]);
        assert_eq!(set(Target::Time(time)), ["recovery_target_time=2026-11-22 10:00:00.123456+00"]);
        assert_eq!(set(Target::Lsn(Lsn(0x16_B374_D848))), ["recovery_target_lsn=16/B374D848"]);
        assert_eq!(set(Target::Transaction(7)), ["recovery_target_xid=7"]);
        assert_eq!(set(Target::Name("before".to_owned())), ["recovery_target_name=before"]);
    }

    #[test]
    fn the_timeline_is_a_number_or_that_of_the_backup() {
        let along = |along| {
            let settings = Recovery { along, ..Recovery::default() }.settings();
            settings.into_iter().find(|(name, _)| *name == "recovery_target_timeline").unwrap().1
        };
        assert_eq!(along(Along::Backup), "current");
        assert_eq!(along(Along::Timeline(TimelineId::new(17).unwrap())), "17");
    }

    #[test]
    fn every_setting_is_there_once() {
        for target in [Target::End, Target::Consistent, Target::Name("x".to_owned())] {
            let settings = Recovery { target, ..Recovery::default() }.settings();
            let names: std::collections::BTreeSet<_> = settings.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.len(), settings.len());
            assert_eq!(names.len(), 13);
        }
    }
}
