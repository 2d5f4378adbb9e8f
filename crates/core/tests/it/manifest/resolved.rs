//! Rules about several keys: what follows from a manifest as a whole, at the border of each rule.

use super::{SMALL, accept, codes, origin, refuse};
use proptest::prelude::*;
use retoma_core::manifest::{Manifest, Problem, Receiver, SecretRef, Severity, Source, Tier, parse};
use retoma_core::units::Duration;
use std::path::{Path, PathBuf};

const NONE: [&str; 0] = [];

/// A manifest of these parts: repositories, what stands in the one component (a folder), and what stands behind it.
fn with(repositories: &str, component: &str, more: &str) -> String {
    format!(
        "version = 1\n[service]\nname = \"s\"\n{repositories}\n[[component]]\nname = \"m\"\nkind = \"files\"\n\
         tier = \"high\"\npath = \"/data\"\n{component}\n{more}\n"
    )
}

fn repository(name: &str, url: &str, more: &str) -> String {
    format!("[[repository]]\nname = \"{name}\"\nurl = \"{url}\"\npassword = \"env:P\"\n{more}\n")
}

/// Problems and warnings alike.
fn told(text: &str) -> Vec<Problem> {
    match parse(text, &origin()) {
        Ok(manifest) => manifest.warnings,
        Err(problems) => problems,
    }
}

#[test]
fn a_lock_is_as_long_as_each_rule_keeps_at_least_and_not_a_day_longer() {
    let kept = |days: u32, rules: &str| {
        let locked = repository("far", "s3://b/x", &format!("lock_days = {days}"));
        // A backup each day, so that numbers of snapshots are numbers of days.
        let daily = "[tier.high]\nrpo = \"2d\"\n[schedule]\nevery = \"1d\"\ncapture_allowance_seconds = 0\n";
        codes(&with(&locked, "", &format!("{daily}[retention]\n{rules}")))
    };
    for (rules, days) in [
        ("keep_last = 14", 14),
        ("hourly = 48", 2),
        ("hourly = 71", 2),
        ("hourly = 72", 3),
        ("daily = 30", 30),
        ("weekly = 3", 21),
        // The shortest month, and the shortest year.
        ("monthly = 2", 56),
        ("yearly = 1", 365),
        ("keep_within = \"9d23h\"", 9),
        // What any rule keeps, stays.
        ("daily = 3\nweekly = 2\nkeep_last = 5", 14),
    ] {
        assert_eq!(kept(days, rules), NONE, "{rules}");
        assert_eq!(kept(days + 1, rules), ["R0117"], "{rules}");
    }
}

#[test]
fn a_lock_in_a_copy_is_compared_with_what_its_source_gets() {
    let both = |days: u32| {
        repository("near", "file:///r", "")
            + &repository("far", "s3://b/x", &format!("copy_of = \"near\"\nlock_days = {days}"))
    };
    let rules = "[retention]\ndaily = 7\n";
    assert_eq!(codes(&with(&both(7), "", rules)), NONE);
    let problems = refuse(&with(&both(8), "", rules));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("locked for 8 days") && problems[0].message.contains("`m`"));
    // A component that does not go there is not held up.
    let elsewhere = repository("other", "s3://c/x", "lock_days = 30") + &repository("near", "file:///r", "");
    assert_eq!(codes(&with(&elsewhere, "repositories = [\"near\"]", rules)), NONE);
    assert_eq!(codes(&with(&elsewhere, "repositories = [\"other\"]", rules)), ["R0117"]);
}

#[test]
fn holds_of_both_tables_are_kept_once_and_in_order() {
    let holds = |global: &str, own: &str| {
        let own = format!("[component.retention]\n{own}");
        let text = with(&repository("r", "file:///r", ""), &own, &format!("[retention]\n{global}"));
        let rules = accept(&text).components[0].retention.clone();
        (rules.holds.join(" "), rules.daily, rules.keep_within.as_seconds() / 86_400)
    };
    let both = |holds: &str, daily, days| (holds.to_owned(), daily, days);
    assert_eq!(holds("holds = [\"b\", \"a\"]", "holds = [\"c\", \"a\"]"), both("a b c", 0, 30));
    assert_eq!(holds("holds = [\"b\"]\ndaily = 3", "holds = [\"a\"]"), both("a b", 3, 0));
    assert_eq!(holds("holds = [\"b\"]\ndaily = 3", "weekly = 1"), both("b", 0, 0));
    assert_eq!(holds("daily = 3", "daily = 4\nholds = [\"z\"]"), both("z", 4, 0));
}

