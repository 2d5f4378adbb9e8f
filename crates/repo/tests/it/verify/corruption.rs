//! Thousands of ways to damage a repository, each against the truth.

use super::{Fixture, files, noise, text, truth};
use retoma_repo::format::lock::Lock;
use retoma_repo::format::time::Time;
use retoma_repo::ops::verify::{ReadData, Severity};
use retoma_repo::{Folder, SnapshotId};
use retoma_testkit::Random;
use std::collections::{BTreeMap, BTreeSet};

/// Three components. `logs` and `models` share a file; all of `models` is stored twice, in different packs.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    let models = files([
        ("model.bin", noise(1, 9_000)),
        ("nested/deeper/vocabulary.txt", text(2, 6_000)),
        ("nested/empty", Vec::new()),
    ]);
    fixture.back_up("models", &models);
    for name in fixture.objects(Folder::Index) {
        fixture.store.hide(&name);
    }
    fixture.back_up("models", &models);
    fixture.store.heal();
    let logs = files([
        ("2026/01.log", text(3, 9_000)),
        ("2026/02.log", text(4, 3_000)),
        ("model.bin", noise(1, 9_000)),
        ("noise", noise(5, 4_000)),
    ]);
    fixture.back_up("logs", &logs);
    fixture.back_up("config", &files([("app.toml", text(6, 700)), ("2026/01.log", text(3, 9_000))]));
    let lock = Lock {
        time: Time::default(),
        exclusive: false,
        hostname: "h".into(),
        username: "u".into(),
        pid: 1,
        uid: None,
        gid: None,
        since: None,
        retoma: None,
    };
    fixture.repository.save_lock(&lock).unwrap();
    fixture
}

#[derive(Debug, Clone)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { bytes: usize },
    Append { bytes: usize },
    Delete,
    SwapWith(String),
}

fn cases(fixture: &Fixture, random: &mut Random) -> Vec<(String, Damage)> {
    let folders = [Folder::Data, Folder::Index, Folder::Snapshots, Folder::Keys, Folder::Locks];
    let mut names: Vec<String> = folders.into_iter().flat_map(|folder| fixture.objects(folder)).collect();
    names.push("config".to_owned());
    let mut cases = Vec::new();
    for name in &names {
        let size = bytes(fixture, name).len();
        // Both ends of a file hold what is special in it: nonces, headers, lengths.
        let ends = [0, 15, 16, size - 1, size - 4, size - 5, size - 20].into_iter();
        let flips = ends.chain((0..100).map(|_| random.index(size))).collect::<Vec<_>>();
        let bit = |random: &mut Random| 1 << random.below(8);
        cases.extend(flips.into_iter().map(|at| (name.clone(), Damage::Flip { at, bit: bit(random) })));
        let cuts = [0, 1, 4, 31, size - 1, size - 4, size / 2].into_iter();
        let cuts = cuts.chain((0..6).map(|_| random.index(size))).collect::<Vec<_>>();
        cases.extend(cuts.into_iter().map(|bytes| (name.clone(), Damage::Cut { bytes })));
        cases.extend([1, 4, 100].map(|bytes| (name.clone(), Damage::Append { bytes })));
        cases.push((name.clone(), Damage::Delete));
        let others: Vec<&String> = names.iter().filter(|other| *other != name).collect();
        for _ in 0..3 {
            let other = others[random.index(others.len())];
            cases.push((name.clone(), Damage::SwapWith(other.clone())));
        }
    }
    cases
}

fn bytes(fixture: &Fixture, name: &str) -> Vec<u8> {
    fixture.repository.store().get(&retoma_repo::store::Key::new(name).unwrap()).unwrap().to_vec()
}

fn apply(fixture: &Fixture, name: &str, damage: &Damage) {
    let mut contents = bytes(fixture, name);
    match damage {
        Damage::Flip { at, bit } => contents[*at] ^= bit,
        Damage::Cut { bytes } => contents.truncate(*bytes),
        Damage::Append { bytes } => contents.extend(noise(9, *bytes)),
        Damage::Delete => return fixture.store.hide(name),
        Damage::SwapWith(other) => {
            let theirs = bytes(fixture, other);
            fixture.store.replace(other, contents);
            contents = theirs;
        }
    }
    fixture.store.replace(name, contents);
}

