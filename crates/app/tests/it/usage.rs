//! Help, version, wrong usage, completions, the manual, and manifests that are missing or wrong.

use crate::kit::{Home, MODELS};
use std::io::Write;
use std::process::Stdio;

#[test]
fn help_and_version_are_data_and_end_well() {
    let home = Home::empty();
    home.assert_snapshot("version", &home.run(&["--version"]).expect(0));
    let help = home.run(&["--help"]).expect(0);
    assert!(help.stderr.is_empty());
    home.assert_snapshot("help", &help);
}

#[test]
fn the_help_names_no_hidden_verb_and_each_verb_helps() {
    let home = Home::empty();
    let help = home.run(&["--help"]).expect(0).stdout;
    assert!(!help.contains("__"), "{help}");
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let verbs: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in verbs {
        let help = home.run(&["help", verb]).expect(0).stdout;
        assert!(verb == "help" || help.contains(&format!("Usage: retoma {verb}")), "{help}");
        if verb == "help" {
            continue;
        }
        let with_option = home.run(&[verb, "--help"]).expect(0);
        assert!(with_option.stderr.is_empty(), "{}", with_option.text());
        // Everything that a person can give is explained: no option stands alone in its line.
        for line in with_option.stdout.lines().filter(|line| line.trim_start().starts_with("--")) {
            assert!(line.trim().contains("  ") || help.contains("Possible values"), "{verb}: {line}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_1_and_says_what_fits() {
    let home = Home::empty();
    home.assert_snapshot("unknown_verb", &home.run(&["bakcup"]).expect(1));
    home.assert_snapshot("unknown_option", &home.run(&["verify", "--read-dat"]).expect(1));
    home.assert_snapshot("missing_argument", &home.run(&["restore", "models"]).expect(1));
    home.assert_snapshot("wrong_value", &home.run(&["verify", "--sample", "200%"]).expect(1));
    home.assert_snapshot("no_verb", &home.run(&[]).expect(1));
}

#[test]
fn wrong_usage_is_one_document_too() {
    let home = Home::empty();
    for (arguments, message, hint) in [
        (&["bakcup"][..], "bakcup", "backup"),
        (&["verify", "--read-dat"], "--read-dat", "--read-data"),
        (&["restore", "models"], "--target <DIR>", "retoma restore --target <DIR>"),
        (&["verify", "--sample", "200%"], "200%", "--help"),
        (&["drill"], "<SCENARIO>", "retoma drill"),
        (&[], "no verb", "retoma --help"),
    ] {
        let error = home.json(arguments, 1, "retoma.error/1");
        assert_eq!((&error["code"], &error["kind"]), (&"R0002".into(), &"invalid".into()));
        assert!(error["message"].as_str().unwrap().contains(message), "{error:#}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{error:#}");
        assert!(!error.to_string().contains("__"), "hidden verbs: {error:#}");
    }
    let plain = home.run(&["bakcup", "--", "--json"]).expect(1);
    assert!(plain.stdout.is_empty(), "{}", plain.text());
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completions", shell]).expect(0).stdout;
        for word in ["restore", "evidence", "new-key", "read-data"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(script.contains("retoma") && !script.contains("Usage:"), "{shell}");
        let Some(program) = retoma_testkit::require_tool(shell) else { continue };
        let mut reader = home.through(std::process::Command::new(program));
        let mut reader = reader.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn bash_completes_a_verb() {
    let home = Home::empty();
    let script = home.run(&["completions", "bash"]).expect(0).stdout;
    let ask = "COMP_WORDS=(retoma sna); COMP_CWORD=1; _retoma retoma sna retoma; echo \"${COMPREPLY[@]}\"";
    let mut bash = home.through(std::process::Command::new("bash"));
    let output = bash.args(["-c", &format!("{script}\n{ask}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "snapshots");
}

#[test]
fn the_manual_page_is_one() {
    let page = Home::empty().run(&["man"]).expect(0).stdout;
    assert!(page.contains(".TH retoma 1") && page.contains(".SH SUBCOMMANDS"), "{page}");
    assert!(page.contains("retoma\\-evidence") && !page.contains("__"), "{page}");
    for (words, title) in
        [(&["backup"][..], "retoma-backup"), (&["evidence", "verify"], "retoma-evidence-verify")]
    {
        let page = Home::empty().run(&[&["man"], words].concat()).expect(0).stdout;
        assert!(page.contains(&format!(".TH {title} 1")), "{page}");
    }
    assert_eq!(Home::empty().json(&["man", "__marabet"], 1, "retoma.error/1")["code"], "R0002");
}

#[test]
fn a_missing_manifest_says_how_to_get_one() {
    let home = Home::empty();
    home.assert_snapshot("missing_manifest", &home.run(&["backup"]).expect(1));
    let error = home.json(&["backup"], 1, "retoma.error/1");
    assert_eq!((&error["code"], &error["kind"]), (&"R0010".into(), &"notfound".into()));
}

#[test]
fn all_problems_of_a_manifest_are_shown_where_they_are() {
    let home = Home::with(MODELS);
    home.write_manifest(
        &MODELS.replace("tier = \"high\"", "teir = \"hihg\"").replace("\"files\"", "\"file\""),
    );
    let run = home.run(&["doctor"]).expect(1);
    home.assert_snapshot("manifest_with_problems", &run);
    let error = home.json(&["doctor"], 1, "retoma.error/1");
    assert_eq!(error["code"], "R0101");
}

#[test]
fn an_unknown_component_or_repository_names_the_known_ones() {
    let home = Home::with(MODELS);
    home.seed_models();
    home.assert_snapshot("unknown_component", &home.run(&["backup", "model"]).expect(1));
    home.assert_snapshot("unknown_repository", &home.run(&["backup", "--repository", "elsewhere"]).expect(1));
    assert!(!home.path("repository").exists(), "wrong usage must change nothing");
}
