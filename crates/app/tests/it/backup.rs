//! From a backup to the same data again: backup, snapshots, ls, diff, restore, verify.

use crate::kit::{DATABASE, Home, MODELS, ROWS, fields, tree};
use serde_json::Value;
use std::time::{Duration, Instant};

fn seeded() -> Home {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    home.seed_database();
    home
}

fn of<'a>(backup: &'a Value, component: &str) -> &'a Value {
    let all = backup["backups"].as_array().unwrap();
    all.iter().find(|one| one["component"] == component).unwrap()
}

#[test]
fn a_backup_says_what_it_stored() {
    let home = seeded();
    home.assert_snapshot("backup", &home.run(&["backup"]).expect(0));
    home.assert_snapshot("snapshots", &home.run(&["snapshots"]).expect(0));
    home.assert_snapshot("snapshots_all", &home.run(&["snapshots", "--all"]).expect(0));
    home.assert_snapshot("verify", &home.run(&["verify"]).expect(0));
    assert!(home.run(&["ls", "models"]).expect(0).stdout.contains("/models/winner.f32"));
}

#[test]
fn the_document_of_a_backup_has_the_documented_fields() {
    let home = seeded();
    let backup = home.back_up();
    assert_eq!(fields(&backup), ["backups", "failed", "recovery_sets", "schema"]);
    let documented = [
        "complete",
        "component",
        "consistent_at",
        "damaged_snapshots",
        "directories",
        "duration_seconds",
        "files_read",
        "files_unchanged",
        "kind",
        "lost_packs",
        "mass_change",
        "not_compared",
        "read_bytes",
        "repository",
        "snapshot",
        "stored_bytes",
        "total_bytes",
        "unreadable",
        "warnings",
    ];
    for one in backup["backups"].as_array().unwrap() {
        assert_eq!(fields(one), documented);
        assert_eq!((&one["complete"], &one["repository"]), (&true.into(), &"local".into()));
    }
    let models = of(&backup, "models");
    assert_eq!((&models["files_read"], &models["total_bytes"]), (&3.into(), &305_000.into()));
    assert_eq!(of(&backup, "database")["kind"], "sqlite");
    let snapshots = home.snapshots();
    assert_eq!(snapshots.len(), 2);
    let documented = [
        "complete",
        "component",
        "hostname",
        "id",
        "kind",
        "manifest_hash",
        "parent",
        "paths",
        "tags",
        "time",
        "tree",
    ];
    for one in snapshots {
        assert_eq!(fields(&one), documented);
    }
}

#[test]
fn a_later_backup_reads_nothing_that_did_not_change() {
    let home = seeded();
    // Files that changed within the last two seconds before a backup are read again by the next one: they may have
    // changed once more within the same tick of the clock.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let backup = home.json(&["backup", "models"], 0, "retoma.backup/1");
        let models = of(&backup, "models");
        assert_eq!(models["total_bytes"], 305_000);
        if models["files_unchanged"] == 3 {
            assert_eq!((&models["files_read"], &models["read_bytes"]), (&0.into(), &0.into()));
            break;
        }
        assert!(Instant::now() < deadline, "unchanged files are read again and again");
    }
    home.run(&["verify", "--read-data"]).expect(0);
    home.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

#[test]
fn ls_lists_what_is_in_a_snapshot() {
    let home = seeded();
    home.back_up();
    let list = home.json(&["ls", "models", "-R"], 0, "retoma.ls/1");
    let entries = list["entries"].as_array().unwrap();
    let find = |name: &str| entries.iter().find(|one| one["path"] == home.text_path(name)).unwrap();
    assert_eq!(find("models/winner.f32")["size_bytes"], 300_000);
    assert_eq!(find("models/old/loser.f32")["type"], "file");
    assert_eq!(find("models/current")["target"], "winner.f32");
    let flat = home.json(&["ls", "models", "old"], 0, "retoma.ls/1");
    assert!(
        flat["entries"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["path"] == home.text_path("models/old/loser.f32"))
    );
    home.assert_snapshot("ls_missing", &home.run(&["ls", "models", "nowhere"]).expect(1));
}

#[test]
fn diff_names_what_changed() {
    let home = seeded();
    let before = of(&home.back_up(), "models")["snapshot"].as_str().unwrap().to_owned();
    home.write("models/new.f32", &retoma_testkit::bytes(3, 1_000));
    std::fs::remove_file(home.path("models/empty")).unwrap();
    let after = of(&home.back_up(), "models")["snapshot"].as_str().unwrap().to_owned();
    let diff = home.json(&["diff", &before[..12], &after[..12]], 0, "retoma.diff/1");
    let changes = diff["changes"].as_array().unwrap();
    let change = |name: &str| {
        let found = changes.iter().find(|one| one["path"] == home.text_path(name));
        found.map(|one| one["change"].as_str().unwrap().to_owned())
    };
    assert_eq!(change("models/new.f32").as_deref(), Some("added"));
    assert_eq!(change("models/empty").as_deref(), Some("removed"));
    assert_eq!(change("models/winner.f32"), None);
    assert_eq!(diff["added_bytes"], 1_000);
}

