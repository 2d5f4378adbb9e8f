use super::*;
use crate::check::{Checked, ran};
use crate::interrupt::Stopwatch;
use jiff::Timestamp;
use retoma_core::drill::{CheckOutcome, Contradiction, Evidence, Reason, StepName, WaterfallRecorder};
use retoma_core::manifest::{ComponentKind, Origin, parse};
use retoma_repo::SnapshotId;
use std::collections::BTreeSet;

/// The tree comes first in the file, and the database first in a recovery.
const MANIFEST: &str = "version = 1\n[service]\nname = \"shop\"\nhealth = \"http://127.0.0.1:1/h\"\nstart = [\"run\"]\n\
    [[repository]]\nname = \"r\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
    [[component]]\nname = \"tree\"\nkind = \"files\"\ntier = \"low\"\npath = \"/t\"\n\
    [[component]]\nname = \"data\"\nkind = \"sqlite\"\ntier = \"critical\"\npath = \"/d\"\n\
    [drill]\nmarker_url = \"http://127.0.0.1:1/marker\"\n";

fn manifest_of(text: &str) -> Manifest {
    parse(text, &Origin { file_name: "retoma.toml".to_owned(), dir: "/srv".into() }).unwrap()
}

fn head(scenario: Scenario) -> Head {
    Head {
        drill: "d1".to_owned(),
        scenario,
        started: Timestamp::UNIX_EPOCH,
        repeat: "retoma drill".to_owned(),
        environment: Environment {
            tool_version: "1".to_owned(),
            manifest_hash: "h".to_owned(),
            repository_id: "first".to_owned(),
            key_id: "key".to_owned(),
            system: "linux".to_owned(),
            cpus: 1,
            memory_bytes: 1,
        },
    }
}

fn seconds(whole: u64) -> Seconds {
    Seconds::from_secs(whole)
}

fn recovered(component: &str, kind: ComponentKind) -> RecoveredComponent {
    RecoveredComponent {
        component: component.to_owned(),
        kind,
        snapshot: SnapshotId::of(component.as_bytes()),
        path: "/nowhere".into(),
        files: 1,
        checked: Checked {
            checks: vec![ran("own", true, "1", "1")],
            bytes: 10,
            rows: (kind == ComponentKind::Sqlite).then_some(5),
            facts: None,
        },
        recovery: None,
        as_of: Timestamp::UNIX_EPOCH,
        elapsed: Duration::from_secs(1),
        ready: seconds(1),
    }
}

fn inventory(bytes: u64, rows: Option<u64>) -> Inventory {
    let mut inventory = Inventory::default();
    (inventory.bytes, inventory.rows) = (bytes, rows);
    inventory
}

fn marks(lost: u64) -> RpoMeasured {
    RpoMeasured {
        measured_seconds: Some(seconds(lost)),
        markers_written: 20,
        markers_lost: lost,
        lost: [].into_iter().collect(),
        gaps: [].into_iter().collect(),
    }
}

/// Detected after one second, back after four.
fn waterfall() -> Waterfall {
    let mut recorder = WaterfallRecorder::start(Duration::ZERO, StepName::Detect);
    recorder.begin(StepName::Fetch, None, Duration::from_secs(1)).unwrap();
    recorder.finish(Duration::from_secs(4)).unwrap()
}

/// Of a drill that went well; what came back first is told first.
fn good() -> Facts {
    Facts {
        exposed: [("tree", 2), ("data", 3)]
            .map(|(name, it)| (name.to_owned(), Duration::from_secs(it)))
            .into(),
        inventories: vec![inventory(11, None), inventory(12, Some(6))],
        timeline: None,
        recovered: Recovered {
            components: vec![
                recovered("data", ComponentKind::Sqlite),
                recovered("tree", ComponentKind::Files),
            ],
            service_checks: vec![ran("GET /h", true, "status 200", "status 200")],
            ..Recovered::default()
        },
        waterfall: Some(waterfall()),
        controls: vec![
            ControlResult::negative("flipped", "R0203", Some("R0203"), ""),
            ControlResult::positive("sound", None, ""),
        ],
        marks: vec![Some(marks(1)), Some(marks(2))],
        ..Facts::default()
    }
}

fn assembled(facts: Facts) -> DrillReport {
    assemble(&manifest_of(MANIFEST), head(Scenario::Deletion), facts, None).unwrap()
}

