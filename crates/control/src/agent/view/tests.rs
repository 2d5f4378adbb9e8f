use super::*;
use retoma_core::manifest::{Origin, parse};
use std::collections::BTreeMap;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// One component in two repositories, and what each of them has of it and of others.
fn manifest() -> Manifest {
    let repository = |name: &str| {
        format!("[[repository]]\nname = \"{name}\"\nurl = \"file:///{name}\"\npassword = \"env:P\"\n")
    };
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\n{}{}[[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"high\"\npath = \"/m\"\n",
        repository("near"),
        repository("far")
    );
    parse(&text, &Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() }).unwrap()
}

fn look(ages: &[(&str, i64, i64)]) -> Look {
    let ages = ages.iter().map(|(name, oldest, newest)| ((*name).to_owned(), (at(*oldest), at(*newest))));
    Look { ages: ages.collect(), ..Look::default() }
}

#[test]
fn a_component_is_everywhere_as_old_as_in_the_repository_that_is_furthest_behind() {
    let manifest = manifest();
    let everywhere = |looks: &[(&str, Look)]| {
        let looks: Vec<_> = looks.iter().map(|(name, look)| ((*name).to_owned(), look.clone())).collect();
        newest_everywhere(&manifest.components[0], &looks)
    };
    let (early, late) = (look(&[("models", 0, 50)]), look(&[("other", 0, 99), ("models", 10, 70)]));
    assert_eq!(everywhere(&[("near", early.clone()), ("far", late.clone())]), Some(at(50)));
    assert_eq!(everywhere(&[("far", late.clone()), ("near", late.clone())]), Some(at(70)));
    // One that has none, or was not looked at, has nothing of it.
    assert_eq!(everywhere(&[("near", late.clone()), ("far", look(&[("other", 0, 1)]))]), None);
    assert_eq!(everywhere(&[("near", late.clone())]), None);
    assert_eq!(everywhere(&[("near", late), ("else", early)]), None);
}

#[test]
fn a_mass_change_of_somebody_elses_component_is_not_ours_to_tell() {
    let id = SnapshotId([0xab; 32]);
    let mut found = look(&[]);
    found.mass_changes =
        BTreeMap::from([("models".to_owned(), (at(5), id)), ("other".to_owned(), (at(9), id))]);
    let expected =
        ObservedMassChange { component: "models".to_owned(), snapshot: "abababab".to_owned(), time: at(5) };
    assert_eq!(mass_changes(&manifest(), &found), [expected]);
}

#[test]
fn a_spool_is_as_large_as_its_files_and_links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(spool_bytes(folder.path()), 0, "there is none");
    let spool = folder.path().join(".retoma/wal/db");
    std::fs::create_dir_all(spool.join("77")).unwrap();
    std::fs::write(spool.join("77/one"), [0; 10]).unwrap();
    std::fs::write(spool.join("two"), [0; 5]).unwrap();
    std::fs::write(folder.path().join(".retoma/other"), [0; 1000]).unwrap();
    assert_eq!(spool_bytes(folder.path()), 15);
    // A link back to the top would never end.
    std::os::unix::fs::symlink(folder.path(), spool.join("loop")).unwrap();
    std::os::unix::fs::symlink(folder.path().join(".retoma/other"), spool.join("other")).unwrap();
    assert_eq!(spool_bytes(folder.path()), 15);
}

#[test]
fn a_journal_that_says_nonsense_of_a_drill_is_no_green_one() {
    let line = |details: Value| -> Line {
        let line = serde_json::json!({
            "event": "ended", "id": 1, "task": "drill", "verb": "drill", "started": at(1), "ended": at(2),
            "outcome": "good", "details": details,
        });
        serde_json::from_value(line).unwrap()
    };
    for details in [
        Value::Null,
        serde_json::json!({ "verdict": 1 }),
        serde_json::json!({ "verdict": "Green" }),
        serde_json::json!({ "verdict": "red", "last_green": "yesterday" }),
        serde_json::json!([7]),
    ] {
        let line = line(details.clone());
        assert!(!drill(&line).is_green, "{details}");
        assert_eq!(last_green(&line), None, "{details}");
        let mut next = serde_json::json!({ "verdict": "red" });
        note_green(Some(&line), at(3), &mut next);
        assert_eq!(next, serde_json::json!({ "verdict": "red" }), "{details}");
    }
    let measured = line(serde_json::json!({
        "scenario": "deletion", "verdict": "green", "rto_measured_seconds": 1.5,
        "rpo_measured_seconds": { "models": 0.25, "odd": "x" },
    }));
    let drill = drill(&measured);
    assert!(drill.is_green && drill.started == at(1) && drill.scenario == "deletion");
    assert_eq!(
        (drill.rto_measured_seconds, drill.rpo_measured_seconds),
        (Some(1.5), vec![("models".to_owned(), 0.25)])
    );
}
