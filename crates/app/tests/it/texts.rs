//! What a stranger reads: hints that name the next command, plain paths, a legend.

use crate::kit::{DATABASE, Home, MODELS, tree};

#[test]
fn a_file_as_the_target_is_refused_before_anything_is_done() {
    let home = Home::backed_up();
    home.write("file", b"");
    home.assert_snapshot(
        "restore_onto_file",
        &home.run(&["restore", "models", "--target", "file"]).expect(1),
    );
    home.assert_snapshot("recover_onto_file", &home.run(&["recover", "--to", "file/below", "-n"]).expect(1));
    assert!(home.path("file").is_file());
}

#[test]
fn paths_that_are_shown_and_used_have_no_steps_up() {
    let home = Home::backed_up();
    let plan = home.run(&["recover", "--to", "models/../blank", "--dry-run"]).expect(0);
    home.assert_snapshot("recover_plan", &plan);
    let run = home.run(&["restore", "models", "--target", "nowhere/../blank"]).expect(0);
    assert!(run.stderr.contains(&format!("into `{}`", home.text_path("blank"))), "{}", run.text());
    assert!(!home.path("nowhere").exists());
    assert_eq!(tree(&home.path("blank")), tree(&home.path("models")));
    let plan = home.run(&["-f", "models/../retoma.toml", "backup"]).expect(0);
    assert!(!plan.text().contains("restore"), "{}", plan.text());
    assert_eq!(home.snapshots().last().unwrap()["paths"][0], home.text_path("models"));
}

#[test]
fn damage_and_loss_name_the_command_that_says_more() {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    home.seed_database();
    home.back_up();
    let packs = tree(&home.path("repository/data"));
    for (name, (_, _, _, contents)) in &packs {
        let path = home.path("repository/data").join(name);
        if path.is_file() {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, vec![0; contents.len()]).unwrap();
        }
    }
    let restore = ["restore", "database", "--target", "out"];
    let error = home.json(&["ls", "database"], 1, "retoma.error/1");
    assert_eq!(error["code"], "R0203", "{error:#}");
    home.assert_snapshot("hint_flipped", &home.run(&restore).expect(1));
    for name in packs.keys().filter(|name| home.path("repository/data").join(name).is_file()) {
        std::fs::remove_file(home.path("repository/data").join(name)).unwrap();
    }
    home.assert_snapshot("hint_lost_pack", &home.run(&restore).expect(1));
    home.write("repository/index/0000000000000000000000000000000000000000000000000000000000000000", b"noise");
    home.assert_snapshot("hint_damaged_index", &home.run(&["backup", "models"]).expect(1));
}

#[test]
fn a_protected_snapshot_says_what_frees_it() {
    let home = Home::backed_up();
    let id = home.snapshots()[0]["id"].as_str().unwrap().to_owned();
    home.assert_snapshot("forget_newest", &home.run(&["forget", "--snapshot", &id[..8], "--yes"]).expect(1));
}

#[test]
fn a_lost_password_file_and_a_place_without_a_repository_are_named() {
    let home = Home::backed_up();
    home.assert_snapshot(
        "recover_no_repository",
        &home
            .run(&[
                "recover",
                "--repository-url",
                &format!("file://{}", home.text_path("models")),
                "--password-file",
                "password",
                "--to",
                "new",
            ])
            .expect(10),
    );
    std::fs::remove_file(home.path("password")).unwrap();
    home.assert_snapshot("password_gone", &home.run(&["snapshots"]).expect(1));
}

#[test]
fn a_comparison_explains_its_signs() {
    let home = Home::backed_up();
    home.write("models/new.f32", b"new");
    home.back_up();
    let ids: Vec<String> =
        home.snapshots().iter().map(|one| one["id"].as_str().unwrap()[..8].to_owned()).collect();
    let run = home.run(&["diff", &ids[0], &ids[1]]).expect(0);
    let legend = "+ added, - removed, M contents changed";
    assert!(run.stdout.contains("+ /") && run.stderr.contains(legend), "{}", run.text());
    let same = home.run(&["diff", &ids[0], &ids[0]]).expect(0);
    assert!(!same.text().contains(legend), "{}", same.text());
    assert!(home.run(&["diff", "--help"]).expect(0).stdout.contains(legend));
}
