//! `init` writes a manifest that works, and never replaces one unasked.

use crate::kit::{Home, PASSWORD};
use std::os::unix::fs::PermissionsExt;

/// A service with everything that `init` looks for.
fn sample() -> Home {
    let home = Home::empty();
    home.seed_database();
    home.seed_models();
    home.write("logs/app.log", b"a line\n");
    home.write("settings.toml", b"answer = 42\n");
    home
}

#[test]
fn a_folder_gets_a_manifest_that_backs_it_up() {
    let home = sample();
    home.assert_snapshot("init", &home.run(&["init"]).expect(0));
    let mode = std::fs::metadata(home.path(".retoma/password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let doctor = home.json(&["doctor"], 0, "retoma.doctor/1");
    assert_eq!(doctor["healthy"], true, "{doctor:#}");
    let backup = home.back_up();
    let kinds: Vec<&str> =
        backup["backups"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"sqlite") && kinds.contains(&"files"), "{kinds:?}");
    let doctor = home.json(&["doctor"], 0, "retoma.doctor/1");
    assert_eq!(doctor["healthy"], true, "{doctor:#}");
}

#[test]
fn a_manifest_that_is_there_is_only_replaced_by_force() {
    let home = sample();
    home.write("retoma.toml", b"mine");
    home.assert_snapshot("init_again", &home.run(&["init"]).expect(1));
    assert_eq!(std::fs::read(home.path("retoma.toml")).unwrap(), b"mine");
    assert!(!home.path(".retoma").exists());
    let done = home.json(&["init", "--force"], 0, "retoma.init/1");
    assert_eq!(done["password_made"], true);
    assert_eq!(done["manifest"], home.text_path("retoma.toml"));
    assert_ne!(std::fs::read(home.path("retoma.toml")).unwrap(), b"mine");
}

#[test]
fn a_password_that_is_there_is_kept() {
    let home = sample();
    home.write_private("secret", PASSWORD);
    let done =
        home.json(&["init", "--password-file", "secret", "--backups", "elsewhere"], 0, "retoma.init/1");
    assert_eq!(done["password_made"], false);
    assert_eq!(std::fs::read_to_string(home.path("secret")).unwrap(), PASSWORD);
    home.back_up();
    assert!(home.path("elsewhere/config").exists());
}
