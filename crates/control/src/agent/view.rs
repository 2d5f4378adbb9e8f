//! From what the loop, the looks and the streams know to one [`Observed`].

use super::Agent;
use super::journal::Line;
use super::look::Look;
use jiff::Timestamp;
use retoma_core::decide::observed::{
    Observed, ObservedBackup, ObservedComponent, ObservedDrill, ObservedRepository, ObservedTask, Stream,
};
use retoma_core::decide::schedule;
use retoma_core::manifest::{Component, WalMode};
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
        });
        let last = |task: &str| self.journal.past(task).and_then(|past| past.good.as_ref());
        let drill = last("drill").filter(|_| manifest.agent.drill.is_some()).map(drill);
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
            drill_good: drill.as_ref().filter(|drill| drill.is_green).map(|drill| drill.started),
            drill,
            spool_bytes: self.spool_bytes,
        }
    }

    fn component(&self, component: &Component, looks: &[(String, Look)]) -> ObservedComponent {
        let ages = |repository: &str| {
            let look = looks.iter().find(|(name, _)| name == repository)?;
            look.1.ages.get(&component.name).copied()
        };
        let newest =
            component.repositories.iter().map(|name| (name.clone(), ages(name).map(|(_, newest)| newest)));
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
            every: component.schedule.every,
            is_streamed: component.path().is_none() && component.wal.mode != WalMode::Archive,
            newest: newest.collect(),
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
    fn stream(&self, known: super::streams::Known) -> Stream {
        let mut stream = known.stream;
        let check = self.journal.past("wal-check").and_then(|past| past.good.as_ref());
        if let Some(found) = check.map(|line| &line.details[stream.component.as_str()]) {
            stream.gaps = found["gaps"].as_u64();
            stream.window_start = found["window_start"].as_str().and_then(|text| text.parse().ok());
            stream.window_end_lsn = found["window_end_lsn"].as_u64();
        }
        // The stream knows of a gap before a check does, until a backup begins behind it.
        let backup =
            self.journal.past(&format!("backup/{}", stream.component)).and_then(|past| past.good.as_ref());
        if known.gap_at.is_some_and(|gap| backup.is_none_or(|line| line.started < gap)) {
            stream.gaps = Some(stream.gaps.unwrap_or(0).max(1));
        }
        stream
    }
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

fn drill(line: &Line) -> ObservedDrill {
    let lost = line.details["rpo_measured_seconds"].as_object().into_iter().flatten();
    ObservedDrill {
        scenario: line.details["scenario"].as_str().unwrap_or_default().to_owned(),
        started: line.started,
        is_green: line.details["verdict"].as_str() == Some("green"),
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