#[test]
fn a_restore_gives_the_source_and_then_finds_it_there() {
    let home = seeded();
    home.back_up();
    let restore = |extra: &[&str]| {
        let all: Vec<&str> =
            ["restore", "models", "--target", "restored"].iter().chain(extra).copied().collect();
        home.json(&all, 0, "retoma.restore/1")
    };
    let dry = restore(&["--dry-run"]);
    assert_eq!((&dry["dry_run"], &dry["total_bytes"]), (&true.into(), &305_000.into()));
    assert!(!home.path("restored").exists());
    let first = restore(&[]);
    assert_eq!((&first["complete"], &first["written_bytes"]), (&true.into(), &305_000.into()));
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
    let second = restore(&[]);
    assert_eq!((&second["written_bytes"], &second["reused_bytes"]), (&0.into(), &305_000.into()));
    // One changed file is put right, and nothing else is written.
    home.write("restored/old/loser.f32", b"changed");
    assert_eq!(restore(&[])["written_bytes"], 5_000);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

#[test]
fn single_paths_are_restored_alone() {
    let home = seeded();
    home.back_up();
    let done = home.json(&["restore", "models", "old", "--target", "part"], 0, "retoma.restore/1");
    assert_eq!(done["files"], 1);
    let names: Vec<_> = tree(&home.path("part")).into_keys().collect();
    assert_eq!(names, [std::path::Path::new("old"), std::path::Path::new("old/loser.f32")]);
    assert_eq!(tree(&home.path("part/old")), tree(&home.path("models/old")));
}

#[test]
fn a_restored_database_has_its_rows() {
    let home = seeded();
    home.back_up();
    home.json(&["restore", "database", "--target", "restored"], 0, "retoma.restore/1");
    let files: Vec<_> = tree(&home.path("restored")).into_keys().collect();
    let file = if home.path("restored").is_dir() {
        home.path("restored").join(&files[0])
    } else {
        home.path("restored")
    };
    let database = rusqlite::Connection::open(file).unwrap();
    let sum = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(sum("SELECT count(*) FROM orders"), ROWS);
    assert_eq!(sum("SELECT sum(total) FROM orders"), 3 * ROWS * (ROWS - 1) / 2);
}

#[test]
fn delete_needs_a_yes_and_deletes_only_then() {
    let home = seeded();
    home.back_up();
    home.run(&["restore", "models", "--target", "restored"]).expect(0);
    home.write("restored/extra", b"mine");
    let restore = ["restore", "models", "--target", "restored"];
    // Without --delete it stays.
    home.run(&restore).expect(0);
    let delete: Vec<&str> = restore.iter().copied().chain(["--delete"]).collect();
    home.assert_snapshot("restore_delete_without_yes", &home.run(&delete).expect(1));
    assert_eq!(std::fs::read(home.path("restored/extra")).unwrap(), b"mine");
    let yes: Vec<&str> = delete.iter().copied().chain(["--yes"]).collect();
    let done = home.json(&yes, 0, "retoma.restore/1");
    assert_eq!(done["extra_deleted"], 1);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
}

#[test]
fn a_whole_repository_is_verified_at_every_depth() {
    let home = seeded();
    home.back_up();
    let read = |arguments: &[&str]| {
        let report = home.json(arguments, 0, "retoma.verify/1");
        assert_eq!(report["damaged"], false);
        assert!(report["findings"].as_array().unwrap().is_empty(), "{report:#}");
        report["counts"]["packs_read"].as_u64().unwrap()
    };
    assert_eq!(read(&["verify"]), 0);
    let all = read(&["verify", "--read-data"]);
    assert!(all > 0);
    assert_eq!(read(&["verify", "--sample", "100%"]), all);
}

#[test]
fn nothing_is_restored_from_a_component_without_a_backup() {
    let home = seeded();
    home.run(&["backup", "models"]).expect(0);
    home.assert_snapshot(
        "restore_without_backup",
        &home.run(&["restore", "database", "--target", "restored"]).expect(1),
    );
    assert!(!home.path("restored").exists());
}

/// As a service leaves its database when it is killed: commits in the WAL that nobody moved into the file.
#[test]
fn what_an_old_database_left_beside_itself_is_not_taken_for_the_restored_ones() {
    let home = Home::with(DATABASE);
    home.seed_database();
    home.back_up();
    let database = rusqlite::Connection::open(home.path("data/app.sqlite")).unwrap();
    database.pragma_update(None, "journal_mode", "WAL").unwrap();
    database
        .execute_batch(
            "BEGIN; DELETE FROM orders WHERE id >= 10; CREATE TABLE more AS SELECT * FROM orders; COMMIT",
        )
        .unwrap();
    std::fs::create_dir(home.path("target")).unwrap();
    for name in ["app.sqlite", "app.sqlite-wal"] {
        std::fs::copy(home.path("data").join(name), home.path("target").join(name)).unwrap();
    }
    drop(database);
    home.json(&["restore", "database", "--target", "target"], 0, "retoma.restore/1");
    assert!(!home.path("target/app.sqlite-wal").exists());
    let restored = rusqlite::Connection::open(home.path("target/app.sqlite")).unwrap();
    let one = |sql: &str| restored.query_row(sql, (), |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(one("PRAGMA integrity_check"), "ok");
    assert_eq!(one("SELECT CAST(count(*) AS TEXT) FROM orders"), ROWS.to_string());
}

#[test]
fn a_backup_into_a_repository_that_lost_a_pack_names_it_and_can_be_restored() {
    let home = Home::backed_up();
    let pack = home.remove_largest_pack();
    let run = home.run(&["backup"]).expect(0);
    home.assert_snapshot("backup_lost_pack", &run);
    let document = home.back_up();
    // What the first backup stored again is found by the next: but the index still names the lost pack.
    assert_eq!(document["backups"][0]["lost_packs"], serde_json::json!([pack]), "{document:#}");
    home.run(&["restore", "models", "--target", "out"]).expect(0);
    assert_eq!(tree(&home.path("out")), tree(&home.path("models")));
}

#[test]
fn a_repository_that_lost_everything_gets_a_whole_new_backup_of_everything() {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    home.seed_database();
    home.back_up();
    for entry in std::fs::read_dir(home.path("repository/data")).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let document = home.back_up();
    let database = &document["backups"][1];
    assert_eq!(database["complete"], true, "{document:#}");
    assert_eq!(database["not_compared"]["code"], "R0209", "what it had is not known: {database:#}");
    assert_eq!(home.back_up()["backups"][1]["not_compared"], Value::Null);
    home.run(&["recover", "--to", "new", "--no-start"]).expect(0);
}

/// Flips a bit in every byte of each file below a folder of the repository.
fn damage(home: &Home, folder: &str) {
    for (name, (_, _, _, mut contents)) in tree(&home.path(folder)) {
        let path = home.path(folder).join(name);
        if path.is_file() {
            for byte in &mut contents {
                *byte ^= 1;
            }
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, contents).unwrap();
        }
    }
}

#[test]
fn a_damaged_previous_snapshot_keeps_no_new_one_from_being_made() {
    let home = Home::with(DATABASE);
    home.seed_database();
    home.back_up();
    damage(&home, "repository/data");
    let run = home.run(&["backup"]).expect(0);
    home.assert_snapshot("backup_damaged_facts", &run);
    let home = Home::with(DATABASE);
    home.seed_database();
    home.back_up();
    damage(&home, "repository/snapshots");
    let document = home.back_up();
    let damaged = document["backups"][0]["damaged_snapshots"].as_array().unwrap();
    assert_eq!(damaged.len(), 2, "that of the manifest too: {document:#}");
    assert!(damaged.iter().all(|error| error["code"] == "R0204"), "{document:#}");
    home.assert_snapshot("backup_damaged_snapshots", &home.run(&["backup"]).expect(0));
    home.assert_snapshot("snapshots_damaged", &home.run(&["snapshots"]).expect(3));
    let list = home.json(&["snapshots"], 3, "retoma.snapshots/1");
    assert_eq!(
        (list["damaged"].as_array().unwrap().len(), list["snapshots"].as_array().unwrap().len()),
        (2, 2)
    );
    let newest = list["snapshots"][1]["id"].as_str().unwrap();
    home.run(&["restore", "database", "--target", "out", "--snapshot", newest]).expect(0);
}

#[test]
fn a_repository_that_lost_its_config_is_not_made_anew() {
    let home = Home::backed_up();
    std::fs::remove_file(home.path("repository/config")).unwrap();
    let before = tree(&home.path("repository"));
    home.assert_snapshot("backup_lost_config", &home.run(&["backup"]).expect(1));
    home.run(&["snapshots"]).expect(1);
    assert_eq!(tree(&home.path("repository")), before);
}

#[test]
fn a_table_that_may_be_empty_stops_no_backup() {
    let home = Home::with(DATABASE);
    home.seed_database();
    home.back_up();
    let database = rusqlite::Connection::open(home.path("data/app.sqlite")).unwrap();
    database
        .execute_batch("CREATE TABLE users (id INTEGER); INSERT INTO users VALUES (1); DELETE FROM orders")
        .unwrap();
    let run = home.run(&["backup"]).expect(1);
    home.assert_snapshot("backup_emptied_table", &run);
    home.write_manifest(&format!("{DATABASE}may_be_empty = [\"orders\"]\n"));
    home.back_up();
    // That it is empty is known now; of others nothing is forgiven.
    database.execute_batch("DELETE FROM users; INSERT INTO orders VALUES (1, 1)").unwrap();
    let run = home.run(&["backup"]).expect(1);
    assert!(run.stderr.contains("error[R0403]") && run.stderr.contains("`users`"), "{}", run.text());
}
