//! `docs/cli-json.md` is what scripts rely on: every field that a verb prints is in the verb's section, every field of the
//! section is printed by something here, and the examples are what they say.

use crate::evidence::{manifest, new_key};
use crate::kit::{DATABASE, Home, MODELS};
use crate::service::{Left, seeded};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The verbs whose output is text, also with `--json`.
const TEXT: [&str; 3] = ["agent", "completions", "man"];
/// Fields that only appear when something is damaged, killed or full: other tests look at them.
const RARE: [&str; 28] = [
    "transit",
    "blobs",
    "bytes",
    "error",
    "unreadable",
    "offset_bytes",
    "stopped",
    "extra_deleted",
    "waiting",
    "packs",
    "size_bytes",
    "until",
    "place",
    "of",
    "period",
    "incomplete",
    "rule",
    "window",
    "tag",
    "by",
    "recorded",
    "current",
    "recorded_bytes",
    "current_bytes",
    "age_seconds",
    "max_age_seconds",
    "ahead_seconds",
    "target",
];

/// Fields of a window, and of how far a server was recovered: only where there is a server. `pitr` looks at them.
pub(crate) const WINDOW: [&str; 6] =
    ["system_identifier", "timeline", "from_time", "from_lsn", "until_lsn", "gap"];
pub(crate) const RECOVERY: [&str; 9] = [
    "target",
    "last_mark",
    "reached_lsn",
    "last_transaction",
    "timeline_before",
    "timeline_after",
    "wal_segments",
    "wal_bytes",
    "replay_seconds",
];

/// A page's sections by their headings.
fn sections(page: &str, mark: &str) -> BTreeMap<String, String> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page)).unwrap();
    let mark = format!("\n{mark} ");
    text.split(&mark)
        .skip(1)
        .map(|section| section.split_once('\n').unwrap())
        .map(|(head, body)| (head.to_owned(), body.to_owned()))
        .collect()
}

/// The section of each verb, with the schema in its heading.
fn verbs() -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    for (head, body) in sections("docs/cli-json.md", "##") {
        if let Some((verb, schema)) = head.split_once(": ") {
            let plain = |text: &str| text.trim_matches('`').to_owned();
            found.insert(plain(verb), (plain(schema), body));
        }
    }
    let drill = sections("docs/drill.md", "##").remove("The result").unwrap();
    found.get_mut("drill").unwrap().1 += &drill;
    found.get_mut("demo").unwrap().1 += &drill;
    found
}

/// The words in code spans: `a[].b`, `.c` are `a`, `b` and `c`. Examples are no description.
fn words(text: &str) -> BTreeSet<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let spans = prose.iter().flat_map(|part| part.split('`').skip(1).step_by(2));
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    spans.flat_map(|span| span.split(word)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The fields that the first column of the tables names.
fn fields(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        for span in line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            found.insert(
                span.rsplit(['.', ']'])
                    .find(|part| !part.is_empty())
                    .unwrap()
                    .trim_end_matches('[')
                    .to_owned(),
            );
        }
    }
    found
}

/// All names of fields, at every depth. What a drill leaves in `details` of a record is not looked into.
fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            into.extend(map.keys().cloned());
            map.values().for_each(|value| names(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| names(value, into)),
        _ => {}
    }
}

/// What the verbs print, collected by verb.
struct Seen {
    home: Home,
    by_verb: BTreeMap<String, Vec<Value>>,
}

impl Seen {
    /// Runs a verb, which must print one document and end with `code`.
    fn run(&mut self, arguments: &[&str], code: i32) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json", "--yes"]).collect();
        let document = self.home.run(&all).expect(code).document();
        let verb = if document["schema"] == "retoma.error/1" { "error" } else { arguments[0] };
        self.by_verb.entry(verb.to_owned()).or_default().push(document.clone());
        document
    }
}

