//! What each verb says when it cannot do its work: exit code, stdout and stderr as a whole.

use crate::kit::{DATABASE, Home, MODELS, tree};
use crate::service::{Left, seeded};
use serde_json::Value;

#[test]
fn init_of_a_folder_that_is_not_there() {
    let home = Home::empty();
    home.assert_snapshot("error_init", &home.run(&["init", "nowhere"]).expect(1));
}

#[test]
fn doctor_names_each_problem_with_its_fix() {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    home.run(&["backup", "models"]).expect(0);
    home.assert_snapshot("error_doctor", &home.run(&["doctor"]).expect(1));
    let doctor = home.json(&["doctor"], 1, "retoma.doctor/1");
    assert_eq!(doctor["healthy"], false);
    for finding in doctor["findings"].as_array().unwrap() {
        assert_eq!(finding["state"] == "ok", finding["fix"] == "", "{finding:#}");
    }
}

#[test]
fn backup_of_a_database_that_is_gone_or_empty() {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    home.assert_snapshot("error_backup_gone", &home.run(&["backup"]).expect(3));
    home.seed_database();
    home.run(&["backup"]).expect(0);
    let database = rusqlite::Connection::open(home.path("data/app.sqlite")).unwrap();
    database.execute("DELETE FROM orders WHERE id > 0", []).unwrap();
    home.run(&["backup", "database"]).expect(0);
    database.execute("DELETE FROM orders", []).unwrap();
    home.assert_snapshot("error_backup_empty", &home.run(&["backup", "database"]).expect(1));
}

#[test]
fn a_failed_backup_prints_one_document_that_has_everything() {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    let partly = home.json(&["backup"], 3, "retoma.backup/1");
    assert_eq!(partly["backups"].as_array().unwrap().len(), 1);
    let failed = &partly["failed"][0];
    assert_eq!(
        (&failed["component"], &failed["kind"], &failed["code"]),
        (&"database".into(), &"sqlite".into(), &"R0401".into())
    );
    let nothing = home.json(&["backup", "database"], 1, "retoma.backup/1");
    assert_eq!(nothing["backups"], serde_json::json!([]));
    assert_eq!(nothing["failed"][0]["code"], "R0401");
}

#[test]
fn a_repository_that_cannot_be_opened_does_not_keep_another_from_its_backup() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.back_up();
    let text = std::fs::read_to_string(home.path("retoma.toml")).unwrap();
    let second = format!(
        "[[repository]]\nname = \"second\"\nurl = \"file://{}\"\npassword = \"file:password\"\n",
        home.text_path("elsewhere")
    );
    home.write("retoma.toml", format!("{text}{second}").as_bytes());
    home.write_private("password", "another password");
    let backup = home.json(&["backup"], 3, "retoma.backup/1");
    assert_eq!(
        (&backup["backups"][0]["repository"], &backup["failed"][0]["repository"]),
        (&"second".into(), &"local".into())
    );
    assert_eq!(backup["failed"][0]["code"], "R0202");
    // Alone, it is the error of the whole.
    home.json(&["backup", "--repository", "local"], 12, "retoma.error/1");
}

#[test]
fn snapshots_ls_and_diff_of_what_is_not_there() {
    let home = Home::backed_up();
    home.assert_snapshot("error_snapshots", &home.run(&["snapshots", "model"]).expect(1));
    home.assert_snapshot("error_ls", &home.run(&["ls", "model"]).expect(1));
    home.assert_snapshot("error_ls_time", &home.run(&["ls", "models", "--at", "yesterday"]).expect(1));
    home.assert_snapshot("error_diff", &home.run(&["diff", "00000000", "11111111"]).expect(1));
}

#[test]
fn restore_of_a_path_that_the_snapshot_has_not() {
    let home = Home::backed_up();
    let restore = ["restore", "models", "nowhere.f32", "--target", "restored"];
    let run = home.run(&restore).expect(1);
    assert!(run.stderr.contains("retoma ls COMPONENT"), "{}", run.text());
    home.assert_snapshot("error_restore", &run);
    assert!(!home.path("restored").exists());
}

