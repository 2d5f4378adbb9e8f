//! From what children printed to what the journal keeps. Documents come from another process: nothing is taken for granted.

use super::child::Ended;
use super::journal::{Line, Outcome};
use jiff::Timestamp;
use retoma_core::error::codes;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the steps of one run gave together.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    outcome: Option<Outcome>,
    exit_code: Option<i32>,
    error_code: Option<String>,
    snapshot: Option<String>,
    bytes: Option<(u64, u64)>,
    details: Map<String, Value>,
}

impl Report {
    /// Takes in the end of one child. `is_stopping` when we asked it to stop.
    pub(super) fn add(&mut self, verb: &str, ended: &Ended, is_stopping: bool) {
        let document = ended.document.as_ref().unwrap_or(&Value::Null);
        let found = match (verb, ended.code) {
            _ if is_stopping && ended.code != Some(0) => Outcome::Stopped,
            // Damage, a gap or a red drill is an answer: to ask again at once gives no other.
            (_, Some(0)) | ("verify" | "wal-check" | "drill", Some(4)) => Outcome::Good,
            (_, Some(3)) => Outcome::Incomplete,
            _ => Outcome::Failed,
        };
        if self.outcome.is_none_or(|before| rank(found) > rank(before)) {
            self.outcome = Some(found);
            self.exit_code = ended.code;
            self.error_code = (found != Outcome::Good).then(|| error_code(document, ended)).flatten();
        }
        match verb {
            "backup" => self.backup(document),
            "verify" => self.or("damaged", document["damaged"].as_bool().unwrap_or(ended.code == Some(4))),
            "wal-check" => self.wal_check(document),
            "drill" => self.drill(document),
            _ => {}
        }
    }

    /// A step that could not even begin.
    pub(super) fn not_started(&mut self, code: &str) {
        self.outcome = Some(Outcome::Failed);
        self.error_code = Some(code.to_owned());
    }

