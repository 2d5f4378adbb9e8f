//! Metrics in Prometheus' text format, and the table that names them all: [`TABLE`] is also `docs/metrics.md`.
//!
//! What was not observed has no sample: an absent series is what `absent()` is for, and a zero would be a lie.

use crate::decide::alerts::Alerts;
use crate::decide::observed::{Observed, Stream};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static str,
    /// What it says, in a sentence without full stop.
    pub help: &'static str,
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "gauge", labels, help }
}

/// Every metric, in the order of the output.
pub static TABLE: &[Metric] = &[
    gauge("retoma_build_info", "version", "Always 1; the program's version is a label"),
    gauge("retoma_agent_started_timestamp_seconds", "", "When the agent started"),
    gauge(
        "retoma_agent_decided_timestamp_seconds",
        "",
        "When the agent last decided what to do; it does so every second",
    ),
    Metric {
        name: "retoma_agent_journal_errors_total",
        kind: "counter",
        labels: "",
        help: "Lines of the journal that could not be written since the agent started",
    },
    gauge(
        "retoma_component_last_success_timestamp_seconds",
        "component, kind, tier",
        "When the newest complete snapshot began; with several repositories, the one of the repository that is furthest behind",
    ),
    gauge("retoma_component_age_seconds", "component, kind, tier", "How old that snapshot is"),
    gauge(
        "retoma_component_oldest_timestamp_seconds",
        "component, kind, tier",
        "When the oldest complete snapshot began",
    ),
    gauge("retoma_component_age_limit_seconds", "component, kind, tier", "How old that snapshot may be"),
    gauge("retoma_component_rpo_objective_seconds", "component, kind, tier", "What may be lost"),
    gauge("retoma_component_rto_objective_seconds", "component, kind, tier", "How long the return may take"),
    gauge(
        "retoma_backup_duration_seconds",
        "component",
        "How long the last good backup took, with the start of its process",
    ),
    gauge("retoma_backup_stored_bytes", "component", "What the repositories grew by in the last good backup"),
    gauge("retoma_backup_total_bytes", "component", "Bytes of all files in the last good backup"),
    gauge("retoma_task_running", "task", "1 while a run of the task is under way"),
    gauge("retoma_task_last_success_timestamp_seconds", "task", "When the last good run of the task began"),
    gauge(
        "retoma_task_next_timestamp_seconds",
        "task",
        "When the task is due; in the past when it waits for a place",
    ),
    gauge("retoma_task_failures", "task", "Runs that failed since the last good one"),
    gauge("retoma_repository_up", "repository", "1 when the last look at the repository was well"),
    gauge(
        "retoma_repository_looked_timestamp_seconds",
        "repository",
        "When the last look at the repository ended",
    ),
    gauge("retoma_repository_snapshots", "repository", "Snapshots in the repository"),
    gauge(
        "retoma_wal_stream_up",
        "component",
        "1 while the server's WAL is streamed; only where the manifest wants it",
    ),
    gauge(
        "retoma_wal_lag_bytes",
        "component",
        "WAL that the server has and not every repository, as the stream last told",
    ),
    gauge(
        "retoma_wal_lag_seconds",
        "component",
        "How long the oldest received byte waited, as the stream last told",
    ),
    gauge(
        "retoma_wal_slot_retained_bytes",
        "component",
        "WAL that the replication slot makes the server keep",
    ),
    gauge("retoma_wal_slot_used_ratio", "component", "The same as a share of what the slot may keep"),
    gauge(
        "retoma_wal_archive_up",
        "component",
        "1 when the server's `archive_command` archives, as was promised",
    ),
    gauge(
        "retoma_wal_archive_waiting_segments",
        "component",
        "Finished segments that the server has not archived",
    ),
    gauge(
        "retoma_wal_gaps",
        "component",
        "Gaps in the WAL: 0 means that everything behind the oldest snapshot can be recovered",
    ),
    gauge(
        "retoma_wal_open_gaps",
        "component",
        "Those of them behind the newest snapshot: what is written now is lost until the next backup",
    ),
    gauge(
        "retoma_wal_missing_histories",
        "component",
        "Timelines that have WAL and no stored history: no older snapshot leads to it",
    ),
    gauge(
        "retoma_wal_window_start_timestamp_seconds",
        "component",
        "When the oldest snapshot began that WAL follows",
    ),
    gauge(
        "retoma_wal_window_end_lsn_bytes",
        "component",
        "How far WAL follows without a gap, as a position in the server's WAL",
    ),
    gauge("retoma_mark_number", "component", "The last mark that the server acknowledged"),
    gauge("retoma_mark_timestamp_seconds", "component", "When it was written, by the server's clock"),
    gauge("retoma_wal_spool_bytes", "", "WAL in the spools of this host"),
    gauge("retoma_drill_last_timestamp_seconds", "scenario", "When the last drill began"),
    gauge("retoma_drill_passed", "scenario", "1 when the last drill was green"),
    gauge(
        "retoma_drill_rto_measured_seconds",
        "scenario",
        "From the disaster to the first successful write, in the last drill",
    ),
    gauge(
        "retoma_drill_rpo_measured_seconds",
        "scenario, component",
        "What was lost, counted from markers, in the last drill",
    ),
    gauge("retoma_alert_active", "alert, severity, component, repository", "1 for each alert that is active"),
];

