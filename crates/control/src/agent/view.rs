//! From what the loop, the looks and the streams know to one [`Observed`].

use super::Agent;
use super::journal::{Journal, Line};
use super::look::Look;
use super::streams;
use jiff::Timestamp;
use retoma_core::decide::gaps::{self, Open};
use retoma_core::decide::observed::{
    Observed, ObservedBackup, ObservedComponent, ObservedDrill, ObservedMassChange, ObservedRepository,
    ObservedTask, Stream,
};
use retoma_core::decide::schedule;
use retoma_core::manifest::{Component, Manifest};
use retoma_core::postgres::TimelineId;
use retoma_repo::SnapshotId;
use serde_json::Value;
use std::path::Path;

/// Deeper folders are no spool.
const SPOOL_DEPTH: u32 = 4;

impl Agent {
    /// Everything that is known at `now`.
    pub(super) fn observed(&self, now: Timestamp) -> Observed {
        let manifest = &self.settings.manifest;
        let looks: Vec<(String, Look)> =
            self.lookers.iter().map(|looker| (looker.name.clone(), looker.last())).collect();
        let repositories = looks.iter().map(|(name, look)| ObservedRepository {
            name: name.clone(),
            looked: look.looked,
            error_code: look.error_code.clone(),
            snapshots: look.snapshots,
            mass_changes: mass_changes(manifest, look),
        });
        let last = |task: &str| self.journal.past(task).and_then(|past| past.good.as_ref());
        let drilled = last("drill").filter(|_| manifest.agent.drill.is_some());
        Observed {
            version: self.settings.version.clone(),
            started: self.started,
            since: self.since,
            decided: now,
            journal_errors: self.journal.errors,
            components: manifest.components.iter().map(|it| self.component(it, &looks)).collect(),
            tasks: self.tasks(now),
            repositories: repositories.collect(),
            streams: self.wal.iter().map(|wal| self.stream(wal.known())).collect(),
            damaged: last("verify").and_then(|line| line.details["damaged"].as_bool()),
            drill_every: manifest.agent.drill.as_ref().map(|_| manifest.agent.drill_every),
            drill_good: drilled.and_then(last_green),
            drill: drilled.map(drill),
            spool_bytes: self.spool_bytes,
        }
    }

    fn component(&self, component: &Component, looks: &[(String, Look)]) -> ObservedComponent {
        let ages = |repository: &str| {
            let look = looks.iter().find(|(name, _)| name == repository)?;
            look.1.ages.get(&component.name).copied()
        };
        let newest = |names: &[String]| {
            let newest = |name: &String| (name.clone(), ages(name).map(|(_, newest)| newest));
            names.iter().map(newest).collect::<Vec<_>>()
        };
        let good =
            self.journal.past(&format!("backup/{}", component.name)).and_then(|past| past.good.as_ref());
        let backup = good.and_then(|line| {
            Some(ObservedBackup {
                duration_seconds: line.duration_seconds?,
                stored_bytes: line.stored_bytes?,
                total_bytes: line.total_bytes?,
            })
        });
        ObservedComponent {
            name: component.name.clone(),
            kind: component.kind(),
            tier: component.tier,
            objectives: component.objectives,
            age_limit: component.snapshot_age_limit(),
            newest: newest(&component.repositories),
            copies: newest(&component.copies),
            copy_age_limit: self.settings.manifest.copy_age_limit(component),
            oldest: component
                .repositories
                .iter()
                .filter_map(|name| ages(name))
                .map(|(oldest, _)| oldest)
                .min(),
            backup,
        }
    }

    fn tasks(&self, now: Timestamp) -> Vec<ObservedTask> {
        let observed = |(task, known): (&super::Task, &schedule::Known)| ObservedTask {
            name: task.name.clone(),
            is_running: known.is_running,
            last_good: known.last_good,
            next: schedule::due(&task.schedule, known, now),
            failures: known.failures,
            error_code: self
                .journal
                .past(&task.name)
                .and_then(|past| past.last.as_ref()?.error_code.clone())
                .filter(|_| known.failures > 0),
        };
        self.tasks.iter().zip(&self.known).map(observed).collect()
    }