/// Every verb but `demo` and the ones that print text, in as many forms as their documents have.
fn everything() -> BTreeMap<String, Vec<Value>> {
    let home = Home::with("");
    home.seed_models();
    home.seed_database();
    let public = new_key(&home);
    home.write(
        "retoma.toml",
        manifest(&home, &public, &format!("{MODELS}{DATABASE}\n[retention]\nkeep_last = 1\n")).as_bytes(),
    );
    home.write("fresh/a.toml", b"answer = 42\n");
    let mut seen = Seen { home, by_verb: BTreeMap::new() };
    seen.run(&["init", "fresh"], 0);
    seen.run(&["snapshots"], 10);
    let first = seen.run(&["backup"], 0)["backups"][0]["snapshot"].as_str().unwrap().to_owned();
    seen.home.write("models/new", b"new");
    std::fs::remove_file(seen.home.path("data/app.sqlite")).unwrap();
    let second = seen.run(&["backup"], 3)["backups"][0]["snapshot"].as_str().unwrap().to_owned();
    seen.run(&["doctor"], 1);
    seen.run(&["snapshots", "--all"], 0);
    seen.run(&["ls", "models", "-R"], 0);
    seen.run(&["diff", &first, &second], 0);
    seen.run(&["restore", "models", "--target", "restored", "--dry-run"], 0);
    seen.run(&["restore", "models", "--target", "restored"], 0);
    seen.run(&["recover", "--to", "new", "--dry-run"], 0);
    seen.run(&["recover", "--to", "new", "--no-start"], 0);
    seen.run(&["status"], 0);
    seen.run(&["plan", "--sheet"], 0);
    seen.run(&["evidence", "list"], 0);
    let export = seen.home.run(&["evidence", "export"]).expect(0).stdout;
    seen.home.write("export", export.as_bytes());
    seen.run(&["evidence", "verify", "export"], 0);
    seen.run(&["evidence", "new-key", "another"], 0);
    seen.home.write_private("second", "a second password");
    let added = seen.run(&["key", "add", "--new-password", "file:second"], 0);
    seen.run(&["key", "add", "--shares", "2", "--threshold", "2", "-o", "shares"], 0);
    seen.run(&["key", "list"], 0);
    seen.run(&["key", "check"], 4);
    seen.run(&["key", "remove", added["added"].as_str().unwrap()], 0);
    seen.run(&["forget", "--dry-run"], 0);
    let held = seen.run(&["forget", "--hold", &first], 0);
    seen.run(&["forget", "--release", held["holds"][0]["id"].as_str().unwrap()], 0);
    seen.run(&["forget"], 0);
    seen.run(&["prune", "--dry-run"], 0);
    seen.run(&["prune", "--grace", "0s"], 0);
    seen.run(&["verify", "--read-data"], 0);
    crate::repair::damage_every(&seen.home, "index");
    seen.run(&["repair", "--dry-run"], 0);
    seen.run(&["repair"], 0);
    // Damage: one pack is gone.
    let folders = std::fs::read_dir(seen.home.path("repository/data")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    seen.run(&["verify"], 4);
    crate::repair::damage_every(&seen.home, "snapshots");
    seen.run(&["repair"], 3);
    let mut by_verb = seen.by_verb;

    let (home, port) = seeded();
    let mut seen = Seen { home, by_verb: BTreeMap::new() };
    seen.run(&["drill", "deletion", "-f", "srv/retoma.toml"], 0);
    let done = seen.run(&["recover", "--to", "new", "-f", "srv/retoma.toml"], 0);
    Left::new(&done["service"]["pid"]).stop(port);
    seen.home.remove_largest_pack();
    seen.run(&["drill", "deletion", "-f", "srv/retoma.toml"], 4);
    seen_wal(&mut by_verb);
    seen_copy(&mut by_verb);
    seen_mass_change(&mut by_verb);
    for (verb, documents) in seen.by_verb {
        by_verb.entry(verb).or_default().extend(documents);
    }
    by_verb
}

/// A mass change of a file, and what `forget` says of it; and what a repository with prices costs.
fn seen_mass_change(by_verb: &mut BTreeMap<String, Vec<Value>>) {
    let price = "[repository.price]\ngb_month = \"0.02\"\n";
    let home = Home::with(&format!("{price}{MODELS}[component.mass_change]\nmin_files = 1\n"));
    home.write("models/a", b"one");
    home.run(&["backup"]).expect(0);
    home.write("models/a", b"two");
    let mut seen = Seen { home, by_verb: BTreeMap::new() };
    let backup = seen.run(&["backup"], 0);
    seen.run(&["forget", "--dry-run"], 0);
    seen.run(&["status", "--cost"], 0);
    seen.run(&["forget", "--accept", backup["backups"][0]["snapshot"].as_str().unwrap()], 0);
    for (verb, documents) in seen.by_verb {
        by_verb.entry(verb).or_default().extend(documents);
    }
}

/// The documents of `wal`, with segments that no server wrote.
fn seen_wal(by_verb: &mut BTreeMap<String, Vec<Value>>) {
    let postgres = "\n[[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"postgres://db/x\"\n";
    let home = Home::with(&format!("{MODELS}{postgres}"));
    home.seed_models();
    home.run(&["backup", "models"]).expect(0);
    let names = ["000000010000000000000003", "000000010000000000000005", "000000020000000000000005"];
    for name in names {
        home.write(name, &retoma_testkit::wal::segment(name, 77, 1));
    }
    let mut seen = Seen { home, by_verb: BTreeMap::new() };
    for name in names {
        seen.run(&["wal", "push", name, "--component", "db"], 0);
    }
    let fetch = ["wal", "fetch", names[0], "fetched", "--component", "db", "--system-identifier", "77"];
    seen.run(&fetch, 0);
    seen.run(&["wal", "check"], 4);
    by_verb.entry("wal".to_owned()).or_default().append(seen.by_verb.get_mut("wal").unwrap());
}

/// The documents of `copy`: planned, done, and with a blob that cannot be had.
fn seen_copy(by_verb: &mut BTreeMap<String, Vec<Value>>) {
    let mut seen = Seen { home: crate::copy::two(), by_verb: BTreeMap::new() };
    seen.run(&["copy", "--dry-run"], 0);
    seen.run(&["copy"], 0);
    seen.run(&["drill", "lost-repository"], 0);
    std::fs::remove_dir_all(seen.home.path("elsewhere")).unwrap();
    crate::copy::damage_largest_pack(&seen.home, "repository");
    seen.run(&["copy"], 3);
    std::fs::remove_dir_all(seen.home.path("repository")).unwrap();
    std::fs::remove_dir_all(seen.home.path("elsewhere")).unwrap();
    seen.run(&["backup", "-r", "local"], 0);
    seen.run(&["copy"], 0);
    seen.run(&["status"], 0);
    seen.home.remove_largest_pack();
    seen.run(&["repair", "--from", "second"], 0);
    by_verb.entry("status".to_owned()).or_default().append(seen.by_verb.get_mut("status").unwrap());
    by_verb.entry("repair".to_owned()).or_default().append(seen.by_verb.get_mut("repair").unwrap());
    by_verb.entry("copy".to_owned()).or_default().append(seen.by_verb.get_mut("copy").unwrap());
    by_verb.entry("drill".to_owned()).or_default().append(seen.by_verb.get_mut("drill").unwrap());
}

#[test]
fn every_verb_has_a_section_and_every_section_a_verb() {
    let help = Home::empty().run(&["--help"]).expect(0).stdout;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let verbs_of_help = commands.lines().filter_map(|line| line.split_whitespace().next());
    let expected: BTreeSet<String> =
        verbs_of_help.filter(|verb| *verb != "help" && !TEXT.contains(verb)).map(str::to_owned).collect();
    let mut documented: BTreeSet<String> = verbs().into_keys().collect();
    assert!(documented.remove("Errors"));
    assert_eq!(documented, expected);
}

/// That the section of `verb` names the fields of `document`, and no others.
pub(crate) fn assert_documented(verb: &str, document: &Value) {
    let (schema, section) = verbs().remove(verb).unwrap();
    assert_eq!(document["schema"], schema.as_str());
    let mut printed = BTreeSet::new();
    names(document, &mut printed);
    printed.remove("schema");
    assert_eq!(printed, fields(&section).union(&words_of_done(&section)).cloned().collect());
}

/// The fields of `done`, which are named in its meaning.
fn words_of_done(section: &str) -> BTreeSet<String> {
    let known = ["renewed", "gone"];
    words(section).into_iter().filter(|word| known.contains(&word.as_str())).collect()
}

#[test]
fn what_is_printed_is_documented_and_what_is_documented_is_printed() {
    let verbs = verbs();
    let rare: BTreeSet<String> = RARE.iter().map(|name| (*name).to_owned()).collect();
    let printed = everything();
    for (verb, (schema, section)) in &verbs {
        let verb = if verb == "Errors" { "error" } else { verb.as_str() };
        // Only where there are locks: `immutability` looks at it.
        if verb == "renew" {
            continue;
        }
        // Its document is a drill's, and it takes a minute.
        if verb == "demo" {
            assert_eq!(schema, "retoma.drill/1");
            continue;
        }
        let mut fields_printed = BTreeSet::new();
        for document in printed.get(verb).unwrap_or_else(|| panic!("nothing was printed by {verb}")) {
            assert_eq!(&document["schema"], schema.as_str());
            names(document, &mut fields_printed);
        }
        fields_printed.remove("schema");
        let missing: Vec<_> = fields_printed.difference(&words(section)).cloned().collect();
        assert!(missing.is_empty(), "`{verb}` prints {missing:?}, and its section does not say so");
        let mut fields_documented = fields(section);
        fields_documented.remove("schema");
        let enumerated: BTreeSet<String> = words_that_are_values(verb);
        let gone: Vec<_> = fields_documented
            .difference(&fields_printed)
            .filter(|name| !rare.contains(*name) && !enumerated.contains(*name))
            .collect();
        assert!(gone.is_empty(), "the section of `{verb}` promises {gone:?}, and nothing printed it");
    }
}

/// Tables whose first column lists values, not fields; and fields that nothing here prints.
fn words_that_are_values(verb: &str) -> BTreeSet<String> {
    let values: &[&str] = match verb {
        "backup" => &["changed", "gone", "encrypted"],
        "forget" => &[
            "mass_change",
            "last",
            "newest",
            "oldest",
            "within",
            "tag",
            "hold",
            "no_policy",
            "newest_complete",
            "only_complete",
            "newest_incomplete",
            "newest_manifest",
            "from_the_future",
        ],
        "status" => &[
            "manifest_changed",
            "tool_version_changed",
            "key_changed",
            "data_size_changed",
            "too_old",
            "from_the_future",
            "system_identifier",
            "timeline",
            "from_time",
            "from_lsn",
            "until_lsn",
            "gap",
        ],
        // Only where there is a physical snapshot; and the lines of a stream, which `wal_stream` looks at.
        "wal" => &[
            "id",
            "time",
            "start_lsn",
            "tablespaces",
            "stop_lsn",
            "ways",
            "event",
            "position",
            "slot",
            "lag_bytes",
            "lag_seconds",
            "from",
            "to",
            "alarm",
            "repository",
            "error",
        ],
        "snapshots" => &WINDOW,
        // Only of a server: `pitr` looks at them.
        "restore" => &["table", "extracted"],
        "recover" => &RECOVERY,
        _ => &[],
    };
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn the_examples_are_documents_with_documented_fields() {
    for (verb, (schema, section)) in verbs() {
        for example in section.split("```json").skip(1) {
            let text = example.split("```").next().unwrap();
            let value: Value =
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{verb}: {error}: {text}"));
            assert_eq!(value["schema"], schema.as_str());
            let mut used = BTreeSet::new();
            names(&value, &mut used);
            used.remove("schema");
            let unknown: Vec<_> = used.difference(&words(&section)).cloned().collect();
            assert!(unknown.is_empty(), "the example of `{verb}` has {unknown:?}");
        }
    }
}

#[test]
fn fields_and_words_are_found_in_a_section() {
    let section = "| field | type |\n|---|---|\n| `a` | list |\n| `a[].b`, `.c_d` | text: `x` |\n```json\n{ \"e\": `f` }\n```\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(fields(section), set(&["a", "b", "c_d"]));
    assert_eq!(words(section), set(&["a", "b", "c_d", "x"]));
}
