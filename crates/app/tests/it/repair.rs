//! A repository whose index or snapshots cannot be read stops every backup until it is repaired, and is whole afterwards.

use crate::kit::{Home, tree};

/// Flips a bit in every object of a folder of the repository.
pub(crate) fn damage_every(home: &Home, folder: &str) {
    for entry in std::fs::read_dir(home.path(&format!("repository/{folder}"))).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[30] ^= 1;
        // Objects are read-only.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_damaged_index_is_made_again_and_backups_go_on() {
    let home = Home::backed_up();
    home.assert_snapshot("repair_nothing", &home.run(&["repair"]).expect(0));
    damage_every(&home, "index");
    home.run(&["backup"]).expect(1);
    // Who only looks goes on as far as that is possible.
    home.run(&["snapshots"]).expect(0);
    home.assert_snapshot("ls_with_damaged_index", &home.run(&["ls", "models"]).expect(1));
    home.assert_snapshot("repair_plan", &home.run(&["repair", "--dry-run"]).expect(0));
    // Nobody is asked where nobody can answer.
    home.run(&["repair"]).expect(1);
    home.run(&["backup"]).expect(1);
    home.assert_snapshot("repair_done", &home.run(&["repair", "--yes"]).expect(0));
    home.run(&["backup"]).expect(0);
    home.run(&["verify", "--read-data"]).expect(0);
    home.run(&["restore", "models", "--target", "restored"]).expect(0);
    assert_eq!(tree(&home.path("restored")), tree(&home.path("models")));
    if let Some(check) = home.restic(&["check", "--read-data"]) {
        check.expect(0);
    }
}

#[test]
fn an_index_that_names_what_is_gone_is_rebuilt() {
    let home = Home::backed_up();
    home.remove_largest_pack();
    home.run(&["prune", "--yes"]).expect(1);
    home.run(&["backup"]).expect(0);
    home.assert_snapshot("repair_rebuild", &home.run(&["repair", "--rebuild-index", "--yes"]).expect(0));
    home.run(&["verify", "--read-data"]).expect(0);
    home.run(&["prune", "--yes"]).expect(0);
}

#[test]
fn a_damaged_snapshot_stays_until_it_is_said_that_it_goes() {
    let home = Home::backed_up();
    damage_every(&home, "snapshots");
    home.run(&["prune", "--yes"]).expect(1);
    home.assert_snapshot("repair_damaged_snapshot", &home.run(&["repair"]).expect(3));
    let done = home.json(&["repair", "--forget-damaged", "--yes"], 0, "retoma.repair/1");
    assert!(done["done"]["deleted"].as_u64().unwrap() >= 1, "{done:#}");
    home.run(&["backup"]).expect(0);
    home.run(&["prune", "--yes"]).expect(0);
    home.run(&["verify", "--read-data"]).expect(0);
}
