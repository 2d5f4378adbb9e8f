//! What is refused, and how that is shown.

use super::{SMALL, accept, codes, refuse};
use retoma_core::manifest::{Severity, Source, render, summary};

#[test]
fn many_problems_are_shown_in_one_run() {
    let text = r#"version = 2
colour = "blue"

[service]
name = "Mara Bet"
health = "127.0.0.1:8080/healthz"
start = "./run --port 8080"
ready_seconds = "30"

[[repository]]
name = "local"
url = "ftp://backup.example/x"
password = "hunter2hunter2"

[[repository]]
name = "local"
url = "sftp://backup:hunter2hunter2@host/srv"

[schedule]
every = "1h"

[retention]
daily = 0

[[component]]
name = "database"
kind = "postgres"
teir = "critical"
tier = "critcal"
url = "postgres://retoma:hunter2hunter2@127.0.0.1:5432/marabet"
path = "/var/lib/postgresql"

[[component]]
name = "models"
kind = "files"
tier = "high"
path = "~/models"
repositories = ["locl"]
  [[component.check]]
	sql = "select 1"	# tabs

[component.schedule]
every = "every hour"

[[component]]
name = "latest"
kind = "sqlite"
tier = "low"

[evidence]
signing_key = 42
public_key = "hunter2"
"#;
    let problems = refuse(text);
    let shown = render(&problems, "retoma.toml");
    assert!(!shown.contains("hunter2hunter2"), "{shown}");
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!(summary(&problems, "retoma.toml"), @"the manifest `retoma.toml` has 25 errors");
}

#[test]
fn a_syntax_error_is_shown_like_any_other_problem() {
    let text = SMALL.replace("tier = \"high\"", "tier = high");
    insta::assert_snapshot!(render(&refuse(&text), "retoma.toml"));
    let text = SMALL.replace("tier = \"high\"", "tier = \"high\"\ntier = \"low\"");
    insta::assert_snapshot!(render(&refuse(&text), "retoma.toml"));
}

#[test]
fn an_empty_manifest_names_what_it_needs() {
    insta::assert_snapshot!(render(&refuse(""), "retoma.toml"));
}

#[test]
fn a_schedule_that_misses_the_rpo_names_the_needed_one() {
    let global = format!("{SMALL}[schedule]\nevery = \"1h\"\n");
    insta::assert_snapshot!(render(&refuse(&global), "retoma.toml"));
    let own = format!("{SMALL}[component.schedule]\nevery = \"15m\"\n");
    insta::assert_snapshot!(render(&refuse(&own), "retoma.toml"));
    let no_time = format!("{SMALL}[component.schedule]\ncapture_allowance_seconds = 900\n");
    insta::assert_snapshot!(render(&refuse(&no_time), "retoma.toml"));
}

#[test]
fn wal_that_does_not_meet_the_rpo_excuses_no_schedule() {
    let with =
        |wal: &str| {
            let lines = format!("[component.schedule]\nevery = \"1h\"\n[component.wal]\n{wal}\n");
            codes(&SMALL.replace(
                "[[component]]\nname = \"models\"",
                &format!("{lines}[[component]]\nname = \"models\""),
            ))
        };
    assert_eq!(with("mode = \"stream\""), [""; 0]);
    assert_eq!(with("mode = \"synchronous\""), [""; 0]);
    assert_eq!(with("archive_timeout = \"4m30s\""), [""; 0]);
    for wal in ["mode = \"archive\"", "archive_timeout = \"4m31s\"", "slot_limit_mib = 7"] {
        assert_eq!(with(wal), ["R0118"], "{wal}");
    }
    // Only a server has WAL, and what its own table may not say excuses nothing.
    let files = format!("{SMALL}[component.schedule]\nevery = \"1h\"\n[component.wal]\nmode = \"stream\"\n");
    assert!(codes(&files).contains(&"R0118"), "{:?}", codes(&files));
}