#[test]
fn each_key_of_a_schedule_comes_from_the_nearest_table_that_has_it() {
    let schedule = |own: &str, global: &str| {
        let own = format!("[component.schedule]\n{own}");
        let text = with(&repository("r", "file:///r", ""), &own, &format!("[schedule]\n{global}"));
        let schedule = accept(&text).components[0].schedule;
        (schedule.every.to_string(), schedule.capture_allowance.as_seconds())
    };
    let expected = |every: &str, allowance| (every.to_owned(), allowance);
    // The tier allows 15 minutes, and a tenth of that is set aside.
    assert_eq!(schedule("", ""), expected("13m30s", 90));
    assert_eq!(schedule("every = \"2m\"", ""), expected("2m", 90));
    assert_eq!(schedule("", "every = \"3m\""), expected("3m", 90));
    assert_eq!(
        schedule("every = \"2m\"", "every = \"3m\"\ncapture_allowance_seconds = 7"),
        expected("2m", 7)
    );
    assert_eq!(
        schedule("capture_allowance_seconds = 8", "capture_allowance_seconds = 7"),
        expected("14m52s", 8)
    );
    assert_eq!(schedule("capture_allowance_seconds = 0", "every = \"15m\""), expected("15m", 0));
}

#[test]
fn what_is_set_aside_is_rounded_up_so_that_the_promise_holds() {
    let odd = |rpo: &str| {
        let text = with(&repository("r", "file:///r", ""), "", &format!("[tier.high]\nrpo = \"{rpo}\"\n"));
        let component = accept(&text).components.remove(0);
        assert!(component.schedule.worst_case() <= component.objectives.rpo);
        (component.schedule.every.as_seconds(), component.schedule.capture_allowance.as_seconds())
    };
    assert_eq!(odd("60s"), (54, 6));
    assert_eq!(odd("61s"), (54, 7));
    assert_eq!(odd("69s"), (62, 7));
    assert_eq!(odd("10h"), (3600, 3600), "backups are at least hourly");
}

#[test]
fn marks_are_read_beside_where_they_are_written_and_belong_to_the_first_database() {
    let databases = "[[component]]\nname = \"one\"\nkind = \"sqlite\"\ntier = \"low\"\npath = \"/1\"\n\
                     [[component]]\nname = \"two\"\nkind = \"sqlite\"\ntier = \"low\"\npath = \"/2\"\n";
    let markers = |components: &str, lines: &str| {
        let more = format!("{components}[drill]\nmarker_url = \"http://h/m\"\n{lines}");
        let found = accept(&with(&repository("r", "file:///r", ""), "", &more)).drill.markers.unwrap();
        (found.write_url, found.read_url, found.component)
    };
    let expected = |read: &str, component: Option<&str>| {
        ("http://h/m".to_owned(), read.to_owned(), component.map(str::to_owned))
    };
    assert_eq!(markers(databases, ""), expected("http://h/ms", Some("one")));
    assert_eq!(markers("", ""), expected("http://h/ms", None), "a folder holds no marks");
    assert_eq!(markers(databases, "marker_component = \"two\""), expected("http://h/ms", Some("two")));
    assert_eq!(markers("", "marker_component = \"m\""), expected("http://h/ms", Some("m")));
    assert_eq!(markers("", "markers_url = \"http://h/all\""), expected("http://h/all", None));
}

