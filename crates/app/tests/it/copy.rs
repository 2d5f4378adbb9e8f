//! `copy` as a whole: what it prints, what arrives, and what it says when it cannot.

use crate::kit::{Home, MODELS, PASSWORD, tree};
use retoma_core::Secret;
use retoma_repo::Repository;
use retoma_repo::format::time::Time;
use retoma_repo::store::{BlockingStore, LocalStore};
use std::sync::Arc;

/// Models in a first backup; a second repository, with a password of its own, is not there yet.
pub(crate) fn two() -> Home {
    let home = Home::with("");
    home.write_private("second-password", "another password");
    let second = format!(
        "\n[[repository]]\nname = \"second\"\nurl = \"file://{}\"\npassword = \"file:second-password\"\n{MODELS}",
        home.text_path("elsewhere")
    );
    home.write_manifest(&second);
    home.seed_models();
    home.run(&["backup", "-r", "local"]).expect(0);
    home
}

/// Flips a bit in the largest pack of `repository`, which holds file contents.
pub(crate) fn damage_largest_pack(home: &Home, repository: &str) {
    let folder = home.path(&format!("{repository}/data"));
    let (name, (.., contents)) =
        tree(&folder).into_iter().max_by_key(|(_, (.., contents))| contents.len()).unwrap();
    let mut bytes = contents;
    // In its largest blob.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Objects are read-only.
    std::fs::remove_file(folder.join(&name)).unwrap();
    std::fs::write(folder.join(&name), bytes).unwrap();
}

