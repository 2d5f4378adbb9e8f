//! Several repositories: which one `restore` and `recover` read, and what comes from the others when it lacks something.

use crate::copy::{damage_largest_pack, spoil_a_snapshot, two};
use crate::kit::{Home, Run, tree};
use serde_json::Value;

/// Models in two repositories, the second a copy of the first.
fn copied() -> Home {
    let home = two();
    home.run(&["copy"]).expect(0);
    home
}

fn restore(home: &Home, more: &[&str], exit: i32) -> Value {
    std::fs::remove_dir_all(home.path("restored")).ok();
    let mut arguments = vec!["restore", "models", "--target", "restored"];
    arguments.extend(more);
    home.json(&arguments, exit, "retoma.restore/1")
}

fn assert_restored(home: &Home) {
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

/// The repository that was read, and what the other one gave and why it could not.
fn read_from(done: &Value) -> (&str, u64, Option<&str>) {
    let copies = done["read_from"]["copies"].as_array().unwrap();
    let first = copies.first();
    (
        done["read_from"]["repository"].as_str().unwrap(),
        first.map_or(0, |copy| copy["blobs"].as_u64().unwrap()),
        first.and_then(|copy| copy["error"]["code"].as_str()),
    )
}

fn remove(home: &Home, folder: &str) {
    std::fs::remove_dir_all(home.path(folder)).unwrap();
}

#[test]
fn what_is_damaged_in_the_first_comes_from_the_second_and_is_said() {
    let home = copied();
    assert_eq!(read_from(&restore(&home, &[], 0)), ("local", 0, None));
    damage_largest_pack(&home, "repository");
    let done = restore(&home, &[], 0);
    let (repository, blobs, error) = read_from(&done);
    assert_eq!((repository, error), ("local", None));
    assert!(blobs > 0 && done["complete"] == true, "{done:#}");
    assert_restored(&home);
    remove(&home, "restored");
    home.assert_snapshot(
        "restore_from_two",
        &home.run(&["restore", "models", "--target", "restored"]).expect(0),
    );
    // Who names one gets that one.
    restore(&home, &["-r", "local"], 3);
    assert_eq!(read_from(&restore(&home, &["-r", "second"], 0)), ("second", 0, None));
}

#[test]
fn what_is_damaged_in_both_is_missing_as_with_one() {
    let home = copied();
    damage_largest_pack(&home, "repository");
    damage_largest_pack(&home, "elsewhere");
    let done = restore(&home, &[], 3);
    assert_eq!(done["complete"], false);
    assert!(!done["failed"].as_array().unwrap().is_empty(), "{done:#}");
    for failed in done["failed"].as_array().unwrap() {
        assert!(!home.path(failed["path"].as_str().unwrap()).exists(), "{failed}");
    }
}

#[test]
fn a_first_that_lacks_packs_is_passed_over() {
    let home = copied();
    home.remove_largest_pack();
    assert_eq!(read_from(&restore(&home, &[], 0)), ("second", 0, None));
    assert_restored(&home);
    let said = home.run(&["restore", "models", "--target", "again"]).expect(0).stderr;
    assert!(said.contains("`local` lacks 1 of its packs") && said.contains("`second` is read"), "{said}");
    // What is lost here and damaged there, nobody has.
    damage_largest_pack(&home, "elsewhere");
    restore(&home, &[], 3);
}

#[test]
fn an_index_that_is_gone_is_made_up_for() {
    let home = copied();
    remove(&home, "repository/index");
    std::fs::create_dir(home.path("repository/index")).unwrap();
    let done = restore(&home, &[], 0);
    let (repository, blobs, _) = read_from(&done);
    assert!(repository == "local" && blobs > 0, "{done:#}");
    assert_restored(&home);
}

#[test]
fn a_repository_that_cannot_be_used_is_named_and_stops_nothing() {
    let home = copied();
    for (gone, other) in [("repository", "second"), ("elsewhere", "local")] {
        std::fs::rename(home.path(gone), home.path("away")).unwrap();
        let done = restore(&home, &[], 0);
        assert_eq!(read_from(&done), (other, 0, Some("R0201")), "{done:#}");
        assert_restored(&home);
        let text = home.run(&["recover", "--to", "blank", "--no-start"]).expect(0);
        assert!(text.stderr.contains("is not used") && text.stderr.contains(gone), "{}", text.text());
        remove(&home, "blank");
        std::fs::rename(home.path("away"), home.path(gone)).unwrap();
    }
    std::fs::rename(home.path("repository"), home.path("away")).unwrap();
    remove(&home, "elsewhere");
    home.run(&["restore", "models", "--target", "nothing"]).expect(10);
    home.run(&["recover", "--to", "blank", "--no-start"]).expect(10);
}

#[test]
fn a_first_with_a_snapshot_that_cannot_be_read_gives_blobs_only() {
    let home = copied();
    spoil_a_snapshot(&home);
    let (repository, blobs, error) = {
        let done = restore(&home, &[], 0);
        let (repository, blobs, error) = read_from(&done);
        (repository.to_owned(), blobs, error.map(str::to_owned))
    };
    assert_eq!((repository.as_str(), blobs), ("second", 0));
    assert!(error.is_some());
    damage_largest_pack(&home, "elsewhere");
    let done = restore(&home, &[], 0);
    assert!(read_from(&done).1 > 0, "{done:#}");
    assert_restored(&home);
}

#[test]
fn the_newest_is_read_and_what_is_newer_elsewhere_is_said() {
    let home = copied();
    let first = home.snapshots()[0]["id"].as_str().unwrap().to_owned();
    home.write("models/new", b"new");
    home.run(&["backup", "-r", "second"]).expect(0);
    // Within a minute both are as new: the first stays.
    assert_eq!(read_from(&restore(&home, &[], 0)).0, "local");
    let newer = home.json(&["snapshots", "-r", "second"], 0, "retoma.snapshots/1");
    let id = newer["snapshots"].as_array().unwrap().iter().rev().find(|it| it["component"] == "models");
    let id = id.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(read_from(&restore(&home, &["--snapshot", &id], 0)).0, "second");
    assert_restored(&home);
    assert_eq!(read_from(&restore(&home, &["--snapshot", &first], 0)).0, "local");
    home.run(&["restore", "models", "--target", "restored", "--snapshot", "ffffffff"]).expect(1);
}

/// On a blank machine there is no manifest, only addresses and passwords.
#[test]
fn a_blank_machine_recovers_from_two_addresses() {
    let home = copied();
    damage_largest_pack(&home, "repository");
    let models = tree(&home.path("models"));
    remove(&home, "models");
    std::fs::remove_file(home.path("retoma.toml")).unwrap();
    let (first, second) = (
        format!("file://{}", home.text_path("repository")),
        format!("file://{}", home.text_path("elsewhere")),
    );
    let one =
        ["recover", "--to", "blank", "--no-start", "--repository-url", &first, "--password-file", "password"];
    home.run(&one).expect(1);
    remove(&home, "blank");
    let both: Vec<&str> =
        one.into_iter().chain(["--repository-url", &second, "--password-file", "second-password"]).collect();
    let done = home.json(&both, 0, "retoma.recover/1");
    let (repository, blobs, error) = read_from(&done);
    assert!(repository.contains("repository") && blobs > 0 && error.is_none(), "{done:#}");
    assert_eq!(done["passed"], true, "{done:#}");
    let root = home.path("blank").join(home.path("models").strip_prefix("/").unwrap());
    assert_eq!(tree(&root), models);
    remove(&home, "blank");
    let odd: Vec<&str> = one.into_iter().chain(["--repository-url", &second]).collect();
    home.run(&odd).expect(1);
}

#[test]
fn recover_takes_what_the_first_lacks_from_the_second() {
    let home = copied();
    damage_largest_pack(&home, "repository");
    remove(&home, "repository/index");
    std::fs::create_dir(home.path("repository/index")).unwrap();
    let done = home.json(&["recover", "--to", "blank", "--no-start"], 0, "retoma.recover/1");
    assert!(read_from(&done).1 > 0 && done["passed"] == true, "{done:#}");
    let root = home.path("blank").join(home.path("models").strip_prefix("/").unwrap());
    assert_eq!(tree(&root), tree(&home.path("models")));
    remove(&home, "blank");
    let text: Run = home.run(&["recover", "--to", "blank", "--no-start"]).expect(0);
    assert!(text.stderr.contains("did not give came from `second`"), "{}", text.text());
}