/// Each of these is accepted, and the one thing to look at is told at its line.
#[test]
fn what_has_no_effect_is_told_at_its_line_and_refuses_nothing() {
    let cases = [
        ("[service]\nname = \"s\"\nstop = [\"x\"]", "stop = ", "R0123"),
        ("[service]\nname = \"s\"\nstart = [\"x\"]", "start = ", "R0122"),
        ("[agent]\ndrill_every = \"1d\"", "drill_every", "R0123"),
        ("[drill]\nmarkers_url = \"http://h/m\"", "markers_url", "R0123"),
        ("[drill]\nmarker_component = \"m\"", "marker_component", "R0123"),
        ("[tier.low]\nrto = 7", "[tier.low]", "R0123"),
    ];
    let base = with(&repository("r", "file:///r", ""), "", "");
    assert_eq!(told(&base), []);
    for (lines, at, code) in cases {
        let text = match lines.strip_prefix("[service]\nname = \"s\"") {
            Some(rest) => base.replace("name = \"s\"", &format!("name = \"s\"{rest}")),
            None => format!("{base}{lines}\n"),
        };
        let found = told(&text);
        let [one] = found.as_slice() else { panic!("{lines}: {found:?}") };
        assert_eq!((one.code.as_str(), one.severity), (code, Severity::Warning), "{lines}");
        let line = text.lines().nth(one.line - 1).unwrap();
        assert!(line.starts_with(at) && one.hint.is_some(), "{line}");
        assert!(parse(&text, &origin()).is_ok());
    }
    let database = SMALL.replace(
        "[[component]]\nname = \"models\"",
        "[component.wal]\nmode = \"stream\"\narchive_timeout = \"1m\"\n[[component]]\nname = \"models\"",
    );
    let found = told(&database);
    assert_eq!(found.iter().map(|it| it.code.as_str()).collect::<Vec<_>>(), ["R0123"]);
    assert!(found[0].message.contains("`archive_timeout` has no effect with `mode = \"stream\"`"));
}

#[test]
fn what_tells_whether_a_service_works_is_its_health_or_any_check() {
    let started = |more: &str| {
        let text = with(&repository("r", "file:///r", ""), "", "");
        told(&text.replace("name = \"s\"", &format!("name = \"s\"\nstart = [\"x\"]\n{more}"))).len()
    };
    assert_eq!(started(""), 1);
    assert_eq!(started("health = \"http://h/\""), 0);
    assert_eq!(started("[[service.check]]\nurl = \"http://h/\""), 0);
}

#[test]
fn every_repository_that_lies_in_a_component_is_named_until_exactly_it_is_excluded() {
    let inside = |folders: &[&str], exclude: &str| {
        let named = folders
            .iter()
            .zip('a'..)
            .map(|(folder, name)| repository(&name.to_string(), &format!("file://{folder}"), ""));
        let found = told(&with(&named.collect::<String>(), &format!("exclude = {exclude}"), ""));
        assert!(found.iter().all(|it| it.code.as_str() == "R0121"), "{found:?}");
        found.into_iter().map(|it| (it.message, it.hint.unwrap())).collect::<Vec<_>>()
    };
    let count = |folders: &[&str], exclude: &str| inside(folders, exclude).len();
    assert_eq!(count(&["/data/r", "/data/sub/r"], "[]"), 2);
    assert_eq!(count(&["/data/r", "/data/sub/r"], "['/r']"), 1);
    assert_eq!(count(&["/data/r", "/data/sub/r"], "['/r', '/sub/r']"), 0);
    // A pattern that might fit something else as well is not taken for it.
    for pattern in ["['r']", "['/R']", "['/r/']", "['*']", "['/sub']"] {
        assert_eq!(count(&["/data/r"], pattern), 1, "{pattern}");
    }
    assert_eq!(count(&["/data/./r"], "['/r']"), 0, "the same place in other words");
    assert_eq!(count(&["/data2/r"], "[]"), 0, "a name that begins alike");
    // The component itself cannot be excluded from itself.
    assert!(inside(&["/data"], "[]")[0].1.starts_with("move the repository elsewhere"));
    assert_eq!(count(&["/data"], "['/*', '*']"), 1);
    let odd = inside(&["/data/a [1]*"], "[]");
    assert!(odd[0].1.contains("exclude = ['/a [[]1][*]']"), "{}", odd[0].1);
    assert_eq!(count(&["/data/a [1]*"], "['/a [[]1][*]']"), 0, "the hint can be followed");
}

#[test]
fn who_is_heard_by_others_asks_for_a_token() {
    let agent = |listen: &str, more: &str| {
        codes(&with(
            &repository("r", "file:///r", ""),
            "",
            &format!("[agent]\nlisten = \"{listen}\"\n{more}"),
        ))
    };
    for near in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1"] {
        assert_eq!(agent(near, ""), NONE, "{near}");
    }
    for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(agent(far, ""), ["R0117"], "{far}");
        assert_eq!(agent(far, "token = \"env:T\""), NONE, "{far}");
    }
    // A token that is none protects nothing.
    assert_eq!(agent("0.0.0.0:1", "token = \"hunter2\""), ["R0115"]);
}

