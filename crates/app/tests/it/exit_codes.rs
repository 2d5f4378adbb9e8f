//! The exit codes that scripts rely on, each by its cause. 130 is in `interrupt`.

use crate::kit::{Home, MODELS, PASSWORD, Run};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn without_a_repository_every_verb_but_backup_ends_with_10() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.assert_snapshot("no_repository", &home.run(&["snapshots"]).expect(10));
    let url = format!("file://{}", home.text_path("repository"));
    for arguments in [
        &["snapshots"][..],
        &["ls", "models"],
        &["diff", "aaaaaaaa", "bbbbbbbb"],
        &["restore", "models", "--target", "restored"],
        &["recover", "--in-place", "--yes"],
        &["recover", "--to", "restored", "--repository-url", &url, "--password-file", "password"],
        &["drill", "deletion"],
        &["status"],
        &["evidence", "list"],
        &["verify"],
        &["forget", "--yes"],
        &["prune", "--yes"],
        &["key", "list"],
    ] {
        let error = home.json(arguments, 10, "retoma.error/1");
        assert_eq!(error["code"], "R0201", "{arguments:?}");
    }
    // `doctor` finds out and only warns: the first backup makes it.
    home.run(&["doctor"]).expect(0);
    assert!(!home.path("repository").exists() && !home.path("restored").exists());
    home.back_up();
}

#[test]
fn a_wrong_password_ends_with_12() {
    let home = Home::backed_up();
    home.write_private("password", "another password");
    home.assert_snapshot("wrong_password", &home.run(&["snapshots"]).expect(12));
    for arguments in [&["backup"][..], &["verify"], &["restore", "models", "--target", "restored"]] {
        assert_eq!(home.json(arguments, 12, "retoma.error/1")["code"], "R0202");
    }
    // A live key is not replaced by a new repository: the old password still opens it.
    home.write_private("password", PASSWORD);
    assert_eq!(home.snapshots().len(), 1);
}

#[test]
fn a_live_lock_of_restic_ends_with_11() {
    let home = Home::backed_up();
    home.write("models/more", b"more");
    home.back_up();
    home.back_up();
    let newest_first: Vec<String> =
        home.snapshots().iter().rev().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    // Leaves waste for prune.
    home.run(&["forget", "--snapshot", &newest_first[2], "--yes"]).expect(0);
    let url = format!("file://{}", home.text_path("repository"));
    let password = retoma_core::Secret::new(PASSWORD.to_owned());
    let repository = retoma_control::open::open_address(&url, &password, false).unwrap().repository;
    let id = repository.save_lock(&retoma_testkit::restic_lock(true)).unwrap();
    let held = home.run(&["backup"]).expect(11);
    assert!(held.stderr.contains("error[R0601]"), "{}", held.text());
    home.run(&["forget", "--snapshot", &newest_first[1], "--yes"]).expect(11);
    home.run(&["prune", "--grace", "0s", "--yes"]).expect(11);
    // Who only reads is not in the way.
    assert_eq!(home.snapshots().len(), 2);
    std::fs::remove_file(home.path("repository/locks").join(id.to_hex())).unwrap();
    home.back_up();
}

/// The program without the right to read what its user may not: root may read everything otherwise.
fn unprivileged(home: &Home, arguments: &[&str]) -> Option<Run> {
    let program = env!("CARGO_BIN_EXE_retoma");
    let command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new(retoma_testkit::require_tool("setpriv")?);
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg("--inh-caps=-all").arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = home.through(command).args(arguments).output().unwrap();
    Some(Run::new(format!("retoma {}", arguments.join(" ")), &output))
}

#[test]
fn an_unreadable_file_ends_with_3_and_its_snapshot_is_never_the_last_good_one() {
    let home = Home::backed_up();
    let good = home.snapshots()[0]["id"].clone();
    let secret = home.path("models/old/loser.f32");
    home.write("models/old/loser.f32", b"changed meanwhile");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    let Some(run) = unprivileged(&home, &["backup", "--json"]) else { return };
    let backup = run.expect(3).document();
    let models = &backup["backups"][0];
    assert_eq!(models["complete"], false);
    assert_eq!(models["unreadable"][0]["path"], home.text_path("models/old/loser.f32"));
    assert_eq!(models["unreadable"].as_array().unwrap().len(), 1);
    home.assert_snapshot("backup_incomplete", &unprivileged(&home, &["backup"]).unwrap().expect(3));
    let snapshots = home.snapshots();
    let complete: Vec<_> = snapshots.iter().map(|one| one["complete"].as_bool().unwrap()).collect();
    assert_eq!(complete, [true, false, false]);
    // The newest is not taken by itself ...
    let done = home.json(&["restore", "models", "--target", "restored"], 0, "retoma.restore/1");
    assert_eq!(done["snapshot"], good);
    assert_eq!(std::fs::read(home.path("restored/old/loser.f32")).unwrap(), retoma_testkit::bytes(2, 5_000));
    // ... only when it is asked for.
    let arguments = ["restore", "models", "--target", "incomplete", "--incomplete"];
    let done = home.json(&arguments, 0, "retoma.restore/1");
    assert_eq!(done["snapshot"], snapshots[2]["id"]);
    assert!(!home.path("incomplete/old/loser.f32").exists());
}