#[test]
fn recover_refuses_a_folder_with_something_in_it() {
    let home = Home::backed_up();
    home.write("full/mine", b"mine");
    home.assert_snapshot("error_recover", &home.run(&["recover", "--to", "full", "--no-start"]).expect(1));
    home.assert_snapshot("error_recover_nowhere", &home.run(&["recover"]).expect(1));
    let two =
        ["--repository-url", "file:///a", "--repository-url", "file:///b", "--password-file", "password"];
    let two = [&["recover", "--to", "full"], &two[..]].concat();
    home.assert_snapshot("error_recover_pairs", &home.run(&two).expect(1));
    assert_eq!(std::fs::read(home.path("full/mine")).unwrap(), b"mine");
}

#[test]
fn recover_refuses_a_service_that_runs_and_undoes_one_that_does_not_work() {
    let (home, port) = seeded();
    let done = home.json(&["recover", "--to", "new", "-f", "srv/retoma.toml"], 0, "retoma.recover/1");
    let left = Left::new(&done["service"]["pid"]);
    let refused = home.run(&["recover", "--in-place", "--yes", "-f", "srv/retoma.toml"]).expect(1);
    assert!(refused.stderr.contains("error[R0904]"), "{}", refused.text());
    left.stop(port);

    // A manifest whose check no service can pass is what the repository has now.
    let text = std::fs::read_to_string(home.path("srv/retoma.toml")).unwrap();
    let text = text.replace("expect_body = \"count\"", "expect_body = \"a text that never comes\"");
    let text = text.replace("[[service.check]]", "ready_seconds = 1\n\n[[service.check]]");
    home.write("srv/retoma.toml", text.as_bytes());
    home.run(&["backup", "-f", "srv/retoma.toml"]).expect(0);
    home.write("srv/models/mine", b"mine");
    let run = home.run(&["recover", "--in-place", "--yes", "-f", "srv/retoma.toml"]).expect(4);
    let reason = "is not ready after 1 s";
    assert_eq!(run.stderr.matches(reason).count(), 1, "the reason once: {}", run.text());
    assert_eq!(run.stderr.matches("the recovery was undone").count(), 1, "{}", run.text());
    assert!(run.stderr.contains("error[R0905]") && run.stderr.contains("hint: "), "{}", run.text());
    assert!(run.stderr.contains("not started on the previous data"), "{}", run.text());
    assert_eq!(std::fs::read(home.path("srv/models/mine")).unwrap(), b"mine");
    let undone =
        home.json(&["recover", "--in-place", "--yes", "-f", "srv/retoma.toml"], 4, "retoma.recover/1");
    assert_eq!((&undone["passed"], &undone["service"]["pid"]), (&false.into(), &Value::Null));
    assert_eq!(undone["rolled_back"]["code"], "R0905", "{undone:#}");
    assert!(crate::service::get(port, "/healthz").is_none());
}

#[test]
fn drill_of_what_was_never_backed_up_or_is_not_there() {
    let home = Home::with(&format!("{MODELS}{DATABASE}"));
    home.seed_models();
    home.seed_database();
    home.run(&["backup", "models"]).expect(0);
    home.assert_snapshot(
        "error_drill",
        &home.run(&["drill", "deletion", "--component", "nothing"]).expect(1),
    );
    home.run(&["drill", "earthquake", "--component", "models"]).expect(1);
    assert!(!home.path("report").exists());
}