/// Label names with their values.
type Labels<'a> = [(&'a str, &'a str)];

/// The samples of each metric, as lines without the name.
#[derive(Debug, Default)]
struct Samples(BTreeMap<&'static str, Vec<String>>);

impl Samples {
    fn add(&mut self, name: &'static str, labels: &Labels<'_>, value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.0.entry(name).or_default().push(format!("{labels} {}", number(value)));
    }

    fn time(&mut self, name: &'static str, labels: &Labels<'_>, time: Option<Timestamp>) {
        if let Some(time) = time {
            #[allow(clippy::cast_precision_loss)] // Milliseconds fit for the next 200,000 years.
            self.add(name, labels, time.as_millisecond() as f64 / 1000.0);
        }
    }

    fn count(&mut self, name: &'static str, labels: &Labels<'_>, count: Option<u64>) {
        if let Some(count) = count {
            #[allow(clippy::cast_precision_loss)] // Prometheus knows no other numbers.
            self.add(name, labels, count as f64);
        }
    }

    fn flag(&mut self, name: &'static str, labels: &Labels<'_>, flag: bool) {
        self.add(name, labels, if flag { 1.0 } else { 0.0 });
    }
}

/// The whole answer to a scrape at `now`.
pub fn text(observed: &Observed, alerts: &Alerts, now: Timestamp) -> String {
    let mut samples = Samples::default();
    samples.flag("retoma_build_info", &[("version", &observed.version)], true);
    samples.time("retoma_agent_started_timestamp_seconds", &[], Some(observed.started));
    samples.time("retoma_agent_decided_timestamp_seconds", &[], Some(observed.decided));
    samples.count("retoma_agent_journal_errors_total", &[], Some(observed.journal_errors));
    samples.count("retoma_wal_spool_bytes", &[], Some(observed.spool_bytes));
    components(observed, now, &mut samples);
    for task in &observed.tasks {
        let labels = [("task", task.name.as_str())];
        samples.flag("retoma_task_running", &labels, task.is_running);
        samples.time("retoma_task_last_success_timestamp_seconds", &labels, task.last_good);
        samples.time(
            "retoma_task_next_timestamp_seconds",
            &labels,
            (task.next > Timestamp::MIN).then_some(task.next),
        );
        samples.count("retoma_task_failures", &labels, Some(u64::from(task.failures)));
    }
    for repository in &observed.repositories {
        let labels = [("repository", repository.name.as_str())];
        let is_up = repository.looked.is_some() && repository.error_code.is_none();
        samples.flag("retoma_repository_up", &labels, is_up);
        samples.time("retoma_repository_looked_timestamp_seconds", &labels, repository.looked);
        samples.count("retoma_repository_snapshots", &labels, repository.snapshots);
    }
    observed.streams.iter().for_each(|it| stream(it, now, &mut samples));
    drill(observed, &mut samples);
    for (key, alert) in alerts.active() {
        let labels = [
            ("alert", key.alert.as_str()),
            ("severity", alert.severity.as_str()),
            ("component", key.component.as_deref().unwrap_or_default()),
            ("repository", key.repository.as_deref().unwrap_or_default()),
        ];
        samples.flag("retoma_alert_active", &labels, true);
    }
    let mut text = String::new();
    for metric in TABLE {
        let Some(lines) = samples.0.remove(metric.name) else { continue };
        text += &format!("# HELP {} {}\n# TYPE {} {}\n", metric.name, metric.help, metric.name, metric.kind);
        for line in lines {
            text += &format!("{}{line}\n", metric.name);
        }
    }
    text
}

fn components(observed: &Observed, now: Timestamp, samples: &mut Samples) {
    for component in &observed.components {
        let labels = [
            ("component", component.name.as_str()),
            ("kind", component.kind.as_str()),
            ("tier", component.tier.as_str()),
        ];
        let newest = component.newest_everywhere();
        samples.time("retoma_component_last_success_timestamp_seconds", &labels, newest);
        if let Some(newest) = newest {
            let age = now.duration_since(newest).as_secs_f64().max(0.0);
            samples.add("retoma_component_age_seconds", &labels, age);
        }
        let limit = component.age_limit.as_seconds();
        samples.count("retoma_component_age_limit_seconds", &labels, Some(limit));
        samples.time("retoma_component_oldest_timestamp_seconds", &labels, component.oldest);
        let (rpo, rto) = (component.objectives.rpo, component.objectives.rto);
        samples.count("retoma_component_rpo_objective_seconds", &labels, Some(rpo.as_seconds()));
        samples.count("retoma_component_rto_objective_seconds", &labels, Some(rto.as_seconds()));
        if let Some(backup) = component.backup {
            let labels = [("component", component.name.as_str())];
            samples.add("retoma_backup_duration_seconds", &labels, backup.duration_seconds);
            samples.count("retoma_backup_stored_bytes", &labels, Some(backup.stored_bytes));
            samples.count("retoma_backup_total_bytes", &labels, Some(backup.total_bytes));
        }
    }
}

fn stream(stream: &Stream, now: Timestamp, samples: &mut Samples) {
    let labels = [("component", stream.component.as_str())];
    if stream.is_wanted {
        samples.flag("retoma_wal_stream_up", &labels, stream.down.is_none());
    }
    samples.count("retoma_wal_lag_bytes", &labels, stream.lag_bytes);
    if let Some(lag) = stream.lag_seconds {
        samples.add("retoma_wal_lag_seconds", &labels, lag);
    }
    if let Some(slot) = stream.slot {
        samples.count("retoma_wal_slot_retained_bytes", &labels, Some(slot.retained_bytes));
        #[allow(clippy::cast_precision_loss)] // A share.
        let share = slot.retained_bytes as f64 / slot.limit_bytes.max(1) as f64;
        samples.add("retoma_wal_slot_used_ratio", &labels, share);
    }
    if let Some(archive) = &stream.archive {
        let is_well = archive.trouble(stream.archive_promised, now).is_none();
        samples.flag("retoma_wal_archive_up", &labels, is_well);
        samples.count("retoma_wal_archive_waiting_segments", &labels, Some(archive.waiting_segments));
    } else if stream.archive_unknown {
        samples.flag("retoma_wal_archive_up", &labels, false);
    }
    samples.count("retoma_wal_gaps", &labels, stream.gaps);
    samples.count("retoma_wal_open_gaps", &labels, stream.open_gaps);
    samples.count("retoma_wal_missing_histories", &labels, stream.missing_histories);
    samples.time("retoma_wal_window_start_timestamp_seconds", &labels, stream.window_start);
    samples.count("retoma_wal_window_end_lsn_bytes", &labels, stream.window_end_lsn);
    if let Some(mark) = stream.marks.as_ref().and_then(|marks| marks.last) {
        samples.count("retoma_mark_number", &labels, Some(mark.number));
        samples.time("retoma_mark_timestamp_seconds", &labels, Some(mark.written));
    }
}

fn drill(observed: &Observed, samples: &mut Samples) {
    let Some(drill) = &observed.drill else { return };
    let labels = [("scenario", drill.scenario.as_str())];
    samples.time("retoma_drill_last_timestamp_seconds", &labels, Some(drill.started));
    samples.flag("retoma_drill_passed", &labels, drill.is_green);
    if let Some(rto) = drill.rto_measured_seconds {
        samples.add("retoma_drill_rto_measured_seconds", &labels, rto);
    }
    for (component, rpo) in &drill.rpo_measured_seconds {
        let labels = [("scenario", drill.scenario.as_str()), ("component", component)];
        samples.add("retoma_drill_rpo_measured_seconds", &labels, *rpo);
    }
}

/// A label's value between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    // Rust prints no exponent and no more digits than needed; the rest is what the format calls it.
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    }
}

/// `docs/metrics.md`.
pub fn page() -> String {
    let mut text = "# Metrics\n\nGenerated by `cargo xtask codegen` from the table in `core/render/metrics`. `retoma agent` answers \
                    `GET /metrics` with these ([agent.md](agent.md)), in Prometheus' text format. What was not observed has no \
                    sample.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for metric in TABLE {
        let labels = if metric.labels.is_empty() { "none" } else { metric.labels };
        text += &format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help);
    }
    text += "\n`retoma agent --print alert-rules` prints rules for Prometheus over these metrics.\n";
    text
}

#[cfg(test)]
mod tests;