#[test]
fn what_was_copied_is_restored_from_the_copy() {
    let home = two();
    home.assert_snapshot("copy_plan", &home.run(&["copy", "--dry-run"]).expect(0));
    assert!(!home.path("elsewhere").exists(), "a dry run makes nothing");
    let before = tree(&home.path("repository"));
    home.assert_snapshot("copy", &home.run(&["copy"]).expect(0));
    assert_eq!(tree(&home.path("repository")), before, "the source is only read");
    home.assert_snapshot("copy_again", &home.run(&["copy"]).expect(0));
    home.run(&["verify", "--read-data", "-r", "second"]).expect(0);
    std::fs::remove_dir_all(home.path("repository")).unwrap();
    home.run(&["restore", "models", "--target", "restored", "-r", "second"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
    // And back: the first repository is made anew.
    home.run(&["copy", "--from", "second", "--to", "local"]).expect(0);
    assert_eq!(home.snapshots().len(), 1);
    home.run(&["verify", "--read-data"]).expect(0);
    if let Some(check) = home.restic(&["check", "--read-data"]) {
        check.expect(0);
    }
}

#[test]
fn one_snapshot_is_copied_by_its_id() {
    let home = two();
    let first = home.snapshots()[0]["id"].as_str().unwrap().to_owned();
    home.write("models/new", b"new");
    home.run(&["backup", "-r", "local"]).expect(0);
    let done = home.json(&["copy", "--snapshot", &first[..12]], 0, "retoma.copy/1");
    let copy = &done["copies"][0];
    assert_eq!(
        (&copy["from"], &copy["to"], &copy["done"]["snapshots"]),
        (&"local".into(), &"second".into(), &1.into())
    );
    assert_eq!(copy["snapshots"][0]["source"], first.as_str());
    home.assert_snapshot("copy_unknown_id", &home.run(&["copy", "--snapshot", "ffffffff"]).expect(1));
}

#[test]
fn a_damaged_blob_is_named_and_the_other_snapshots_are_copied() {
    let home = two();
    damage_largest_pack(&home, "repository");
    home.write("models/winner.f32", b"small now");
    home.run(&["backup", "-r", "local"]).expect(0);
    home.assert_snapshot("copy_damaged", &home.run(&["copy"]).expect(3));
    let again = home.json(&["copy"], 3, "retoma.copy/1");
    assert_eq!(again["copies"][0]["done"]["lost_blobs"][0]["code"], "R0203");
    home.run(&["restore", "models", "--target", "restored", "-r", "second"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

#[test]
fn a_copy_that_cannot_be_says_why() {
    let home = two();
    home.run(&["copy"]).expect(0);
    home.assert_snapshot("copy_unknown_repository", &home.run(&["copy", "--to", "third"]).expect(1));
    let nowhere = home.run(&["copy", "--from", "second", "--to", "second"]).expect(1);
    home.assert_snapshot("copy_nowhere", &nowhere);
    let before = tree(&home.path("elsewhere"));
    home.write_private("second-password", "a wrong password");
    home.assert_snapshot("copy_wrong_password", &home.run(&["copy"]).expect(12));
    assert_eq!(tree(&home.path("elsewhere")), before);
    std::fs::remove_dir_all(home.path("repository")).unwrap();
    home.run(&["copy"]).expect(10);
}

#[test]
fn what_a_repository_lost_comes_back_from_its_copy() {
    let home = two();
    home.run(&["copy"]).expect(0);
    home.remove_largest_pack();
    home.run(&["verify"]).expect(4);
    let itself = home.run(&["repair", "--from", "local"]).expect(1);
    home.assert_snapshot("repair_from_itself", &itself);
    home.assert_snapshot(
        "repair_from_plan",
        &home.run(&["repair", "--from", "second", "--dry-run"]).expect(0),
    );
    home.assert_snapshot("repair_from", &home.run(&["repair", "--from", "second"]).expect(0));
    home.run(&["repair", "--rebuild-index", "--yes"]).expect(0);
    home.run(&["verify", "--read-data"]).expect(0);
    home.run(&["restore", "models", "--target", "restored", "-r", "local"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
    if let Some(check) = home.restic(&["check", "--read-data"]) {
        check.expect(0);
    }
    // Damage is found by reading, and is in the copy's place afterwards.
    damage_largest_pack(&home, "repository");
    home.run(&["restore", "models", "--target", "damaged", "-r", "local"]).expect(3);
    let healed = home.json(&["repair", "--from", "second", "--read-data"], 0, "retoma.repair/1");
    assert!(healed["damaged_blobs"].as_u64().unwrap() >= 1, "{healed:#}");
    home.run(&["restore", "models", "--target", "again", "-r", "local"]).expect(0);
    assert_eq!(tree(&home.path("again")), tree(&home.path("models")));
}

#[test]
fn what_was_not_copied_is_in_the_exit_code() {
    let home = two();
    let third = format!(
        "\n[[repository]]\nname = \"third\"\nurl = \"file://{}\"\npassword = \"file:absent\"\n",
        home.text_path("third")
    );
    let manifest = std::fs::read_to_string(home.path("retoma.toml")).unwrap();
    home.write("retoma.toml", format!("{manifest}{third}").as_bytes());
    // The third has no password; the second gets its copy all the same.
    let done = home.json(&["copy"], 3, "retoma.copy/1");
    assert_eq!((&done["copies"][0]["to"], &done["failed"][0]["to"]), (&"second".into(), &"third".into()));
    assert_eq!(done["copies"][0]["done"]["snapshots"], 2, "the models and the manifest: {done:#}");
    home.write("retoma.toml", manifest.as_bytes());
    // What cannot be read of the source is named; what there is of it in neither is said by a plan too.
    let lost = spoil_a_snapshot(&home);
    let told = home.json(&["copy"], 3, "retoma.copy/1");
    assert!(told["copies"][0]["unreadable"][0]["message"].as_str().unwrap().contains(&lost), "{told:#}");
    std::fs::remove_file(home.path(&format!("repository/snapshots/{lost}"))).unwrap();
    home.run(&["copy"]).expect(0);
    home.write("models/only-here", &retoma_testkit::bytes(9, 200_000));
    home.run(&["backup", "-r", "local"]).expect(0);
    home.remove_largest_pack();
    damage_largest_pack(&home, "repository");
    let plan = home.json(&["repair", "--from", "second", "--read-data", "--dry-run"], 3, "retoma.repair/1");
    assert!(plan["lost_blobs"].as_u64().unwrap() > 0, "{plan:#}");
}

/// Replaces a snapshot in the first repository by something else, and gives its id.
pub(crate) fn spoil_a_snapshot(home: &Home) -> String {
    let id = home.snapshots()[0]["id"].as_str().unwrap().to_owned();
    let path = home.path(&format!("repository/snapshots/{id}"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"no snapshot").unwrap();
    id
}

#[test]
fn a_snapshot_that_cannot_be_read_is_not_passed_over_and_comes_back_by_copy() {
    let home = two();
    home.run(&["copy"]).expect(0);
    let lost = spoil_a_snapshot(&home);
    home.assert_snapshot("repair_from_unreadable", &home.run(&["repair", "--from", "second"]).expect(3));
    let told = home.json(&["repair", "--from", "second", "--dry-run"], 3, "retoma.repair/1");
    assert!(told["unreadable"][0]["message"].as_str().unwrap().contains(&lost), "{told:#}");
    home.run(&["repair", "--forget-damaged", "--yes"]).expect(0);
    home.run(&["copy", "--from", "second", "--to", "local"]).expect(0);
    home.run(&["repair", "--from", "second"]).expect(0);
    home.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

#[test]
fn status_tells_how_far_each_repository_is_behind() {
    let home = two();
    home.run(&["copy"]).expect(0);
    let status = home.json(&["status"], 0, "retoma.status/1");
    let behind: Vec<_> =
        status["copies"].as_array().unwrap().iter().map(|copy| &copy["behind_seconds"]).collect();
    assert_eq!(behind, [0, 0], "{status:#}");
    // A snapshot of ten minutes later.
    let store = BlockingStore::new(Arc::new(LocalStore::new(home.path("repository")).unwrap())).unwrap();
    let local = Repository::open(store, &Secret::new(PASSWORD.to_owned())).unwrap();
    let (_, mut snapshot) = local.snapshots().unwrap().pop().unwrap();
    assert_eq!(snapshot.component(), Some("models"));
    snapshot.time = Time::from_unix(snapshot.time.to_unix().0 + 600, snapshot.time.to_unix().1);
    local.save_snapshot(&snapshot).unwrap();
    let status = home.json(&["status"], 0, "retoma.status/1");
    let behind: Vec<_> =
        status["copies"].as_array().unwrap().iter().map(|copy| &copy["behind_seconds"]).collect();
    assert_eq!(behind, [0, 600], "{status:#}");
    assert_eq!(home.json(&["status", "-r", "second"], 0, "retoma.status/1")["copies"], serde_json::json!([]));
    home.run(&["copy"]).expect(0);
    home.assert_snapshot("status_copies", &home.run(&["status"]).expect(0));
    std::fs::remove_dir_all(home.path("elsewhere")).unwrap();
    home.assert_snapshot("status_copy_gone", &home.run(&["status"]).expect(4));
}