/// Verify against the truth, for one damaged repository. Gives the number of snapshots that were hit.
fn examine(fixture: &Fixture, name: &str, damage: &Damage) -> usize {
    let report = fixture.verify(ReadData::All);
    let shown = || format!("{name} {damage:?}: {report:#?}");
    let mut lost: BTreeMap<SnapshotId, BTreeSet<Vec<u8>>> = truth::lost(fixture);
    if matches!(damage, Damage::Delete) && name.starts_with("snapshots/") {
        // Nothing in the repository remembers a snapshot that is not there: this is what the evidence is for.
        lost.retain(|id, _| !name.ends_with(&id.to_hex()));
    }
    let hit: BTreeSet<SnapshotId> = report.snapshots_hit().into_iter().collect();
    assert_eq!(hit, lost.keys().copied().collect(), "the snapshots that are hit: {}", shown());
    let changed = match damage {
        Damage::Delete => name.starts_with("data/") || name.starts_with("keys/") || name == "config",
        _ => true,
    };
    assert!(!changed || report.findings.iter().any(|finding| finding.object == *name), "{}", shown());
    for hit in report.damage().flat_map(|finding| &finding.snapshots) {
        assert!(fixture.known.contains_key(&hit.id), "{}", shown());
        for path in &hit.paths {
            let below = |lost: &Vec<u8>| path.ends_with(b"/") && lost.starts_with(path);
            assert!(lost[&hit.id].iter().any(|lost| lost == path || below(lost)), "{}", shown());
        }
    }
    lost.len()
}

#[test]
fn every_damage_that_changes_what_can_be_restored_is_named() {
    let fixture = fixture();
    let clean = fixture.verify(ReadData::All);
    assert!(clean.findings.is_empty(), "{clean:#?}");
    assert!(truth::lost(&fixture).is_empty());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("SEED={seed}");
    let cases = cases(&fixture, &mut Random::new(seed));
    assert!(cases.len() >= 2_000, "{}", cases.len());
    let (mut hits, mut harmless) = (0, 0);
    for (name, damage) in &cases {
        apply(&fixture, name, damage);
        match examine(&fixture, name, damage) {
            0 => harmless += 1,
            _ => hits += 1,
        }
        fixture.store.heal();
    }
    // Both kinds must be there, or the comparison above proves nothing.
    assert!(hits > 800 && harmless > 300, "{hits} {harmless}");
}

#[test]
fn without_reading_data_damage_of_what_is_read_anyway_is_still_found() {
    let fixture = fixture();
    for (name, damage) in cases(&fixture, &mut Random::new(7)) {
        let structure = ["index/", "snapshots/", "keys/"].iter().any(|folder| name.starts_with(folder));
        let listed =
            matches!(damage, Damage::Cut { .. } | Damage::Append { .. }) && name.starts_with("data/");
        if !(structure || listed || name == "config")
            || matches!(damage, Damage::Delete | Damage::SwapWith(_))
        {
            continue;
        }
        apply(&fixture, &name, &damage);
        let report = fixture.verify(ReadData::None);
        let found = report.damage().find(|finding| finding.object == name);
        assert!(found.is_some(), "{name} {damage:?}: {report:#?}");
        let lost: BTreeSet<SnapshotId> = truth::lost(&fixture).into_keys().collect();
        assert_eq!(
            report.snapshots_hit().into_iter().collect::<BTreeSet<_>>(),
            lost,
            "{name} {damage:?} {report:#?}"
        );
        fixture.store.heal();
    }
}

#[test]
fn damage_of_one_copy_is_a_note_while_another_is_whole() {
    let fixture = fixture();
    let mut notes = 0;
    for name in fixture.objects(Folder::Data) {
        let mut contents = bytes(&fixture, &name);
        contents[20] ^= 1;
        fixture.store.replace(&name, contents);
        let report = fixture.verify(ReadData::All);
        let finding = report.findings.iter().find(|finding| finding.object == name).unwrap();
        assert_eq!(finding.offset_bytes, Some(0));
        assert_eq!(finding.severity == Severity::Note, truth::lost(&fixture).is_empty(), "{report:#?}");
        assert_eq!(finding.severity == Severity::Note, finding.message.ends_with("another copy is whole"));
        notes += usize::from(finding.severity == Severity::Note);
        fixture.store.heal();
    }
    assert!(notes >= 2, "{notes}");
}
