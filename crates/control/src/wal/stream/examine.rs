//! What `doctor` finds about a component's way of WAL: whether something streams, what the slot keeps, what waits for what.

use super::slot::{self, SlotState, SlotUse, slot_name};
use crate::backup;
use crate::wal::archiver::ArchiverWatch;
use jiff::Timestamp;
use retoma_core::Result;
use retoma_core::decide::archiving::{ArchiverState, Archiving};
use retoma_core::decide::streaming::{SlotLevel, slot_level};
use retoma_core::manifest::{Component, SlotPolicy, Source, WalMode};
use retoma_core::units::{ByteSize, Duration};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalExamined {
    /// What is well; empty when nothing streams, as the manifest says.
    pub good: Vec<String>,
    /// What to look at, each with its fix.
    pub cautions: Vec<(String, String)>,
}

/// Looks at the server of a component of kind `postgres`; `None` for others.
///
/// # Errors
/// What connecting to the server says.
pub fn examine(component: &Component) -> Result<Option<WalExamined>> {
    let Source::Postgres { url } = &component.source else { return Ok(None) };
    let address = backup::server_address(url)?;
    let name = slot_name(&component.name);
    let mut connection = slot::connect(&address)?;
    let state = slot::look(&mut connection, &name)?;
    let rows = connection.query(
        "SELECT current_setting('synchronous_standby_names') AS names, \
         current_setting('synchronous_commit') AS wait",
    )?;
    let row = rows.one()?;
    let mut found = found(component, &name, state, row.text("names")?, row.text("wait")?);
    let promised = component.wal.archive_timeout.filter(|_| component.wal.mode == WalMode::Archive);
    found.add_archive(&ArchiverWatch::new(component)?.look()?, promised);
    Ok(Some(found))
}

impl WalExamined {
    /// What the archiver says; that segments wait is only known after more than one look.
    fn add_archive(&mut self, state: &ArchiverState, promised: Option<Duration>) {
        let now = Timestamp::now();
        let archive = Archiving::default().see(state, now);
        match (archive.trouble(promised, now), promised) {
            (None, None) => {}
            (None, Some(promised)) => {
                self.good.push(format!("WAL is archived within {promised} and the time of a push"));
            }
            (Some(what), Some(promised)) if !archive.is_failing => {
                let fix = format!(
                    "set `archive_mode = on`, `archive_command = 'retoma wal push %p'` and `archive_timeout = '{promised}'` on \
                     the server"
                );
                self.cautions.push((format!("the RPO does not hold: {what}"), fix));
            }
            (Some(what), promised) => {
                let what =
                    promised.map_or_else(|| what.clone(), |_| format!("the RPO does not hold: {what}"));
                let fix =
                    "look for `archive_command` in the server's log; `pg_wal` grows until it works again";
                self.cautions.push((what, fix.to_owned()));
            }
        }
    }
}