#[test]
fn a_mail_server_that_is_not_protected_or_half_known_is_refused() {
    let with = |lines: &str| {
        let rest = "from = \"a@b\"\nto = [\"c@d\"]\n";
        codes(&format!("{SMALL}[alerts.email]\n{rest}{lines}\n"))
    };
    assert_eq!(with("server = \"mail.example.org:587\""), [""; 0]);
    for server in ["localhost:25", "127.0.0.1:25", "[::1]:25"] {
        assert_eq!(with(&format!("server = \"{server}\"\nsecurity = \"none\"")), [""; 0]);
    }
    for (lines, code) in [
        ("server = \"mail.example.org:25\"\nsecurity = \"none\"", "R0117"),
        ("server = \"10.0.0.1:25\"\nsecurity = \"none\"", "R0117"),
        ("server = \"h:25\"\nsecurity = \"maybe\"", "R0110"),
        ("server = \"h:25\"\nuser = \"u\"", "R0117"),
        ("server = \"h:25\"\npassword = \"env:P\"", "R0117"),
        ("server = \"h:25\"\nuser = \"u\"\npassword = \"hunter2\"", "R0115"),
        ("server = \"h\"", "R0119"),
        ("", "R0106"),
    ] {
        assert!(with(lines).contains(&code), "{lines}: {:?}", with(lines));
    }
    let list = |from: &str, to: &str| {
        codes(&format!("{SMALL}[alerts.email]\nserver = \"h:25\"\nfrom = \"{from}\"\nto = [{to}]\n"))
    };
    assert_eq!(list("a@b", ""), ["R0119"]);
    assert_eq!(list("a@b", "\"c@d\", \"c@d\""), ["R0109"]);
    for canary in ["a@b\\r\\nBcc: canary@example.org", "a@b, canary@example.org", "A <a@b>", "a"] {
        assert_eq!(list(canary, "\"c@d\""), ["R0119"], "{canary}");
        assert_eq!(list("a@b", &format!("\"{canary}\"")), ["R0119"], "{canary}");
    }
}

#[test]
fn the_border_of_the_rpo_is_exact() {
    let with = |every: &str, allowance: u32| {
        codes(&format!(
            "{SMALL}[component.schedule]\nevery = \"{every}\"\ncapture_allowance_seconds = {allowance}\n"
        ))
    };
    assert_eq!(with("15m", 0), [""; 0]);
    assert_eq!(with("15m", 1), ["R0118"]);
    assert_eq!(with("14m", 60), [""; 0]);
    assert_eq!(with("14m1s", 60), ["R0118"]);
    assert_eq!(with("1s", 899), [""; 0]);
}

#[test]
fn a_tier_with_a_longer_rpo_makes_room() {
    let text = format!("{SMALL}[component.schedule]\nevery = \"1h\"\n");
    assert_eq!(codes(&text), ["R0118"]);
    assert_eq!(codes(&format!("{text}[tier.high]\nrpo = 67\n")), [""; 0]);
    assert_eq!(codes(&format!("{text}[tier.high]\nrpo = \"1h6m\"\n")), ["R0118"]);
}