#[test]
fn each_component_gets_its_own_numbers_whatever_the_order_of_the_recovery_was() {
    let report = assembled(good());
    assert_eq!(report.verdict, VerdictKind::Green, "{:#?}", report.reasons);
    let [tree, data] = report.components.as_slice() else { panic!("{:?}", report.components) };
    assert_eq!((tree.component.as_str(), tree.kind.as_str(), tree.tier.as_str()), ("tree", "files", "low"));
    assert_eq!(
        (data.component.as_str(), data.kind.as_str(), data.tier.as_str()),
        ("data", "sqlite", "critical")
    );
    assert_eq!((tree.bytes_before, tree.bytes, tree.rows_before, tree.rows), (11, 10, None, None));
    assert_eq!((data.bytes_before, data.bytes, data.rows_before, data.rows), (12, 10, Some(6), Some(5)));
    assert_eq!((tree.markers_lost, data.markers_lost, data.markers_written), (1, 2, 20));
    assert_eq!((tree.rpo_measured_seconds, data.rpo_measured_seconds), (Some(seconds(1)), Some(seconds(2))));
    // An interval of an hour, and of 4 min 30 s, and what bringing it there took.
    assert_eq!(tree.rpo_worst_case_seconds, Some(seconds(3602)));
    assert_eq!(data.rpo_worst_case_seconds, Some(seconds(273)));
    // A component is back when the service is.
    for result in [tree, data] {
        assert_eq!(result.rto_measured_seconds, Some(seconds(4)));
    }
    assert_eq!((report.rto_measured_seconds, report.back_after()), (seconds(4), Some(seconds(4))));
    assert_eq!((data.rto_objective_seconds, data.rpo_objective_seconds), (seconds(900), seconds(300)));
    assert_eq!(DrillReport::from_json(&report.to_json().unwrap()).unwrap(), report);
}

#[test]
fn what_the_service_answered_stands_once_with_the_most_important_component() {
    let report = assembled(good());
    let names =
        |at: usize| report.components[at].checks.iter().map(|it| it.name.as_str()).collect::<Vec<_>>();
    assert_eq!((names(0), names(1)), (vec!["own"], vec!["own", "GET /h"]));
    let mut facts = good();
    facts.recovered.service_checks[0].outcome = CheckOutcome::Failed;
    let failed = assembled(facts);
    assert_eq!(failed.verdict, VerdictKind::Red);
    assert_eq!(
        failed.reasons,
        [Reason::CheckFailed { component: "data".to_owned(), check: "GET /h".to_owned() }]
    );
}

#[test]
fn a_component_that_did_not_come_back_has_no_result_and_makes_the_drill_red() {
    let mut facts = good();
    facts.recovered.components.remove(1);
    let report = assembled(facts);
    assert_eq!(report.components.len(), 1);
    assert_eq!(report.required_components, ["tree", "data"]);
    assert_eq!(report.reasons, [Reason::ComponentMissing { component: "tree".to_owned() }]);
    assert_eq!(report.components[0].bytes_before, 12, "the other one keeps its own numbers");
}

#[test]
fn what_was_not_measured_is_absent_and_never_zero() {
    let facts =
        Facts { exposed: BTreeMap::new(), marks: vec![None, None], inventories: Vec::new(), ..good() };
    let report = assembled(facts);
    for result in &report.components {
        assert_eq!((result.rpo_measured_seconds, result.rpo_worst_case_seconds), (None, None));
        assert_eq!((result.markers_written, result.bytes_before, result.rows_before), (0, 0, None));
    }
    let lacks: Vec<_> = report
        .reasons
        .iter()
        .filter_map(|reason| match reason {
            Reason::NoEvidence { component: Some(component), evidence } => {
                Some((component.as_str(), *evidence))
            }
            _ => None,
        })
        .collect();
    for component in ["tree", "data"] {
        for evidence in [Evidence::Markers, Evidence::RpoWorstCase] {
            assert!(lacks.contains(&(component, evidence)), "{component}: {lacks:?}");
        }
    }
    assert_eq!(report.verdict, VerdictKind::Red);
}