/// What the settings and the slot mean for this component.
fn found(component: &Component, slot: &str, state: SlotState, names: &str, wait: &str) -> WalExamined {
    let mut found = WalExamined { good: Vec::new(), cautions: Vec::new() };
    let settings = component.wal;
    let mut warn = |what: String, fix: String| found.cautions.push((what, fix));
    let retained = ByteSize(state.retained_bytes);
    let is_named = names.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == slot);
    if settings.mode == WalMode::Archive {
        if state.usage != SlotUse::Missing {
            warn(
                format!("slot `{slot}` keeps {retained} of WAL, and `mode` is `archive`"),
                format!("set `mode = \"stream\"`, or drop it: SELECT pg_drop_replication_slot('{slot}')"),
            );
        }
        return found;
    }
    if state.usage != SlotUse::Active {
        let what = match state.usage {
            SlotUse::Missing => "is not there".to_owned(),
            SlotUse::Lost => "has lost WAL".to_owned(),
            SlotUse::Idle | SlotUse::Active => format!("keeps {retained} of WAL"),
        };
        warn(
            format!("nothing streams WAL: slot `{slot}` {what}"),
            format!("run `retoma wal stream {}` as a service", component.name),
        );
    }
    if slot_level(state.retained_bytes, settings.slot_limit_bytes) > SlotLevel::Fine {
        let then = match settings.at_slot_limit {
            SlotPolicy::Drop => "it is dropped then",
            SlotPolicy::Keep => "the server's disk may fill up then",
        };
        warn(
            format!(
                "slot `{slot}` keeps {retained} of at most {}; {then}",
                ByteSize(settings.slot_limit_bytes)
            ),
            "look at the alarms of `wal stream`".to_owned(),
        );
    }
    match (settings.mode, is_named) {
        (WalMode::Synchronous, false) => warn(
            format!("no commit waits for the repositories: `synchronous_standby_names` is `{names}`"),
            format!("set `synchronous_standby_names = '{slot}'` on the server while `wal stream` runs"),
        ),
        (WalMode::Synchronous, true) if wait == "off" || wait == "local" => warn(
            format!("no commit waits for the repositories: `synchronous_commit` is `{wait}`"),
            "set `synchronous_commit = on`".to_owned(),
        ),
        (_, true) if wait == "remote_apply" => warn(
            "commits wait for ever: `synchronous_commit` is `remote_apply`, and a repository replays nothing"
                .to_owned(),
            "set `synchronous_commit = on`".to_owned(),
        ),
        (WalMode::Stream, true) => warn(
            format!("commits wait for `{slot}`, whose `mode` is `stream`: each for 200 ms and more"),
            "set `mode = \"synchronous\"`, or take the name out of `synchronous_standby_names`".to_owned(),
        ),
        (WalMode::Synchronous, true) => {
            found.good.push(
                "commits wait until the repositories have them, also while one does not answer".to_owned(),
            );
        }
        _ => {}
    }
    if state.usage == SlotUse::Active {
        found.good.push(format!("its WAL is streamed; slot `{slot}` keeps {retained}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::manifest::{Origin, parse};
    use retoma_core::postgres::Lsn;

    fn component(wal: &str) -> Component {
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
             password = \"env:P\"\n[[component]]\nname = \"orders-db\"\nkind = \"postgres\"\ntier = \"critical\"\n\
             url = \"postgres://h/d\"\n[component.wal]\n{wal}\n"
        );
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() };
        parse(&text, &origin).unwrap().components.remove(0)
    }

    fn look(wal: &str, state: Option<(bool, u64)>, names: &str, wait: &str) -> String {
        let state = SlotState {
            usage: match state {
                None => SlotUse::Missing,
                Some((false, _)) => SlotUse::Idle,
                Some((true, _)) => SlotUse::Active,
            },
            restart: Some(Lsn(1)),
            retained_bytes: state.map_or(0, |(_, mib)| mib << 20),
            is_standby: false,
        };
        let component = component(wal);
        let found = found(&component, &slot_name(&component.name), state, names, wait);
        let cautions = found.cautions.into_iter().map(|(what, _)| what);
        found.good.into_iter().chain(cautions).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_contradicts_the_mode_is_named() {
        let slot = "retoma_orders_db";
        let running = Some((true, 1));
        assert_eq!(look("mode = \"archive\"", None, "", "on"), "");
        for (wal, state, names, wait, expected) in [
            ("", Some((false, 5)), "", "on", "keeps 5.0 MiB of WAL, and `mode` is `archive`"),
            (
                "mode = \"stream\"",
                running,
                "",
                "on",
                "its WAL is streamed; slot `retoma_orders_db` keeps 1.0 MiB",
            ),
            (
                "mode = \"stream\"",
                None,
                "",
                "on",
                "nothing streams WAL: slot `retoma_orders_db` is not there",
            ),
            ("mode = \"stream\"", Some((false, 7)), "", "on", "slot `retoma_orders_db` keeps 7.0 MiB"),
            (
                "mode = \"stream\"\nslot_limit_mib = 2",
                running,
                "",
                "on",
                "of at most 2.0 MiB; it is dropped then",
            ),
            ("mode = \"stream\"", running, slot, "on", "each for 200 ms"),
            ("mode = \"synchronous\"", running, "other_retoma", "on", "no commit waits"),
            ("mode = \"synchronous\"", running, "FIRST 1 (a, retoma_orders_db)", "local", "`local`"),
            ("mode = \"synchronous\"", running, slot, "remote_apply", "commits wait for ever"),
            (
                "mode = \"synchronous\"",
                running,
                "ANY 1 (\"retoma_orders_db\")",
                "on",
                "also while one does not answer",
            ),
        ] {
            let found = look(wal, state, names, wait);
            assert!(found.contains(expected), "{wal}: {found}");
        }
        let keep = "mode = \"stream\"\nslot_limit_mib = 2\nat_slot_limit = \"keep\"";
        assert!(look(keep, running, "", "on").contains("may fill up"));
    }
}