/// Each line replaces one of `SMALL`, or is added at its end, and gives just this code.
#[test]
fn every_rule_has_its_code() {
    let replaced: &[(&str, &str, &str)] = &[
        ("version = 1", "", "R0106"),
        ("version = 1", "version = \"1\"", "R0105"),
        ("version = 1", "version = 0", "R0107"),
        ("name = \"models\"", "name = \"models\"\nnmae = 1", "R0104"),
        ("name = \"models\"", "name = \"database\"", "R0109"),
        ("name = \"models\"", "name = \"-models\"", "R0108"),
        ("name = \"models\"", "name = \"all\"", "R0108"),
        ("name = \"models\"", "name = 1.5", "R0105"),
        ("tier = \"high\"", "tier = \"High\"", "R0110"),
        ("tier = \"high\"", "", "R0106"),
        ("kind = \"files\"", "kind = \"folder\"", "R0110"),
        ("path = \"models\"", "", "R0106"),
        ("path = \"models\"", "path = \"\"", "R0119"),
        ("path = \"models\"", "path = \"x\\u0000\"", "R0119"),
        ("path = \"models\"", "path = \"models\"\nurl = \"redis://x\"", "R0117"),
        ("path = \"models\"", "path = \"models\"\nexclude = [\"\"]", "R0119"),
        ("path = \"models\"", "path = \"models\"\nmay_be_empty = [\"sessions\"]", "R0117"),
        ("path = \"models\"", "path = \"models\"\nexclude = \"*.tmp\"", "R0105"),
        ("path = \"models\"", "path = \"models\"\nrepositories = []", "R0119"),
        ("path = \"models\"", "path = \"models\"\nrepositories = [\"local\", \"local\"]", "R0109"),
        ("path = \"models\"", "path = \"models\"\nrepositories = [\"far\"]", "R0116"),
        ("path = \"models\"", "path = \"/var/lib\"", "R0121"),
        ("path = \"models\"", "path = \"/var/lib/retoma/repository\"", "R0121"),
        ("url = \"file:///var/lib/retoma/repository\"", "url = \"/var/lib/retoma\"", "R0113"),
        ("url = \"postgres://retoma@127.0.0.1:5432/marabet\"", "url = \"env:A-B\"", "R0115"),
        ("url = \"postgres://retoma@127.0.0.1:5432/marabet\"", "url = \"redis://x\"", "R0113"),
        ("url = \"postgres://retoma@127.0.0.1:5432/marabet\"", "url = \"postgres://r:p@x/y\"", "R0114"),
        ("path = \"models\"", "path = \"models\"\nbackup = \"stream\"", "R0117"),
        (
            "url = \"postgres://retoma@127.0.0.1:5432/marabet\"",
            "url = \"postgres://h/d\"\nbackup = \"logical\"\nwal = { mode = \"stream\" }",
            "R0117",
        ),
        ("password = \"file:/etc/retoma/password\"", "password = \"secret\"", "R0115"),
        ("password = \"file:/etc/retoma/password\"", "password = \"\"", "R0115"),
        ("password = \"file:/etc/retoma/password\"", "", "R0106"),
    ];
    for (old, new, code) in replaced {
        assert!(SMALL.contains(old), "{old}");
        assert_eq!(codes(&SMALL.replace(old, new)), [*code], "{new}");
    }
    let added: &[(&str, &str)] = &[
        ("[retention]\nkeep_last = 0", "R0120"),
        ("[retention]\ndaily = -1", "R0112"),
        ("[retention]\nkeep_within = \"soon\"", "R0111"),
        ("[retention]\nkeep_within = \"0s\"", "R0112"),
        ("[schedule]\nevery = 15", "R0105"),
        ("[tier.extreme]\nrpo = 1", "R0104"),
        ("[tier.high]\nrpo = 0", "R0112"),
        ("[tier.high]\nrpo = \"59s\"", "R0112"),
        ("[component.retention]\nhourly = 0", "R0120"),
        ("[[component.check]]\nsql = \"select 1\"\nmin_rows = 1", "R0117"),
        ("[[component.check]]\ncommand = [\"x\"]\nmin_rows = 1", "R0117"),
        ("[[component.check]]\ncommand = []", "R0119"),
        ("[[component.check]]\ncommand = [1]", "R0105"),
        ("[[component.check]]\ncommand = [\"\"]", "R0119"),
        ("[[component.check]]", "R0106"),
        ("[[service.check]]\nurl = \"http://x\"\nexpect_body = \"\"", "R0119"),
        ("[[service.check]]\nurl = \"http://x\"\nexpect_status = 700", "R0112"),
        ("[evidence]\npublic_key = \"AAAA\"", "R0119"),
        ("[drill]\ntimeout_seconds = 0", "R0112"),
        ("[agent]\nlisten = \"localhost\"", "R0119"),
        ("[agent]\nlisten = \"0.0.0.0:9840\"", "R0117"),
        ("[agent]\nverify_sample_percent = 0", "R0112"),
        ("[alerts]\nwebhook = \"ftp://x\"", "R0113"),
        ("[alerts]\nwebhook = \"http://u:hunter2@x\"", "R0114"),
        ("[alerts]\nmail = \"a@b\"", "R0104"),
        ("[alerts]\nemail = \"a@b\"", "R0105"),
        ("[drill]\nmarker_url = \"http://h/m\"\nmarker_component = \"nobody\"", "R0116"),
    ];
    for (new, code) in added {
        assert_eq!(codes(&format!("{SMALL}{new}\n")), [*code], "{new}");
    }
    assert_eq!(codes("version = "), ["R0103"]);
}

#[test]
fn prices_are_texts_and_shares_are_percent() {
    let priced = |amount: &str| {
        let password = "password = \"file:/etc/retoma/password\"";
        codes(&SMALL.replace(password, &format!("{password}\n[repository.price]\ngb_month = {amount}")))
    };
    assert_eq!(priced("\"0.023\""), [""; 0]);
    assert_eq!(priced("0.023"), ["R0105"]);
    assert_eq!(priced("\"0,023\""), ["R0119"]);
    let share = |percent: u32| codes(&format!("{SMALL}[component.mass_change]\ngone_percent = {percent}\n"));
    assert_eq!(share(100), [""; 0]);
    assert_eq!(share(101), ["R0112"]);
}

#[test]
fn a_repository_inside_a_component_is_accepted_once_it_is_excluded() {
    let text = SMALL.replace("path = \"models\"", "path = \"/var/lib\"\nexclude = [\"/retoma/repository\"]");
    assert_eq!(codes(&text), [""; 0]);
}

#[test]
fn a_check_of_a_database_may_hold_one_expectation_only() {
    let with = |check: &str| {
        let check = format!("url = \"postgres://x\"\n[[component.check]]\n{check}\n");
        codes(&SMALL.replace("url = \"postgres://retoma@127.0.0.1:5432/marabet\"\n", &check))
    };
    assert_eq!(with("sql = \"select 1\"\nexpect = \"1\""), [""; 0]);
    assert_eq!(with("sql = \"select 1\""), ["R0106"]);
    assert_eq!(with("sql = \"select 1\"\nexpect = \"1\"\nmin_rows = 1"), ["R0117"]);
    assert_eq!(with("sql = \"select 1\"\nmin_rows = 1\ncommand = [\"x\"]"), ["R0117"]);
    assert_eq!(with("sql = \"select 1\"\nmin_rows = 0"), ["R0112"]);
    assert_eq!(with("sql = \"\"\nmin_rows = 1"), ["R0119"]);
}