#[test]
fn only_incomplete_snapshots_are_as_good_as_none() {
    let home = Home::with(MODELS);
    home.seed_models();
    std::fs::set_permissions(home.path("models/empty"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let Some(run) = unprivileged(&home, &["backup"]) else { return };
    run.expect(3);
    let refused = home.run(&["restore", "models", "--target", "restored"]).expect(1);
    home.assert_snapshot("restore_only_incomplete", &refused);
    assert!(!home.path("restored").exists());
    // A service without a good backup is late, too.
    home.run(&["status"]).expect(4);
}

#[test]
fn a_component_that_is_gone_ends_with_3_beside_another_and_with_1_alone() {
    let home = Home::with(&format!("{MODELS}{}", crate::kit::DATABASE));
    home.seed_models();
    let backup = home.json(&["backup"], 3, "retoma.backup/1");
    assert_eq!(backup["failed"][0]["component"], "database");
    assert_eq!(backup["backups"][0]["component"], "models");
    home.run(&["backup", "database"]).expect(1);
}

#[test]
fn a_flipped_byte_ends_with_4_and_names_object_and_snapshot() {
    let home = Home::backed_up();
    let snapshot = home.snapshots()[0]["id"].clone();
    let pack = largest_pack(&home);
    let mut bytes = std::fs::read(&pack).unwrap();
    // The middle of the large file, whatever lies beside it.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(&pack, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let report = home.json(&["verify", "--read-data"], 4, "retoma.verify/1");
    assert_eq!(report["damaged"], true);
    assert_eq!(report["snapshots_hit"], serde_json::json!([snapshot]));
    let name = pack.file_name().unwrap().to_str().unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|one| one["object"].as_str().unwrap().contains(name)).unwrap();
    assert_eq!((&finding["severity"], &finding["snapshots"][0]["id"]), (&"damage".into(), &snapshot));
    home.assert_snapshot("verify_flipped_byte", &home.run(&["verify", "--read-data"]).expect(4));
    // What can't be read as it was is not restored as if it were.
    let restored = home.run(&["restore", "models", "--target", "restored", "--json"]).expect(3).document();
    assert_eq!(restored["complete"], false);
    assert_eq!(restored["failed"].as_array().unwrap().len(), 1, "{restored:#}");
}

fn largest_pack(home: &Home) -> std::path::PathBuf {
    let folders = std::fs::read_dir(home.path("repository/data")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_damaged_index_file_does_not_keep_from_what_does_not_need_it() {
    let home = Home::backed_up();
    let folder = home.path("repository/index");
    let names = || -> std::collections::BTreeSet<_> {
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let first = names();
    let old = home.snapshots()[0]["id"].as_str().unwrap().to_owned();
    home.write("models/more", b"what only the second snapshot has");
    home.back_up();
    let added = names().difference(&first).next().unwrap().clone();
    std::fs::write(&added, b"noise").unwrap();

    let restore = ["restore", "models", "--snapshot", &old, "--target", "restored"];
    let done = home.json(&restore, 3, "retoma.restore/1");
    assert_eq!((&done["complete"], &done["failed"]), (&true.into(), &serde_json::json!([])));
    let damage = done["damage"][0]["message"].as_str().unwrap();
    assert!(damage.contains(added.file_name().unwrap().to_str().unwrap()), "{damage}");
    assert!(home.path("restored").read_dir().unwrap().count() > 0);
    // The newest needs it, and nothing is written over a repository that cannot be read as a whole.
    home.run(&["restore", "models", "--target", "another"]).expect(1);
    home.run(&["backup"]).expect(1);
    home.run(&["prune", "--yes"]).expect(1);
}