#[test]
fn a_drill_that_ended_early_has_the_steps_so_far_and_no_time_in_which_it_was_back() {
    let mut timeline = Timeline::start(Stopwatch::start(), StepName::Detect);
    timeline.begin(StepName::Fetch, Some("data")).unwrap();
    let facts = Facts { waterfall: None, timeline: Some(timeline), controls: Vec::new(), ..good() };
    let failure = Failure { code: "R0204".to_owned(), message: "gone".to_owned(), hint: None };
    let report = assemble(&manifest_of(MANIFEST), head(Scenario::Deletion), facts, Some(failure)).unwrap();
    let steps: Vec<_> = report.waterfall.steps().iter().map(|step| step.name).collect();
    assert_eq!(steps, [StepName::Detect, StepName::Fetch]);
    assert!(report.components.iter().all(|it| it.rto_measured_seconds.is_none()));
    assert_eq!((report.verdict, report.back_after()), (VerdictKind::Red, None));
    assert!(matches!(&report.reasons[0], Reason::Failed { code, .. } if code == "R0204"));
    // Nothing at all: it ended before the disaster.
    let failure = Failure { code: "R0204".to_owned(), message: "gone".to_owned(), hint: None };
    let report =
        assemble(&manifest_of(MANIFEST), head(Scenario::Deletion), Facts::default(), Some(failure)).unwrap();
    assert!(report.waterfall.steps().is_empty() && report.components.is_empty());
    assert_eq!(report.rto_measured_seconds, Seconds::ZERO);
}

#[test]
fn shipped_wal_is_what_could_have_been_lost_and_not_the_interval_of_backups() {
    let report = assembled(Facts { worst_case: Some(seconds(1)), ..good() });
    assert!(report.components.iter().all(|it| it.rpo_worst_case_seconds == Some(seconds(1))));
    // More than the promise is red, however little was lost this time.
    let report = assembled(Facts { worst_case: Some(seconds(301)), ..good() });
    assert!(matches!(&report.reasons[..], [Reason::RpoMissed { component, .. }] if component == "data"));
}

#[test]
fn numbers_that_contradict_each_other_are_no_success() {
    let mut facts = good();
    facts.marks[0] = Some(RpoMeasured { markers_lost: 21, ..marks(1) });
    let what = Contradiction::MarkersLostBeyondWritten;
    assert_eq!(assembled(facts).reasons, [Reason::Contradiction { component: "tree".to_owned(), what }]);
}

#[test]
fn evidence_names_the_repository_and_the_key_that_served_after_the_disaster() {
    let environment = |facts| {
        let environment = assembled(facts).environment;
        (environment.repository_id, environment.key_id)
    };
    assert_eq!(environment(good()), ("first".to_owned(), "key".to_owned()));
    let other = ("second".to_owned(), "another".to_owned());
    assert_eq!(environment(Facts { served_by: Some(other.clone()), ..good() }), other);
}

#[test]
fn what_a_drill_leaves_open_depends_on_its_scenario_and_its_manifest() {
    let open = |text: &str, scenario| {
        let facts = Facts { not_proven: vec!["More.".to_owned()], ..good() };
        assemble(&manifest_of(text), head(scenario), facts, None).unwrap().not_proven
    };
    let usual = open(MANIFEST, Scenario::Deletion);
    assert_eq!(usual.len(), 5);
    assert_eq!(usual.last().map(String::as_str), Some("More."));
    let more = |text: &str, scenario| {
        let mut more = open(text, scenario);
        more.retain(|it| !usual.contains(it));
        more.join(" ")
    };
    for (scenario, part) in [
        (Scenario::LostKey, "second key is at hand"),
        (Scenario::NewKey, "the new key reaches everybody"),
        (Scenario::LostRepository, "your repositories get each backup"),
        (Scenario::LostRegion, "the programs were not"),
        (Scenario::InfrastructureFailure, "the programs were not"),
        (Scenario::Ransomware, "nobody deletes or overwrites"),
    ] {
        assert!(more(MANIFEST, scenario).contains(part), "{scenario}");
    }
    assert_eq!(more(MANIFEST, Scenario::Corruption), "");
    let without = |line: &str| more(&MANIFEST.replace(line, ""), Scenario::Deletion);
    assert!(without("start = [\"run\"]\n").contains("no `start`"));
    assert!(without("health = \"http://127.0.0.1:1/h\"\n").contains("no `health`"));
    assert!(without("marker_url = \"http://127.0.0.1:1/marker\"\n").contains("without `marker_url`"));
    // Each sentence once, and each is one.
    for scenario in Scenario::ALL {
        let all = open(MANIFEST, scenario);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{scenario}");
        assert!(all.iter().all(|it| it.ends_with('.')), "{all:?}");
    }
}
