//! Mass change: a tree that somebody encrypts is tagged, and retention is held until the change is accepted; usual days go on.

use crate::kit::{DATABASE, Home, MODELS};
use serde_json::Value;

const FILES: u64 = 300;
const TEXT_BYTES: usize = 20_000;

/// A text of its own that compresses as texts do.
fn text(file: u64, edition: u64) -> Vec<u8> {
    let words = retoma_testkit::bytes(1000 * edition + file, 4 * TEXT_BYTES);
    let mut text = Vec::with_capacity(TEXT_BYTES);
    for byte in words {
        text.extend_from_slice([&b"the "[..], b"model ", b"learned ", b"nothing\n"][usize::from(byte % 4)]);
        if text.len() >= TEXT_BYTES {
            break;
        }
    }
    text
}

fn name(file: u64) -> String {
    format!("models/{}/{file:03}.txt", file % 7)
}

/// Three hundred texts in two snapshots, of which rules keep one.
fn texts(more: &str) -> Home {
    let home = Home::with(&format!("{MODELS}{more}\n[retention]\nkeep_last = 1\n"));
    for file in 0..FILES {
        home.write(&name(file), &text(file, 0));
    }
    assert_eq!(found(&home.back_up()), Vec::<&str>::new(), "the first backup");
    edit(&home, 1);
    assert_eq!(found(&home.back_up()), Vec::<&str>::new(), "a usual day");
    home
}

/// A usual day: one in a hundred files is edited, and a new one comes.
fn edit(home: &Home, day: u64) {
    for file in 0..FILES / 100 {
        home.write(&name(file), &text(file, day));
    }
    home.write(&format!("models/new-{day}"), &retoma_testkit::bytes(day, 40_000));
}

fn encrypt(home: &Home, file: u64) {
    home.write(&name(file), &retoma_testkit::bytes(7000 + file, TEXT_BYTES));
}

/// The names of what a backup of models found.
fn found(backup: &Value) -> Vec<&str> {
    let mass_change = &backup["backups"][0]["mass_change"];
    let findings = mass_change["findings"].as_array().map_or(&[][..], Vec::as_slice);
    findings.iter().map(|finding| finding["finding"].as_str().unwrap()).collect()
}