#[test]
fn drills_that_would_leave_no_repository_or_lose_half_a_machine() {
    let home = Home::backed_up();
    home.assert_snapshot("error_drill_one_repository", &home.run(&["drill", "lost-repository"]).expect(1));
    let machine = ["drill", "infrastructure-failure", "--component", "models"];
    home.assert_snapshot("error_drill_part_of_a_machine", &home.run(&machine).expect(1));
    let second =
        "\n[[repository]]\nname = \"second\"\nurl = \"file:///elsewhere\"\npassword = \"file:password\"\n";
    home.write_manifest(&format!("{second}{MODELS}"));
    home.assert_snapshot("error_drill_one_region", &home.run(&["drill", "lost-region"]).expect(1));
    // The other one cannot be copied: nothing was begun.
    home.run(&["drill", "lost-repository"]).expect(10);
    let folder = home.text_path("demo");
    let demo = ["demo", "--scenario", "lost-region", "--folder", &folder];
    home.assert_snapshot("error_demo_one_repository", &home.run(&demo).expect(1));
    assert!(!home.path("demo").exists() && tree(&home.path("tmp")).is_empty());
}

#[test]
fn a_drill_whose_page_cannot_be_written_still_prints_its_result() {
    let home = Home::backed_up();
    home.write("file", b"mine");
    let run = home.run(&["drill", "application-failure", "--report", "file", "--json"]).expect(1);
    assert_eq!(run.document()["verdict"], "green", "{}", run.text());
    assert!(run.stderr.contains("error[R00"), "{}", run.text());
    assert_eq!(std::fs::read(home.path("file")).unwrap(), b"mine");
}

#[test]
fn demo_in_a_place_that_is_no_folder() {
    let home = Home::empty();
    home.write("file", b"mine");
    home.assert_snapshot("error_demo", &home.run(&["demo", "--folder", "file"]).expect(1));
    assert_eq!(std::fs::read(home.path("file")).unwrap(), b"mine");
    home.assert_snapshot("error_demo_scenario", &home.run(&["demo", "--scenario", "flood"]).expect(1));
}

#[test]
fn forget_prune_and_key_of_what_is_not_there() {
    let home = Home::backed_up();
    home.assert_snapshot("error_forget", &home.run(&["forget", "--snapshot", "00000000", "--yes"]).expect(1));
    home.assert_snapshot("error_prune", &home.run(&["prune", "--grace", "soon"]).expect(1));
    let away = Home::with(MODELS);
    away.assert_snapshot("error_repair", &away.run(&["repair", "--rebuild-index"]).expect(10));
    home.assert_snapshot("error_key", &home.run(&["key", "remove", "00000000", "--yes"]).expect(1));
}

#[test]
fn a_password_that_is_not_there() {
    let home = Home::backed_up();
    std::fs::remove_file(home.path("password")).unwrap();
    home.assert_snapshot("error_password", &home.run(&["verify"]).expect(1));
}

#[test]
fn completions_and_man_of_what_is_not_there() {
    let home = Home::empty();
    home.assert_snapshot("error_completions", &home.run(&["completions", "tcsh"]).expect(1));
    home.assert_snapshot("error_man", &home.run(&["man", "evidence", "bakcup"]).expect(1));
}

#[test]
fn one_thing_is_not_called_several() {
    let home = Home::with(MODELS);
    home.write("models/one", b"one");
    let mut texts = vec![home.run(&["backup"]).expect(0), home.run(&["doctor"]).expect(0)];
    texts.push(home.run(&["verify"]).expect(0));
    texts.push(home.run(&["recover", "--to", "new", "--no-start", "--json"]).expect(0));
    home.write("models/two", b"two");
    home.run(&["backup"]).expect(0);
    let ids: Vec<String> =
        home.snapshots().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    texts.push(home.run(&["diff", &ids[0], &ids[1]]).expect(0));
    texts.push(home.run(&["forget", "--snapshot", &ids[0], "--yes"]).expect(0));
    texts.push(home.run(&["prune", "--dry-run"]).expect(0));
    texts.push(home.run(&["restore", "models", "one", "--target", "one"]).expect(0));
    let words = [
        "files",
        "snapshots",
        "paths",
        "trees",
        "packs",
        "components",
        "repositories",
        "keys",
        "changes",
        "blobs",
        "entries",
        "objects",
        "rows",
    ];
    for run in texts {
        let text = run.text();
        for word in words {
            let wrong = text
                .match_indices(&format!("1 {word}"))
                .find(|(at, _)| !text[..*at].ends_with(|c: char| c.is_ascii_digit() || c == '.'));
            assert!(wrong.is_none(), "1 {word}: {text}");
        }
    }
}

