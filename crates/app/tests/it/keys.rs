//! Several passwords for one repository.

use crate::kit::{Home, MODELS, PASSWORD};

#[test]
fn a_second_password_opens_until_it_is_removed() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.back_up();
    let first = home.json(&["key", "list"], 0, "retoma.key/1")["keys"].as_array().unwrap().clone();
    assert_eq!((first.len(), &first[0]["current"]), (1, &true.into()));
    let first = first[0]["id"].as_str().unwrap().to_owned();
    home.assert_snapshot("key_remove_last", &home.run(&["key", "remove", &first, "--yes"]).expect(1));

    home.write_private("second", "a second password");
    let added = home.json(&["key", "add", "--new-password", "file:second"], 0, "retoma.key/1");
    let added = added["added"].as_str().unwrap().to_owned();
    assert_ne!(added, first);
    home.assert_snapshot("key_list", &home.run(&["key", "list"]).expect(0));

    home.write_private("password", "a second password");
    assert_eq!(home.snapshots().len(), 1);
    home.back_up();
    let keys = home.json(&["key", "list"], 0, "retoma.key/1");
    let current = keys["keys"].as_array().unwrap().iter().find(|key| key["current"] == true).unwrap().clone();
    assert_eq!(current["id"], added.as_str());
    let refused = home.run(&["key", "remove", &added, "--yes"]).expect(1);
    assert!(refused.stderr.contains("error[R0210]"), "{}", refused.text());

    // Without a yes nothing goes.
    home.run(&["key", "remove", &first]).expect(1);
    assert_eq!(home.json(&["key", "list"], 0, "retoma.key/1")["keys"].as_array().unwrap().len(), 2);
    home.write_private("password", PASSWORD);
    assert_eq!(home.json(&["key", "remove", &added, "--yes"], 0, "retoma.key/1")["removed"], added.as_str());
    assert_eq!(home.snapshots().len(), 2);
    home.write_private("password", "a second password");
    home.run(&["snapshots"]).expect(12);
}

#[test]
fn a_password_stands_in_no_argument_and_in_no_file_for_everybody() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.back_up();
    let refused = home.run(&["key", "add", "--new-password", "hunter2"]).expect(1);
    assert!(
        !refused.stderr.contains("hunter2") && refused.stderr.contains("error[R0102]"),
        "{}",
        refused.text()
    );
    home.write("open", b"a second password");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(home.path("open"), mode).unwrap();
    home.assert_snapshot(
        "key_add_open_file",
        &home.run(&["key", "add", "--new-password", "file:open"]).expect(1),
    );
    assert_eq!(home.json(&["key"], 0, "retoma.key/1")["keys"].as_array().unwrap().len(), 1);
}
