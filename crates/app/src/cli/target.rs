//! Points in time on the command line: how far a database server can be recovered, is to be, and was.

use crate::context::{self, Context};
use jiff::Timestamp;
use retoma_control::recover::{PlannedRecovery, Report};
use retoma_control::wal::check;
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::postgres::TimelineId;
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::{Repository, SnapshotId};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// PostgreSQL: up to this position in the WAL, such as 16/B374D848
    #[arg(long, value_name = "LSN", conflicts_with_all = ["at", "xid", "name"])]
    lsn: Option<String>,
    /// PostgreSQL: up to the end of this transaction
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["at", "name"])]
    xid: Option<u64>,
    /// PostgreSQL: up to this point, made by `pg_create_restore_point`
    #[arg(long, value_name = "NAME", conflicts_with = "at")]
    name: Option<String>,
    /// PostgreSQL: up to just before the target
    #[arg(long)]
    exclusive: bool,
    /// PostgreSQL: along the history of this timeline, or `latest`
    #[arg(long, value_name = "NUMBER", default_value = "latest", hide_default_value = true)]
    timeline: String,
}

impl TargetArgs {
    /// `at` is the option of that name, which other kinds of components have too.
    pub(super) fn goal(&self, at: Option<&str>) -> Result<Goal> {
        let wrong = |what: String, hint: &'static str| {
            Error::new(ErrorKind::Invalid, codes::USAGE, what).with_hint(hint)
        };
        let target = match (at, &self.lsn, self.xid, &self.name) {
            (Some(time), ..) => Target::Time(context::timestamp(time)?),
            (_, Some(lsn), ..) => Target::Lsn(lsn.parse().map_err(|why| {
                let what = format!("`{}` is no position in the WAL: {why}", lsn.escape_debug());
                wrong(what, "write it as `pg_current_wal_lsn()` prints it")
            })?),
            (_, _, Some(id), _) => Target::Transaction(id),
            (.., Some(name)) => Target::Name(name.clone()),
            _ => Target::Latest,
        };
        let timeline = match self.timeline.as_str() {
            "latest" => None,
            number => Some(number.parse::<TimelineId>().map_err(|why| {
                let what = format!("`{}` is no timeline: {why}", number.escape_debug());
                wrong(what, "leave it out for the newest; `retoma wal check` lists them")
            })?),
        };
        Ok(Goal { target, inclusive: !self.exclusive, timeline })
    }
}

/// What to think of before a snapshot is trusted that is not older than `suspect`, in which too much had changed at once.
pub(super) fn mass_change_in_words(component: &str, (suspect, time): (SnapshotId, Timestamp)) -> String {
    let before = time.as_second().checked_sub(1).and_then(|second| Timestamp::from_second(second).ok());
    let before = before.unwrap_or(time);
    format!(
        "{component}: in snapshot {} too much had changed at once, and nobody has accepted it: what comes back may be what somebody \
         encrypted or deleted; `--at {before}` takes what was there before; see docs/mass-change.md",
        suspect.short()
    )
}

fn kind_and_value(target: &Target) -> (&'static str, Option<String>) {
    match target {
        Target::Latest => ("latest", None),
        Target::Time(time) => ("time", Some(time.to_string())),
        Target::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
        Target::Transaction(id) => ("xid", Some(id.to_string())),
        Target::Name(name) => ("name", Some(name.clone())),
    }
}

fn target(goal: &Goal) -> Value {
    let (kind, value) = kind_and_value(&goal.target);
    json!({ "kind": kind, "value": value, "inclusive": goal.inclusive })
}

/// What will be done, for a dry run.
pub(super) fn planned(recovery: &PlannedRecovery) -> Value {
    json!({ "target": target(&recovery.goal), "timeline": recovery.timeline.get(), "until_lsn": recovery.until.to_string() })
}

/// What was done.
pub(super) fn reached(report: &Report) -> Value {
    json!({
        "target": target(&report.goal), "reached_lsn": report.reached.to_string(),
        "last_transaction": report.last_transaction.map(|time| time.to_string()),
        "timeline_before": report.timeline_before.get(), "timeline_after": report.timeline_after.get(),
        "wal_segments": report.fetched.segments, "wal_bytes": report.fetched.bytes,
        "replay_seconds": report.replay.as_secs_f64(),
        "last_mark": report.last_mark.map(|mark| json!({ "number": mark.number, "written": mark.written.to_string() })),
    })
}

pub(super) fn in_words(component: &str, recovery: &PlannedRecovery) -> String {
    let just_before = if recovery.goal.inclusive { "" } else { "just before " };
    format!(
        "{component}: recovered to {just_before}{}, along timeline {}",
        recovery.goal.target, recovery.timeline
    )
}

pub(super) fn reached_in_words(report: &Report) -> String {
    let last = report.last_transaction.map_or_else(
        || "no transaction".to_owned(),
        |time| format!("last transaction at {}", time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ")),
    );
    let mark = report.last_mark.map_or_else(String::new, |mark| {
        format!(", last mark {} of {}", mark.number, mark.written.strftime("%Y-%m-%dT%H:%M:%S.%6fZ"))
    });
    format!(
        "recovered to {} on timeline {}, {last}{mark}; {} of WAL fetched ({}); goes on as timeline {}",
        report.reached,
        report.timeline_before,
        counted(report.fetched.segments, "segment", "segments"),
        ByteSize(report.fetched.bytes),
        report.timeline_after
    )
}

/// Says what can be recovered of a PostgreSQL server, and gives it: one entry for each stretch without a gap.
pub(super) fn windows(context: &Context, repository: &Repository, component: &str) -> Vec<Value> {
    let mut list = Vec::new();
    let servers = check::check(repository, Some(component)).unwrap_or_else(|error| {
        // What lists snapshots must go on where one is damaged.
        context.printer.warning(&format!("what can be recovered of `{component}` cannot be said: {error}"));
        Vec::new()
    });
    for server in servers {
        for window in server.windows() {
            context.printer.data(&format!("{component}: recoverable from {}", window.in_words()));
            if let Some(gap) = window.gap_in_words() {
                context.printer.data(&format!("{component}: then WAL is missing: {gap}"));
            }
            let gap = window
                .gap
                .map(|(first, last)| json!({ "first": first.to_string(), "last": last.to_string() }));
            list.push(json!({
                "component": component, "system_identifier": server.system_identifier.to_string(),
                "timeline": window.timeline.get(), "from_time": window.from_time.to_string(),
                "from_lsn": window.from.to_string(), "until_lsn": window.until.to_string(), "gap": gap,
            }));
        }
    }
    list
}
