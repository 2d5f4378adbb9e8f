//! Forget and prune: what rules and holds keep, what space comes back, and that what is left is whole, for restic too.

use crate::kit::{Home, MODELS, tree};
use serde_json::Value;

/// Three backups; the second one has 4 MB that the others have not.
fn three_backups() -> Home {
    let home = Home::with(&format!("{MODELS}\n[retention]\nkeep_last = 1\n"));
    home.seed_models();
    home.back_up();
    home.write("models/large", &retoma_testkit::bytes(9, 4_000_000));
    home.back_up();
    std::fs::remove_file(home.path("models/large")).unwrap();
    home.write("models/small", b"small");
    home.back_up();
    home
}

fn ids(home: &Home) -> Vec<String> {
    home.snapshots().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn actions(document: &Value) -> Vec<&str> {
    document["decisions"].as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect()
}

fn size(folder: &std::path::Path) -> usize {
    tree(folder).values().map(|(_, _, _, bytes)| bytes.len()).sum()
}

#[test]
fn rules_keep_the_last_one_and_nothing_goes_unasked() {
    let home = three_backups();
    let before = ids(&home);
    assert_eq!(before.len(), 3);
    let dry = home.json(&["forget", "--dry-run"], 0, "retoma.forget/1");
    assert_eq!((&dry["dry_run"], dry["removed"].as_array().unwrap().len()), (&true.into(), 0));
    let mut planned = actions(&dry);
    planned.sort_unstable();
    assert_eq!(planned, ["keep", "remove", "remove"]);
    home.assert_snapshot("forget_without_yes", &home.run(&["forget"]).expect(1));
    assert_eq!(ids(&home), before);
    let done = home.json(&["forget", "--yes"], 0, "retoma.forget/1");
    assert_eq!(done["removed"].as_array().unwrap().len(), 2);
    assert_eq!(ids(&home), [before[2].as_str()]);
}

#[test]
fn a_hold_protects_from_rules_and_from_removal_by_name() {
    let home = three_backups();
    let first = ids(&home)[0].clone();
    let before = home.snapshots();
    for change in ["--hold", "--release"] {
        home.run(&["forget", change, &first, "--dry-run"]).expect(1);
        assert_eq!(home.snapshots(), before, "{change} is refused, not done");
    }
    let held = home.json(&["forget", "--hold", &first], 0, "retoma.forget/1");
    assert_eq!(held["holds"][0]["held"], true);
    let held = held["holds"][0]["id"].as_str().unwrap().to_owned();
    let refused = home.run(&["forget", "--snapshot", &held, "--yes"]).expect(1);
    home.assert_snapshot("forget_held", &refused);
    let done = home.json(&["forget", "--yes"], 0, "retoma.forget/1");
    assert_eq!(done["removed"].as_array().unwrap().len(), 1);
    assert!(ids(&home).contains(&held));
    let released = home.json(&["forget", "--release", &held], 0, "retoma.forget/1");
    assert_eq!(released["holds"][0]["held"], false);
    home.run(&["forget", "--yes"]).expect(0);
    assert_eq!(ids(&home).len(), 1);
}

#[test]
fn prune_gives_space_back_and_what_is_left_restores_with_restic_too() {
    let home = three_backups();
    home.run(&["forget", "--yes"]).expect(0);
    let before = size(&home.path("repository/data"));
    assert!(before > 4_000_000);
    let dry = home.json(&["prune", "--dry-run", "--grace", "0s"], 0, "retoma.prune/1");
    assert!(dry["done"].is_null() && dry["unused_bytes"].as_u64().unwrap() > 3_900_000, "{dry:#}");
    home.run(&["prune", "--grace", "0s"]).expect(1);
    assert_eq!(size(&home.path("repository/data")), before);
    let done = home.json(&["prune", "--grace", "0s", "--yes"], 0, "retoma.prune/1");
    assert!(done["done"]["removed_bytes"].as_u64().unwrap() > 3_900_000, "{done:#}");
    assert!(size(&home.path("repository/data")) < before - 3_900_000);
    home.run(&["verify", "--read-data"]).expect(0);
    home.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));

    let Some(check) = home.restic(&["check", "--read-data"]) else { return };
    check.expect(0);
    let id = ids(&home).remove(0);
    home.restic(&["restore", &id, "--target", &home.text_path("by-restic")]).unwrap().expect(0);
    let there = home.path("by-restic").join(home.path("models").strip_prefix("/").unwrap());
    assert_eq!(tree(&there), tree(&home.path("models")));
}

#[test]
fn with_grace_prune_marks_first_and_deletes_later() {
    let home = three_backups();
    home.run(&["forget", "--yes"]).expect(0);
    let before = size(&home.path("repository/data"));
    let done = home.json(&["prune", "--yes"], 0, "retoma.prune/1");
    assert!(done["done"]["marked_packs"].as_u64().unwrap() > 0, "{done:#}");
    assert_eq!(done["done"]["removed_packs"], 0);
    assert!(size(&home.path("repository/data")) >= before, "deleted before the grace was over");
    let waiting = home.json(&["prune", "--dry-run"], 0, "retoma.prune/1");
    assert_eq!(waiting["waiting"].as_array().unwrap().len(), 1, "{waiting:#}");
    home.run(&["verify", "--read-data"]).expect(0);
}

#[test]
fn the_plan_of_a_prune_says_what_happens_now_and_what_later() {
    let home = three_backups();
    home.run(&["forget", "--yes"]).expect(0);
    home.assert_snapshot("prune_plan_at_once", &home.run(&["prune", "--grace", "0s", "--dry-run"]).expect(0));
    home.assert_snapshot("prune_plan", &home.run(&["prune", "--dry-run"]).expect(0));
    let now = home.json(&["prune", "--grace", "0s", "--dry-run"], 0, "retoma.prune/1");
    assert_eq!(now["mark_packs"], 0);
    assert!(now["delete_packs"].as_u64().unwrap() > 0, "{now:#}");
}

#[test]
fn a_prune_without_any_snapshot_wants_to_be_told() {
    let home = Home::backed_up();
    for entry in std::fs::read_dir(home.path("repository/snapshots")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let refused = home.run(&["prune", "--grace", "0s", "--yes"]).expect(1);
    home.assert_snapshot("prune_without_snapshots", &refused);
    home.run(&["prune", "--grace", "0s", "--yes", "--delete-everything"]).expect(0);
    assert_eq!(size(&home.path("repository/data")), 0);
}