#[test]
fn warnings_are_listed_beside_errors_in_the_order_of_the_text() {
    let problems = refuse(&format!("{SMALL}[tier.low]\nrpo = 1\n[drill]\nx = 1\n"));
    let severities: Vec<_> = problems.iter().map(|problem| problem.severity).collect();
    assert_eq!(severities, [Severity::Warning, Severity::Error]);
    assert!(problems[0].line < problems[1].line);
    assert!(render(&problems, "f").ends_with("f: 1 error and 1 warning\n"));
}

#[test]
fn tables_that_may_be_empty_are_names_of_a_database_and_all_different() {
    let database = |list: &str| {
        SMALL
            .replace("path = \"models\"", &format!("path = \"models\"\nmay_be_empty = {list}"))
            .replace("kind = \"files\"", "kind = \"sqlite\"")
    };
    let accepted = accept(&database("['sessions', 'Old Carts']"));
    let of = |source: &Source| match source {
        Source::Sqlite { may_be_empty, .. } => may_be_empty.clone(),
        _ => Vec::new(),
    };
    let named: Vec<String> = accepted.components.iter().flat_map(|component| of(&component.source)).collect();
    assert_eq!(named, ["sessions", "Old Carts"]);
    let cases =
        [("[]", "R0119"), ("['']", "R0119"), ("['a', 'a']", "R0109"), ("'a'", "R0105"), ("[1]", "R0105")];
    for (list, code) in cases {
        assert_eq!(codes(&database(list)), [code], "{list}");
    }
}

#[test]
fn a_copy_needs_a_source_that_backups_go_into() {
    let with = |more: &str| codes(&format!("{SMALL}{more}"));
    let copy = |name: &str, of: &str| {
        format!(
            "[[repository]]\nname = \"{name}\"\nurl = \"file:///{name}\"\npassword = \"env:P\"\ncopy_of = \"{of}\"\n"
        )
    };
    assert_eq!(with(&copy("off", "local")), [] as [&str; 0]);
    assert_eq!(with(&copy("off", "locl")), ["R0116"]);
    assert_eq!(with(&copy("off", "off")), ["R0117"]);
    assert_eq!(with(&(copy("off", "far") + &copy("far", "local"))), ["R0117"]);
    let named = SMALL.replace("path = \"models\"", "path = \"models\"\nrepositories = [\"local\", \"off\"]");
    assert_eq!(codes(&(named + &copy("off", "local"))), ["R0117"]);
    let only = SMALL.replace("[[component]]", "copy_of = \"local\"\n[[component]]");
    assert!(codes(&only).contains(&"R0117"));
}

#[test]
fn locks_need_a_store_that_has_them_and_snapshots_that_are_kept_as_long() {
    let with = |repository: &str, retention: &str| {
        let text = SMALL.replacen("[[component]]", &format!("{repository}\n[[component]]"), 1);
        codes(&format!("{text}\n{retention}"))
    };
    let none: [&str; 0] = [];
    assert_eq!(with("lock_days = 30", ""), ["R0117"], "a local repository");
    assert_eq!(with("lock_mode = \"governance\"", ""), ["R0117"]);
    let far = |more: &str| {
        format!("[[repository]]\nname = \"far\"\nurl = \"s3://b/x\"\npassword = \"env:P\"\n{more}")
    };
    assert_eq!(with(&far("lock_days = 30"), ""), none);
    assert_eq!(with(&far("lock_days = 7\nlock_mode = \"governance\""), ""), none);
    for scheme in ["gs://", "az://"] {
        assert_eq!(with(&far("lock_days = 30").replace("s3://", scheme), ""), none, "{scheme}");
    }
    let elsewhere = far("lock_days = 30").replace("s3://b/x", "sftp://u@h/x");
    assert_eq!(with(&elsewhere, ""), ["R0117"]);
    assert_eq!(with(&far("lock_days = 0"), ""), ["R0112"]);
    assert_eq!(with(&far("lock_days = 7\nlock_mode = \"soft\""), ""), ["R0110"]);
    assert_eq!(
        with(&far("lock_days = 14"), "[retention]\ndaily = 13"),
        ["R0117"; 2],
        "each of two components"
    );
    assert_eq!(with(&far("lock_days = 14"), "[retention]\ndaily = 13\nkeep_within = \"14d\""), none);
    assert_eq!(with(&far("lock_days = 14"), "[retention]\nweekly = 2"), none);
}