/// A component of a PostgreSQL server that nobody runs.
const NOBODY: &str = "\n[[component]]\nname = \"server\"\nkind = \"postgres\"\ntier = \"critical\"\n\
    url = \"postgres://postgres@localhost/shop?host=/nowhere\"\n";

#[test]
fn wal_verbs_of_what_is_not_there() {
    let home = Home::with(&format!("{MODELS}{NOBODY}"));
    let segment = "000000010000000000000001";
    home.write(segment, b"no WAL at all");
    let push = |path: &str, component: &str, code| {
        home.run(&["wal", "push", path, "--component", component, "--no-spool"]).expect(code)
    };
    home.assert_snapshot("error_wal_push", &push(segment, "server", 1));
    home.assert_snapshot("error_wal_push_name", &push("retoma.toml", "server", 1));
    home.assert_snapshot("error_wal_kind", &push(segment, "models", 1));
    let fetch =
        ["wal", "fetch", segment, "here", "--component", "server", "--system-identifier", "7", "--no-spool"];
    home.assert_snapshot("error_wal_fetch", &home.run(&fetch).expect(200));
    home.assert_snapshot("error_wal_check", &home.run(&["wal", "check"]).expect(10));
    assert!(!home.path("here").exists() && !home.path("repository").exists());
}

#[test]
fn streams_and_tables_of_what_is_none() {
    let home = Home::with(&format!("{MODELS}{NOBODY}"));
    home.seed_models();
    home.assert_snapshot("error_stream_kind", &home.run(&["wal", "stream", "models"]).expect(1));
    let alone = ["wal", "stream", "server", "--repository", "local"];
    home.assert_snapshot("error_stream_repository", &home.run(&alone).expect(1));
    home.run(&["backup", "models"]).expect(0);
    let table =
        |component, table| home.run(&["restore", component, "--table", table, "--target", "there"]).expect(1);
    home.assert_snapshot("error_table_kind", &table("models", "shop.public.orders"));
    home.assert_snapshot("error_table_name", &table("server", "orders.x"));
    home.assert_snapshot("error_table_none", &table("server", "shop.public.orders"));
    let point = ["restore", "models", "--lsn", "0/1", "--target", "there"];
    home.assert_snapshot("error_target_kind", &home.run(&point).expect(1));
    assert!(!home.path("there").exists());
}

#[test]
fn an_agent_that_cannot_begin() {
    let open = Home::with(&format!("{MODELS}\n[agent]\nlisten = \"0.0.0.0:0\"\n"));
    open.assert_snapshot("error_agent_open", &open.run(&["agent"]).expect(1));
    let home = Home::with(MODELS);
    home.write("state", b"no folder");
    home.assert_snapshot("error_agent_state", &home.run(&["agent", "--state", "state"]).expect(1));
}

#[test]
fn a_server_that_is_not_there() {
    let home = Home::with(NOBODY);
    home.assert_snapshot("error_backup_server", &home.run(&["backup"]).expect(1));
    home.assert_snapshot("error_doctor_server", &home.run(&["doctor"]).expect(1));
    home.assert_snapshot("error_drill_server", &home.run(&["drill", "deletion"]).expect(1));
    home.write_manifest(&format!("{NOBODY}backup = \"logical\"\n"));
    home.assert_snapshot("error_drill_dumps", &home.run(&["drill", "drop-table"]).expect(1));
}