    /// How it went; what never ran was stopped before.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.unwrap_or(Outcome::Stopped)
    }

    /// Writes it into a line.
    pub(super) fn into_line(self, line: Line) -> Line {
        Line {
            outcome: Some(self.outcome()),
            exit_code: self.exit_code,
            error_code: self.error_code,
            snapshot: self.snapshot,
            total_bytes: self.bytes.map(|(total, _)| total),
            stored_bytes: self.bytes.map(|(_, stored)| stored),
            details: if self.details.is_empty() { Value::Null } else { Value::Object(self.details) },
            ..line
        }
    }

    fn or(&mut self, key: &str, value: bool) {
        let before = self.details.get(key).and_then(Value::as_bool).unwrap_or(false);
        self.details.insert(key.to_owned(), json!(before || value));
    }

    fn backup(&mut self, document: &Value) {
        let backups = document["backups"].as_array().map_or(&[][..], Vec::as_slice);
        let sum =
            |key: &str| backups.iter().filter_map(|backup| backup[key].as_u64()).fold(0, u64::saturating_add);
        if let Some(first) = backups.first() {
            self.snapshot = first["snapshot"].as_str().map(str::to_owned);
            self.bytes = Some((first["total_bytes"].as_u64().unwrap_or(0), sum("stored_bytes")));
        }
    }

    /// For each component: gaps in all repositories together, and the window of the one that reaches furthest.
    fn wal_check(&mut self, document: &Value) {
        for server in document["servers"].as_array().into_iter().flatten() {
            let Some(component) = server["component"].as_str() else { continue };
            let count = |key: &str| server[key].as_array().map_or(0, Vec::len) as u64;
            let mut gaps = count("gaps") + count("missing_histories");
            // No backup stores one, so they do not ask for any.
            let mut histories = count("missing_histories");
            let snapshots = server["snapshots"].as_array().map_or(&[][..], Vec::as_slice);
            let (mut open_gaps, mut open) = open_gaps(snapshots);
            let mut start = snapshots.iter().filter_map(time).min();
            let ways = snapshots.iter().flat_map(|it| it["ways"].as_array().into_iter().flatten());
            let lsn =
                |way: &Value| way["recoverable_until"].as_str()?.parse::<retoma_core::postgres::Lsn>().ok();
            let mut end = ways.filter_map(lsn).map(|lsn| lsn.0).max();
            let (mut spaces, mut timelines) = (Value::Null, json!({}));
            if let Some(before) = self.details.get(component) {
                histories = histories.saturating_add(before["missing_histories"].as_u64().unwrap_or(0));
                open.extend(names(&before["open"]));
                (spaces, timelines) = (before["tablespaces"].clone(), before["timelines"].clone());
                gaps = gaps.saturating_add(before["gaps"].as_u64().unwrap_or(0));
                open_gaps = open_gaps.saturating_add(before["open_gaps"].as_u64().unwrap_or(0));
                let other = before["window_start"].as_str().and_then(|text| text.parse().ok());
                match before["window_end_lsn"].as_u64() {
                    // Of two that reach as far, the one that begins earlier.
                    Some(reached) if Some(reached) == end => {
                        start = [start, other].into_iter().flatten().min();
                    }
                    Some(reached) if Some(reached) > end => (start, end) = (other, Some(reached)),
                    _ => {}
                }
            }
            if let (Some(id), Some(newest)) = (server["system_identifier"].as_str(), newest_timeline(server))
            {
                timelines[id] = json!(timelines[id].as_u64().map_or(newest, |before| before.max(newest)));
            }
            let window = json!({ "timelines": timelines, "gaps": gaps, "open_gaps": open_gaps, "open": open, "missing_histories": histories,
                                 "tablespaces": spaces, "window_start": start, "window_end_lsn": end });
            self.details.insert(component.to_owned(), window);
        }
        for (component, mut held) in tablespaces(document) {
            let Some(window) = self.details.get_mut(component) else { continue };
            if let Some(before) = window["tablespaces"].as_array() {
                held.retain(|oid| before.contains(&json!(oid)));
            }
            window["tablespaces"] = json!(held);
        }
    }

    fn drill(&mut self, document: &Value) {
        for key in ["scenario", "verdict", "rto_measured_seconds"] {
            self.details.insert(key.to_owned(), document[key].clone());
        }
        let mut lost = Map::new();
        for component in document["components"].as_array().into_iter().flatten() {
            if let (Some(name), Some(rpo)) =
                (component["component"].as_str(), component["rpo_measured_seconds"].as_f64())
            {
                lost.insert(name.to_owned(), json!(rpo));
            }
        }
        self.details.insert("rpo_measured_seconds".to_owned(), Value::Object(lost));
    }
}

/// The newest timeline that a server has WAL of.
fn newest_timeline(server: &Value) -> Option<u64> {
    server["timelines"].as_array()?.iter().filter_map(|it| it["timeline"].as_u64()).max()
}

fn time(snapshot: &Value) -> Option<Timestamp> {
    snapshot["time"].as_str().and_then(|it| it.parse().ok())
}

fn names(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned))
}

/// The tablespaces in the newest snapshot of each component.
fn tablespaces(document: &Value) -> BTreeMap<&str, Vec<u64>> {
    let mut newest: BTreeMap<&str, &Value> = BTreeMap::new();
    for server in document["servers"].as_array().into_iter().flatten() {
        let Some(component) = server["component"].as_str() else { continue };
        for snapshot in server["snapshots"].as_array().into_iter().flatten() {
            let known = newest.entry(component).or_insert(snapshot);
            if time(snapshot) > time(known) {
                *known = snapshot;
            }
        }
    }
    let held = |snapshot: &Value| {
        Some(snapshot["tablespaces"].as_array()?.iter().filter_map(Value::as_u64).collect())
    };
    newest.into_iter().filter_map(|(component, snapshot)| Some((component, held(snapshot)?))).collect()
}