    /// A stream with what the last WAL check found of its archive.
    pub(super) fn stream(&self, known: streams::Known) -> Stream {
        let mut stream = known.stream;
        let check = self.journal.past("wal-check").and_then(|past| past.good.as_ref());
        if let Some(found) = check.map(|line| &line.details[stream.component.as_str()]) {
            (stream.gaps, stream.open_gaps) = (found["gaps"].as_u64(), found["open_gaps"].as_u64());
            stream.missing_histories = found["missing_histories"].as_u64();
            stream.newest_timeline = stream.archive.and_then(|it| it.writing).and_then(|writing| {
                let newest = found["timelines"][writing.system_identifier.to_string()].as_u64()?;
                TimelineId::new(u32::try_from(newest).ok()?)
            });
            stream.window_start = found["window_start"].as_str().and_then(|text| text.parse().ok());
            stream.window_end_lsn = found["window_end_lsn"].as_u64();
        }
        // The stream knows of a gap before a check does, and a backup is behind one before the next check.
        let backup =
            self.journal.past(&format!("backup/{}", stream.component)).and_then(|past| past.good.as_ref());
        if known.gap_at.is_some_and(|gap| backup.is_none_or(|line| line.started < gap)) {
            stream.gaps = Some(stream.gaps.unwrap_or(0).max(1));
            stream.open_gaps = Some(stream.open_gaps.unwrap_or(0).max(1));
        } else if check.zip(backup).is_some_and(|(check, backup)| {
            // What was open for longer outlived backups: that this one closes it is not known before the next check.
            let is_new = open_before(check, &stream.component).is_none_or(|it| it.since >= check.started);
            check.started < backup.started && is_new
        }) {
            stream.open_gaps = stream.open_gaps.map(|_| 0);
        }
        let made = self.new_tablespaces.get(&stream.component);
        let is_behind =
            |it: &Open<u32>| backup.is_none_or(|line| line.started <= it.since) || !is_older(check, backup);
        if made.is_some_and(is_behind) {
            stream.has_new_tablespace = true;
            stream.gaps = Some(stream.gaps.unwrap_or(0).max(1));
            stream.open_gaps = Some(stream.open_gaps.unwrap_or(0).max(1));
        }
        stream
    }

    /// Compares the tablespaces of each server with those of its newest snapshot. One that is not in it is not to be recovered,
    /// and nothing that was written after it: the WAL that makes it is never replayed.
    pub(super) fn look_at_tablespaces(&mut self, now: Timestamp) {
        let all: Vec<streams::Known> = self.wal.iter().map(streams::Wal::known).collect();
        for known in all {
            self.compare_tablespaces(&known, now);
        }
    }

    /// One server's part of [`Agent::look_at_tablespaces`].
    pub(super) fn compare_tablespaces(&mut self, known: &streams::Known, now: Timestamp) {
        let component = &known.stream.component;
        let good = |task: &str| self.journal.past(task).and_then(|past| past.good.as_ref());
        let (check, backup) = (good("wal-check"), good(&format!("backup/{component}")));
        // A check that did not see the newest backup says nothing about what is behind it.
        let held = check.filter(|_| !is_older(check, backup)).map(|line| &line.details[component.as_str()]);
        let held = held.and_then(|found| found["tablespaces"].as_array());
        let (Some(held), Some(live)) = (held, &known.tablespaces) else { return };
        let new = live.iter().copied().filter(|oid| !held.contains(&serde_json::json!(oid))).collect();
        match gaps::open(self.new_tablespaces.get(component), new, now) {
            Some(open) => self.new_tablespaces.insert(component.clone(), open),
            None => self.new_tablespaces.remove(component),
        };
    }
}

/// Whether the last check began before the last backup, and may not have seen it.
fn is_older(check: Option<&Line>, backup: Option<&Line>) -> bool {
    check.zip(backup).is_some_and(|(check, backup)| check.started < backup.ended.unwrap_or(backup.started))
}

/// What a WAL check noted as open.
fn open_before(check: &Line, component: &str) -> Option<Open<String>> {
    let found = &check.details[component];
    let what = found["open"].as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned));
    Some(Open { what: what.collect(), since: found["open_since"].as_str()?.parse().ok()? })
}