#[test]
fn every_relative_path_begins_where_the_manifest_is() {
    let text = with(
        &repository("r", "file:///r", "").replace("env:P", "file:secrets/../p"),
        "",
        "[evidence]\nsigning_key = \"file:./key\"\n[drill]\nscratch_dir = \"scratch\"\n\
         [agent]\ntoken = \"file:token\"\n[alerts]\nwebhook = \"file:hook\"\n",
    );
    let manifest = accept(&text.replace("path = \"/data\"", "path = \"./data/./x\""));
    let file = |path: &str| SecretRef::File(path.into());
    assert_eq!(manifest.repositories[0].password, file("/srv/marabet/secrets/../p"));
    assert_eq!(manifest.evidence.signing_key, Some(file("/srv/marabet/key")));
    assert_eq!(manifest.drill.scratch_dir.as_deref(), Some(Path::new("/srv/marabet/scratch")));
    assert_eq!(manifest.agent.token, Some(file("/srv/marabet/token")));
    assert_eq!(manifest.alerts.webhook, Some(Receiver::Reference(file("/srv/marabet/hook"))));
    assert_eq!(manifest.components[0].path(), Some(Path::new("/srv/marabet/data/x")));
}

#[test]
fn below_another_root_data_move_and_what_is_elsewhere_stays() {
    let text = with(
        &repository("r", "file:///r", ""),
        "",
        "[[component]]\nname = \"d\"\nkind = \"sqlite\"\ntier = \"low\"\npath = \"db.sqlite\"\n\
         [[component]]\nname = \"c\"\nkind = \"redis\"\ntier = \"low\"\nurl = \"redis://h\"\n",
    );
    let manifest = accept(&text);
    let moved = manifest.below(Path::new("/new"));
    let paths: Vec<_> = moved.components.iter().map(|it| it.path().map(Path::to_owned)).collect();
    let expected: [Option<PathBuf>; 3] =
        [Some("/new/data".into()), Some("/new/srv/marabet/db.sqlite".into()), None];
    assert_eq!(paths, expected);
    assert_eq!(moved.dir(), Path::new("/new/srv/marabet"));
    assert_eq!((&moved.repositories, &moved.service), (&manifest.repositories, &manifest.service));
    assert_eq!(moved.hash(), manifest.hash());
    assert!(matches!(moved.components[2].source, Source::Redis { .. }));
}

#[test]
fn a_tier_may_be_changed_in_one_of_its_objectives_alone_and_others_stay() {
    let text = with(&repository("r", "file:///r", ""), "", "[tier.high]\nrto = \"90m\"\n");
    let objectives = accept(&text).components[0].objectives;
    let usual = Tier::High.default_objectives();
    assert_eq!((objectives.rto, objectives.rpo), (Duration::from_minutes(90), usual.rpo));
    let minutes = accept(&text.replace("\"90m\"", "90")).components[0].objectives;
    assert_eq!(minutes, objectives, "a number is minutes");
}

fn tiers(tiers: &[Tier]) -> Manifest {
    let component = |(number, tier): (usize, &Tier)| {
        format!(
            "[[component]]\nname = \"c{number}\"\nkind = \"files\"\ntier = \"{tier}\"\npath = \"/{number}\"\n"
        )
    };
    let all: String = tiers.iter().enumerate().map(component).collect();
    accept(&format!("version = 1\n[service]\nname = \"s\"\n{}{all}", repository("r", "file:///r", "")))
}

proptest! {
    #[test]
    fn recovery_takes_the_more_important_first_and_equals_as_they_stand(
        all in prop::collection::vec(prop::sample::select(Tier::ALL.to_vec()), 1..12),
    ) {
        let manifest = tiers(&all);
        let order: Vec<usize> =
            manifest.recovery_order().iter().map(|it| it.name[1..].parse().unwrap()).collect();
        let of_tier = |tier: Tier| all.iter().enumerate().filter(move |(_, of)| **of == tier).map(|(at, _)| at);
        prop_assert_eq!(order, Tier::ALL.into_iter().flat_map(of_tier).collect::<Vec<_>>());
    }
}
