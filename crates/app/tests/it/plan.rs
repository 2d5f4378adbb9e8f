//! The recovery sheet, from the command line.

use crate::kit::{Home, MODELS, PASSWORD};
use crate::service::seeded;

#[test]
fn a_sheet_says_what_is_in_the_repository_and_no_secret() {
    let (home, _) = seeded();
    let arguments = ["plan", "--sheet", "-f", "srv/retoma.toml", "--output", "sheet.html"];
    let document = home.json(&arguments, 0, "retoma.plan/1");
    assert_eq!((&document["language"], &document["never_backed_up"]), (&"en".into(), &serde_json::json!([])));
    let page = std::fs::read_to_string(home.path("sheet.html")).unwrap();
    let command = format!("retoma recover --repository-url file://{}", home.text_path("repository"));
    assert!(page.contains(&command) && page.contains(document["manifest_hash"].as_str().unwrap()), "{page}");
    assert!(page.contains("<html lang=\"en\">") && !page.contains(PASSWORD));
    home.run(&[&arguments[..], &["--language", "pt"]].concat()).expect(0);
    assert!(std::fs::read_to_string(home.path("sheet.html")).unwrap().contains("<html lang=\"pt\">"));
}

/// The commands of the page, run as they stand there.
#[test]
fn the_commands_of_a_sheet_bring_the_data_back() {
    let home = Home::backed_up();
    let kept = crate::kit::tree(&home.path("models"));
    home.run(&["plan", "--sheet"]).expect(0);
    let page = std::fs::read_to_string(home.path("recovery-sheet.html")).unwrap();
    let commands: Vec<&str> =
        page.split("<pre>").skip(1).map(|rest| rest.split("</pre>").next().unwrap()).collect();
    let recover: Vec<&&str> = commands.iter().filter(|line| line.starts_with("retoma recover")).collect();
    assert_eq!(recover.len(), 2, "{commands:#?}");
    std::fs::remove_dir_all(home.path("models")).unwrap();
    home.write_private("typed", PASSWORD);
    let typed = home.text_path("typed");
    for line in recover {
        let line = line.replace("~/retoma-password", &typed);
        let words: Vec<&str> = line.split(' ').skip(1).chain(["--yes", "--no-start"]).collect();
        home.run(&words).expect(0);
    }
    assert_eq!(crate::kit::tree(&home.path("models")), kept);
}

#[test]
fn what_was_never_backed_up_is_named() {
    let home = Home::backed_up();
    home.write_manifest(&format!(
        "{MODELS}\n[[component]]\nname = \"logs\"\nkind = \"files\"\ntier = \"low\"\npath = \"models\"\n"
    ));
    let run = home.run(&["plan", "--sheet"]).expect(4);
    home.assert_snapshot("plan_never_backed_up", &run);
}

#[test]
fn a_plan_that_cannot_be_made() {
    let home = Home::with(MODELS);
    home.assert_snapshot("error_plan_repository", &home.run(&["plan", "--sheet"]).expect(10));
    home.assert_snapshot("error_plan_nothing", &home.run(&["plan"]).expect(1));
    let away = Home::backed_up();
    away.assert_snapshot("error_plan_policies", &away.run(&["plan", "--policies"]).expect(1));
    assert!(!away.path("policies").exists());
    let nowhere = ["plan", "--sheet", "--output", "nowhere/sheet.html"];
    away.assert_snapshot("error_plan_output", &away.run(&nowhere).expect(1));
}

#[test]
fn what_only_buckets_can_is_refused_elsewhere() {
    let home = Home::backed_up();
    home.assert_snapshot("error_renew", &home.run(&["renew"]).expect(1));
    home.assert_snapshot("error_as_of", &home.run(&["snapshots", "--as-of", "2026-11-20"]).expect(1));
    home.assert_snapshot("error_as_of_time", &home.run(&["ls", "models", "--as-of", "yesterday"]).expect(1));
}

#[test]
fn rights_are_written_for_each_bucket_and_what_was_never_run_is_said() {
    let home = Home::with("");
    let repository = |name: &str, url: &str| {
        format!("[[repository]]\nname = \"{name}\"\nurl = \"{url}\"\npassword = \"env:P\"\n")
    };
    let (far, away) = (repository("far", "gs://backups/zone"), repository("away", "az://vault"));
    home.write_manifest(&format!("{far}{away}{MODELS}"));
    home.assert_snapshot("plan_policies", &home.run(&["plan", "--policies", "-o", "rights"]).expect(0));
    let text = std::fs::read_to_string(home.path("rights/gs-backups-README.txt")).unwrap();
    assert!(text.contains("retoma-far-pruner@PROJECT"), "{text}");
    let one = home.json(&["plan", "--policies", "-o", "one", "-r", "away"], 0, "retoma.plan/1");
    assert!(
        one["policies"].as_array().unwrap().iter().all(|path| path.as_str().unwrap().contains("az-vault")),
        "{one:#}"
    );
    assert_eq!(one["left_out"], serde_json::json!([]));
}