fn ids(home: &Home) -> Vec<String> {
    home.snapshots().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn tags(snapshot: &Value) -> Vec<&str> {
    let tags = snapshot["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
    tags.filter(|tag| tag.contains("mass-change")).collect()
}

#[test]
fn an_encrypted_tree_is_tagged_and_what_is_older_stays_until_the_change_is_accepted() {
    let home = texts("");
    for file in 0..FILES {
        encrypt(&home, file);
    }
    let backup = home.back_up();
    assert_eq!(found(&backup), ["changed", "encrypted"], "{backup:#}");
    let counts = &backup["backups"][0]["mass_change"]["counts"];
    assert_eq!((&counts["files_changed"], &counts["files_gone"]), (&FILES.into(), &0.into()), "{counts}");
    edit(&home, 2);
    assert_eq!(found(&home.back_up()), Vec::<&str>::new(), "it is compared with the tagged one");
    let before = home.snapshots();
    assert_eq!(before.iter().map(|one| tags(one).len()).collect::<Vec<_>>(), [0, 0, 1, 0]);
    home.assert_snapshot("mass_change_snapshots", &home.run(&["snapshots"]).expect(0));

    home.assert_snapshot("mass_change_forget", &home.run(&["forget", "--yes"]).expect(0));
    assert_eq!(ids(&home).len(), 4, "all four stay");
    let by_name = home.run(&["forget", "--yes", "--snapshot", &ids(&home)[0][..8]]).expect(1);
    home.assert_snapshot("mass_change_forget_by_name", &by_name);
    home.json(&["prune", "--grace", "0s", "--yes"], 0, "retoma.prune/1");
    home.run(&["restore", "models", "--snapshot", &ids(&home)[1][..8], "--target", "restored"]).expect(0);
    assert!(std::fs::read(home.path(&name(200).replace("models", "restored"))).unwrap() == text(200, 0));

    let warned = home.run(&["recover", "--to", "warned", "--no-start"]).expect(0);
    home.assert_snapshot("mass_change_recover", &warned);
    let plan = home.json(&["recover", "--to", "planned", "--dry-run"], 0, "retoma.recover/1");
    assert_eq!(plan["components"][0]["mass_change"], before[2]["id"], "{plan:#}");
    let at = before[1]["time"].as_str().unwrap();
    let earlier = home.json(&["recover", "--to", "planned", "--dry-run", "--at", at], 0, "retoma.recover/1");
    assert_eq!(earlier["components"][0]["mass_change"], Value::Null, "{earlier:#}");
    home.assert_snapshot(
        "mass_change_restore",
        &home.run(&["restore", "models", "--target", "encrypted"]).expect(0),
    );

    let tagged = before[2]["id"].as_str().unwrap();
    let refused = home.run(&["forget", "--accept", &before[1]["id"].as_str().unwrap()[..8]]).expect(1);
    home.assert_snapshot("mass_change_accept_other", &refused);
    home.run(&["forget", "--accept", &tagged[..8], "--dry-run"]).expect(1);
    assert_eq!(home.snapshots(), before, "what is only to be told is not done");
    let accepted = home.json(&["forget", "--accept", &tagged[..8]], 0, "retoma.forget/1");
    let new = accepted["accepted"][0]["id"].as_str().unwrap();
    let there = home.snapshots();
    let rewritten = there.iter().find(|one| one["id"] == new).unwrap();
    assert_eq!(tags(rewritten), ["retoma:mass-change-accepted"]);
    assert!(there.len() == 4 && there.iter().all(|one| one["id"] != tagged));
    let silent = home.run(&["recover", "--to", "silent", "--no-start"]).expect(0);
    assert!(!silent.stderr.contains("accepted"), "{}", silent.stderr);
    // Accepting again changes nothing.
    let again = home.json(&["forget", "--accept", &new[..8]], 0, "retoma.forget/1");
    assert_eq!(again["accepted"][0]["id"], new);
    let gone = home.json(&["forget", "--yes"], 0, "retoma.forget/1");
    assert_eq!((gone["removed"].as_array().unwrap().len(), ids(&home).len()), (3, 1));
}

#[test]
fn what_is_found_is_said_with_what_to_do() {
    let home = texts("");
    for file in 0..FILES {
        encrypt(&home, file);
    }
    home.assert_snapshot("mass_change_backup", &home.run(&["backup"]).expect(0));
}

#[test]
fn files_that_are_renamed_and_encrypted_and_folders_that_go_are_found() {
    let home = texts("");
    for file in 0..FILES {
        std::fs::remove_file(home.path(&name(file))).unwrap();
        home.write(&format!("{}.locked", name(file)), &retoma_testkit::bytes(7000 + file, TEXT_BYTES));
    }
    assert_eq!(found(&home.back_up()), ["gone", "encrypted"]);

    let home = texts("");
    for folder in 0..4 {
        std::fs::remove_dir_all(home.path(&format!("models/{folder}"))).unwrap();
    }
    let backup = home.back_up();
    assert_eq!(found(&backup), ["gone"]);
    let counts = &backup["backups"][0]["mass_change"]["counts"];
    assert_eq!((&counts["files_gone"], &counts["files_changed"]), (&172.into(), &0.into()), "{counts}");
}

/// A third of the tree: below both limits of numbers of files.
#[test]
fn a_part_that_is_encrypted_is_found_by_what_no_longer_compresses() {
    let home = texts("");
    for file in 0..FILES / 3 {
        encrypt(&home, file);
    }
    assert_eq!(found(&home.back_up()), ["encrypted"]);
}

#[test]
fn moves_new_owners_and_other_limits_are_no_mass_change() {
    let home =
        texts("[component.mass_change]\nchanged_percent = 0\nencrypted_percent = 0\ngone_percent = 90\n");
    for file in 0..FILES {
        encrypt(&home, file);
    }
    assert_eq!(found(&home.back_up()), Vec::<&str>::new(), "both are turned off");

    let home = texts("");
    // Contents that are written again as they were, and folders of less than half of all files that move.
    for file in 0..FILES {
        let contents = std::fs::read(home.path(&name(file))).unwrap();
        home.write(&name(file), &contents);
    }
    for folder in 0..3 {
        let (from, to) = (format!("models/{folder}"), format!("models/moved-{folder}"));
        std::fs::rename(home.path(&from), home.path(&to)).unwrap();
    }
    assert_eq!(found(&home.back_up()), Vec::<&str>::new());
    assert!(home.json(&["backup"], 0, "retoma.backup/1")["backups"][0]["mass_change"].is_null());
}

/// One file, which no number of files can tell of.
#[test]
fn a_database_whose_contents_are_encrypted_is_found() {
    let home = Home::with(DATABASE);
    home.seed_database();
    let database = rusqlite::Connection::open(home.path("data/app.sqlite")).unwrap();
    database.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY, note BLOB NOT NULL)").unwrap();
    let fill = |encrypted: bool| {
        for file in 0..FILES {
            let note = if encrypted {
                retoma_testkit::bytes(9000 + file, TEXT_BYTES).to_vec()
            } else {
                text(file, 0)
            };
            database
                .execute("INSERT OR REPLACE INTO notes VALUES (?1, ?2)", (file.cast_signed(), note))
                .unwrap();
        }
    };
    fill(false);
    assert_eq!(found(&home.back_up()), Vec::<&str>::new());
    database.execute("UPDATE orders SET total = total + 1", ()).unwrap();
    assert_eq!(found(&home.back_up()), Vec::<&str>::new());
    fill(true);
    assert_eq!(found(&home.back_up()), ["encrypted"]);
}