/// How many gaps lie behind the newest of a server's snapshots, on its way to the newest timeline, and their names.
fn open_gaps(snapshots: &[Value]) -> (u64, BTreeSet<String>) {
    let newest = snapshots.iter().max_by_key(|snapshot| time(snapshot));
    let ways = newest.and_then(|snapshot| snapshot["ways"].as_array()).into_iter().flatten();
    let way = ways.max_by_key(|way| way["timeline"].as_u64());
    let count = way.and_then(|way| way["gaps"].as_u64()).unwrap_or(0);
    (count, way.into_iter().flat_map(|way| names(&way["first_missing"])).collect())
}

/// Which outcome of several counts.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Good => 0,
        Outcome::Incomplete => 1,
        Outcome::Stopped => 2,
        _ => 3,
    }
}

fn error_code(document: &Value, ended: &Ended) -> Option<String> {
    let own = document["code"].as_str();
    let of_component = || document["failed"][0]["code"].as_str();
    let unreadable =
        || document["backups"].as_array()?.iter().find_map(|it| it["unreadable"][0]["code"].as_str());
    let found = own.or_else(of_component).or_else(unreadable).map(str::to_owned);
    // One that a signal ended has said nothing.
    found.or_else(|| (ended.is_overdue || ended.code.is_none()).then(|| codes::AGENT_CHILD.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>, document: Value) -> Ended {
        Ended { code, document: Some(document), is_overdue: false }
    }

    fn of(verb: &str, steps: &[Ended]) -> Report {
        let mut report = Report::default();
        for step in steps {
            report.add(verb, step, false);
        }
        report
    }

    #[test]
    fn a_backup_gives_snapshot_bytes_and_the_first_error() {
        let backups = json!([{ "snapshot": "a1", "total_bytes": 10, "stored_bytes": 4 }, { "snapshot": "b2", "stored_bytes": 3 }]);
        let good = of("backup", &[ended(Some(0), json!({ "backups": backups }))]);
        assert_eq!(
            (good.outcome(), good.snapshot.as_deref(), good.bytes),
            (Outcome::Good, Some("a1"), Some((10, 7)))
        );
        let failed = json!({ "backups": [], "failed": [{ "code": "R0303" }] });
        let half = of("backup", &[ended(Some(3), failed)]);
        assert_eq!((half.outcome(), half.error_code.as_deref()), (Outcome::Incomplete, Some("R0303")));
        let error = of("backup", &[ended(Some(10), json!({ "code": "R0201" }))]);
        assert_eq!(
            (error.outcome(), error.exit_code, error.error_code.as_deref()),
            (Outcome::Failed, Some(10), Some("R0201"))
        );
        let killed = of("backup", &[Ended { code: None, document: None, is_overdue: true }]);
        assert_eq!((killed.outcome(), killed.error_code.as_deref()), (Outcome::Failed, Some("R0953")));
    }

    #[test]
    fn the_worst_step_counts_and_a_stop_is_none() {
        let steps = [
            ended(Some(0), json!({})),
            ended(Some(11), json!({ "code": "R0601" })),
            ended(Some(0), json!({})),
        ];
        let report = of("retention", &steps);
        assert_eq!((report.outcome(), report.error_code.as_deref()), (Outcome::Failed, Some("R0601")));
        let mut stopped = Report::default();
        stopped.add("backup", &ended(Some(130), json!({ "code": "R0003" })), true);
        assert_eq!(stopped.outcome(), Outcome::Stopped);
        assert_eq!(Report::default().outcome(), Outcome::Stopped);
    }

    #[test]
    fn damage_gaps_and_drills_are_kept() {
        let verify = of(
            "verify",
            &[ended(Some(4), json!({ "damaged": true })), ended(Some(0), json!({ "damaged": false }))],
        );
        assert_eq!((verify.outcome(), &verify.details["damaged"]), (Outcome::Good, &json!(true)));
        let server = |gaps: &[&str], until: &str| {
            json!({ "servers": [{ "component": "db", "system_identifier": "77", "timelines": [{ "timeline": 1 + gaps.len() }], "gaps": gaps, "missing_histories": ["00000002.history"],
                "snapshots": [{ "time": "2026-01-31T12:00:00Z", "tablespaces": [7, gaps.len()], "ways": [{ "recoverable_until": until }] }] }] })
        };
        let check = of(
            "wal-check",
            &[ended(Some(4), server(&["x"], "0/3000000")), ended(Some(0), server(&[], "0/2000000"))],
        );
        let expected = json!({ "timelines": { "77": 2 }, "gaps": 3, "open_gaps": 0, "open": [], "missing_histories": 2, "tablespaces": [7], "window_start": "2026-01-31T12:00:00Z", "window_end_lsn": 0x0300_0000 });
        assert_eq!((check.outcome(), &check.details["db"]), (Outcome::Good, &expected));
        let result = json!({ "scenario": "deletion", "verdict": "red", "rto_measured_seconds": 1.5,
            "components": [{ "component": "db", "rpo_measured_seconds": 0.25 }, { "component": "models", "rpo_measured_seconds": null }] });
        let drill = of("drill", &[ended(Some(4), result)]);
        assert_eq!((drill.outcome(), &drill.details["verdict"]), (Outcome::Good, &json!("red")));
        assert_eq!(drill.details["rpo_measured_seconds"], json!({ "db": 0.25 }));
    }

    #[test]
    fn the_window_is_that_of_the_repository_that_reaches_furthest() {
        let server = |day: u8, until: &str| {
            let snapshot = |day: u8| json!({ "time": format!("2026-01-{day:02}T12:00:00.5Z"), "ways": [{ "recoverable_until": until }] });
            let servers = [json!({ "component": "db", "snapshots": [snapshot(day + 1), snapshot(day)] })];
            ended(Some(0), json!({ "servers": servers }))
        };
        let none = || ended(Some(0), json!({ "servers": [{ "component": "db", "snapshots": [] }] }));
        let window = |steps: &[Ended]| {
            let check = of("wal-check", steps);
            let found = &check.details["db"];
            (found["window_start"].as_str().map(|it| it[8..10].to_owned()), found["window_end_lsn"].as_u64())
        };
        let (long, short) = (|| server(20, "0/30"), || server(3, "0/20"));
        let of_long = (Some("20".to_owned()), Some(0x30));
        for steps in [[long(), short()], [short(), long()], [long(), none()], [none(), long()]] {
            assert_eq!(window(&steps), of_long);
        }
        // Of two that reach as far, the one that begins earlier.
        for steps in [[long(), server(9, "0/30")], [server(9, "0/30"), long()]] {
            assert_eq!(window(&steps), (Some("09".to_owned()), Some(0x30)));
        }
        assert_eq!(window(&[none(), none()]), (None, None));
    }

    #[test]
    fn a_gap_is_open_until_a_snapshot_begins_behind_it() {
        let snapshot =
            |day: u8, ways: Value| json!({ "time": format!("2026-01-{day:02}T12:00:00Z"), "ways": ways });
        let way =
            |timeline: u32, gaps: u32| json!({ "timeline": timeline, "gaps": gaps, "first_missing": ["x"] });
        let open_gaps = |snapshots: &[Value]| open_gaps(snapshots).0;
        let cut = snapshot(1, json!([way(1, 2)]));
        assert_eq!(open_gaps(std::slice::from_ref(&cut)), 2);
        assert_eq!(open_gaps(&[snapshot(2, json!([way(1, 0)])), cut.clone()]), 0);
        // What was left behind on a former timeline is nobody's future.
        assert_eq!(open_gaps(&[cut, snapshot(3, json!([way(1, 3), way(2, 1)]))]), 1);
        assert_eq!(open_gaps(&[json!({ "time": 7, "ways": "x" })]), 0);
    }

    #[test]
    fn any_document_is_survived() {
        for document in [
            Value::Null,
            json!([1]),
            json!({ "backups": 7, "servers": [{}], "components": [null] }),
            json!("x"),
        ] {
            for verb in ["backup", "verify", "wal-check", "drill", "retention"] {
                assert_eq!(of(verb, &[ended(Some(1), document.clone())]).outcome(), Outcome::Failed);
            }
        }
    }
}