/// Notes in what a WAL check found since when each component's gaps are open; `before` is the check before it.
pub(super) fn note_open(before: Option<&Line>, started: Timestamp, details: &mut Value) {
    for (component, found) in details.as_object_mut().into_iter().flatten() {
        let names = found["open"].as_array().into_iter().flatten();
        let what = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let before = before.and_then(|line| open_before(line, component));
        if let Some(open) = gaps::open(before.as_ref(), what, started) {
            found["open_since"] = Value::String(open.since.to_string());
        }
    }
}

/// Notes in what a drill gave when the last green one began, also where it is not green itself; `before` is the drill before it.
pub(super) fn note_green(before: Option<&Line>, started: Timestamp, details: &mut Value) {
    let green = if is_green(details) { Some(started) } else { before.and_then(last_green) };
    if let (Some(green), Some(details)) = (green, details.as_object_mut()) {
        details.insert("last_green".to_owned(), Value::String(green.to_string()));
    }
}

/// When the last green drill began, as the last of all knows it.
fn last_green(line: &Line) -> Option<Timestamp> {
    if is_green(&line.details) {
        return Some(line.started);
    }
    line.details["last_green"].as_str()?.parse().ok()
}

fn is_green(details: &Value) -> bool {
    details["verdict"].as_str() == Some("green")
}

/// Since when a component's WAL has a gap that only a backup closes which begins later; `None` without one.
pub(super) fn gap_since(
    journal: &Journal,
    wal: &streams::Known,
    made: Option<&Open<u32>>,
) -> Option<Timestamp> {
    let check = journal.past("wal-check").and_then(|past| past.good.as_ref());
    let is_open = |line: &&Line| {
        line.details[wal.stream.component.as_str()]["open_gaps"].as_u64().is_some_and(|gaps| gaps > 0)
    };
    let since =
        |line: &Line| open_before(line, &wal.stream.component).map_or(line.started, |open| open.since);
    wal.gap_at.max(check.filter(is_open).map(since)).max(made.map(|open| open.since))
}

/// When the newest complete snapshot of a component began that each of its repositories has the like of.
pub(super) fn newest_everywhere(component: &Component, looks: &[(String, Look)]) -> Option<Timestamp> {
    let newest = |name: &String| {
        let (_, look) = looks.iter().find(|(of, _)| of == name)?;
        look.ages.get(&component.name).map(|(_, newest)| *newest)
    };
    let all: Option<Vec<Timestamp>> = component.repositories.iter().map(newest).collect();
    all?.into_iter().min()
}

/// Of the manifest's components: others in the same repository are somebody else's.
fn mass_changes(manifest: &Manifest, look: &Look) -> Vec<ObservedMassChange> {
    let own = look.mass_changes.iter().filter(|(component, _)| manifest.component(component).is_some());
    let observed = |(component, (time, id)): (&String, &(Timestamp, SnapshotId))| ObservedMassChange {
        component: component.clone(),
        snapshot: id.short(),
        time: *time,
    };
    own.map(observed).collect()
}

fn drill(line: &Line) -> ObservedDrill {
    let lost = line.details["rpo_measured_seconds"].as_object().into_iter().flatten();
    ObservedDrill {
        scenario: line.details["scenario"].as_str().unwrap_or_default().to_owned(),
        started: line.started,
        is_green: is_green(&line.details),
        rto_measured_seconds: line.details["rto_measured_seconds"].as_f64(),
        rpo_measured_seconds: lost.filter_map(|(name, rpo)| Some((name.clone(), rpo.as_f64()?))).collect(),
    }
}

/// Bytes of the files in the spools of WAL beside the manifest.
pub(super) fn spool_bytes(dir: &Path) -> u64 {
    fn below(folder: &Path, depth: u32) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let size = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && depth > 0 => below(&entry.path(), depth - 1),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        };
        entries.map(size).fold(0, u64::saturating_add)
    }
    below(&dir.join(".retoma/wal"), SPOOL_DEPTH)
}

#[cfg(test)]
mod tests;
