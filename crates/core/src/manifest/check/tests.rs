//! Every key of the table with every sort of value: what does not belong there is one problem at its own line, and leaves no
//! manifest. What belongs there is told here again, by hand, so that the table and the checks are compared with something.

use super::*;
use crate::error::Code;
use crate::manifest::fields::ROOT;
use crate::manifest::{Origin, Problem, parse, render};

/// Every table, so that each key has a place. Keys stand right below their headers.
const FULL: &str = r#"version = 1
[service]
name = "shop"
[[service.check]]
url = "http://h/x"
[[repository]]
name = "near"
url = "s3://bucket/x"
password = "env:P"
[repository.price]
currency = "EUR"
[[component]]
name = "server"
kind = "postgres"
tier = "low"
url = "postgres://h/d"
[component.wal]
mode = "stream"
[[component]]
name = "database"
kind = "sqlite"
tier = "medium"
path = "/d"
[[component]]
name = "cache"
kind = "redis"
tier = "high"
url = "redis://h"
[[component]]
name = "tree"
kind = "files"
tier = "critical"
path = "/f"
[component.schedule]
every = "1m"
[component.retention]
daily = 7
[component.mass_change]
min_files = 1
[[component.check]]
command = ["x"]
[tier]
[tier.low]
rto = "2d"
[schedule]
every = "1m"
[retention]
daily = 7
[evidence]
writer = "w"
[drill]
timeout_seconds = 9
[agent]
verify_every = "1d"
[alerts]
webhook = "http://h/x"
[alerts.email]
server = "h:25"
from = "a@b"
to = ["c@d"]
"#;

/// A key of the table, where it stands in [`FULL`].
#[derive(Debug, Clone, Copy)]
struct Key {
    title: &'static str,
    field: &'static Field,
    /// The kind of the component that it is set in.
    kind: &'static str,
}

fn keys() -> Vec<Key> {
    fn walk(section: &'static Section, into: &mut Vec<Key>) {
        for field in section.fields {
            let kind = field.only_for.first().copied().unwrap_or("files");
            into.push(Key { title: section.title, field, kind });
            match field.kind {
                Kind::Table(inner) | Kind::Tables(inner) => walk(inner, into),
                Kind::PerTier(_) => field.per_tier().into_iter().for_each(|inner| walk(inner, into)),
                _ => {}
            }
        }
    }
    let mut keys = Vec::new();
    walk(&ROOT, &mut keys);
    // The table of one tier is there once for each; once is enough.
    let tier = |key: &Key| (key.title, key.field.name);
    keys.dedup_by_key(|key| tier(key));
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(tier(key)));
    assert!(keys.len() > 80, "{}", keys.len());
    keys
}

impl Key {
    /// The line behind the header of its table.
    fn place(&self, lines: &[String]) -> usize {
        if !self.title.starts_with('[') {
            return 0;
        }
        let header = self.title.replace("NAME", "low");
        let is_its_kind = |at: usize| {
            let own = lines[at + 1..].iter().take_while(|line| !line.starts_with('['));
            header != "[[component]]" || own.clone().any(|line| *line == format!("kind = \"{}\"", self.kind))
        };
        let at = (0..lines.len()).find(|at| lines[*at] == header && is_its_kind(*at));
        at.unwrap_or_else(|| panic!("{header} is not in the full manifest")) + 1
    }

    /// The full manifest without this key and, where it is a table, without that.
    fn without(&self) -> Vec<String> {
        let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
        let place = self.place(&lines);
        let header = place.checked_sub(1).map(|at| lines[at].clone());
        let path = header.as_deref().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let inner =
            if path.is_empty() { self.field.name.to_owned() } else { format!("{path}.{}", self.field.name) };
        let (mut is_own, mut is_inner, mut is_behind) = (true, false, false);
        let mut at = 0;
        lines.retain(|line| {
            at += 1;
            if at <= place {
                return true;
            }
            if line.starts_with('[') {
                is_own = false;
                is_behind |= Some(line) == header.as_ref();
                let name = line.trim_matches(['[', ']']);
                let rest = name.strip_prefix(&inner);
                is_inner = !is_behind && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            }
            !(is_inner || is_own && line.starts_with(&format!("{} = ", self.field.name)))
        });
        if place == 0 && lines[0].starts_with(&format!("{} = ", self.field.name)) {
            lines.remove(0);
        }
        lines
    }

    /// The full manifest with `name = value` in this key's table, in place of this key where it is its name, and the line where
    /// it stands.
    fn with(&self, name: &str, value: &str) -> (String, usize) {
        let full: Vec<String> = FULL.lines().map(str::to_owned).collect();
        let place = self.place(&full);
        let mut lines = if name == self.field.name { self.without() } else { full };
        lines.insert(place, format!("{name} = {value}"));
        (lines.join("\n"), place + 1)
    }

    /// The codes of the problems on the line of this key when it has `value`, and whether the manifest is accepted.
    fn set(&self, value: &str) -> (Vec<Code>, bool) {
        let (text, line) = self.with(self.field.name, value);
        judged(&text, line)
    }

    /// Asserts that `value` gives exactly one problem at its place, and that one, and no manifest. What rules about several keys
    /// say beside it is theirs.
    fn refuses(&self, value: &str, code: Code) {
        let of_several = |it: &Code| {
            let all = [
                codes::MANIFEST_CONFLICT,
                codes::MANIFEST_REFERENCE,
                codes::MANIFEST_RPO,
                codes::MANIFEST_UNUSED,
            ];
            all.contains(it) && *it != code
        };
        let (mut found, is_accepted) = self.set(value);
        found.retain(|it| !of_several(it));
        assert_eq!((found, is_accepted), (vec![code], false), "{} {} = {value}", self.title, self.field.name);
    }

    /// Asserts that whatever is said about `value`, it is not `code`.
    fn allows(&self, value: &str, code: Code) {
        let (found, _) = self.set(value);
        assert!(!found.contains(&code), "{} {} = {value}: {found:?}", self.title, self.field.name);
    }
}

fn origin() -> Origin {
    Origin { file_name: "retoma.toml".to_owned(), dir: "/d".into() }
}

fn problems(text: &str) -> (Vec<Problem>, bool) {
    match parse(text, &origin()) {
        Ok(manifest) => (manifest.warnings, true),
        Err(problems) => (problems, false),
    }
}

fn judged(text: &str, line: usize) -> (Vec<Code>, bool) {
    let (found, is_accepted) = problems(text);
    (found.iter().filter(|it| it.line == line).map(|it| it.code).collect(), is_accepted)
}

#[test]
fn the_full_manifest_of_these_tests_is_accepted_and_has_a_place_for_each_key() {
    let (found, is_accepted) = problems(FULL);
    assert!(is_accepted && found.is_empty(), "{}", render(&found, "full"));
    for key in keys() {
        let (text, line) = key.with("colour", "1");
        assert_eq!(text.lines().nth(line - 1), Some("colour = 1"));
    }
}

#[test]
fn a_value_of_another_type_is_one_problem_at_its_line_for_every_key() {
    const VALUES: [(&str, &str); 8] = [
        ("string", "\"x\""),
        ("integer", "5"),
        ("float", "1.5"),
        ("float", "nan"),
        ("boolean", "true"),
        ("date", "1979-05-27"),
        ("array", "[]"),
        ("table", "{ a = 5 }"),
    ];
    for key in keys() {
        let right: &[&str] = match key.field.kind {
            Kind::Version | Kind::Integer(..) => &["integer"],
            Kind::Minutes => &["integer", "string"],
            Kind::Names
            | Kind::Command
            | Kind::Patterns
            | Kind::DatabaseTables
            | Kind::MailAddresses
            | Kind::Tables(_) => &["array"],
            Kind::Table(_) | Kind::PerTier(_) => &["table"],
            _ => &["string"],
        };
        for (sort, value) in VALUES {
            if right.contains(&sort) {
                key.allows(value, codes::MANIFEST_TYPE);
            } else {
                key.refuses(value, codes::MANIFEST_TYPE);
            }
        }
    }
}

#[test]
fn what_stands_in_a_list_has_its_type_too() {
    for key in keys() {
        match key.field.kind {
            Kind::Names
            | Kind::Command
            | Kind::Patterns
            | Kind::DatabaseTables
            | Kind::MailAddresses
            | Kind::Tables(_) => {
                for value in ["[5]", "[true]", "[[]]", "[1.5]"] {
                    key.refuses(value, codes::MANIFEST_TYPE);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn an_unknown_key_is_refused_in_every_table() {
    for key in keys() {
        let (text, line) = key.with("colour", "1");
        let (found, is_accepted) = problems(&text);
        let here: Vec<&Problem> = found.iter().filter(|it| it.line == line).collect();
        let [one] = here.as_slice() else { panic!("{}: {here:?}", key.title) };
        assert_eq!((one.code, one.column, is_accepted), (codes::MANIFEST_UNKNOWN_KEY, 1, false));
        assert!(one.message.contains(key.title), "{}", one.message);
    }
}

#[test]
fn a_key_with_two_letters_exchanged_is_recognized_in_every_table() {
    for key in keys() {
        let mut letters: Vec<char> = key.field.name.chars().collect();
        let at = (0..letters.len() - 1).rev().find(|at| letters[*at] != letters[at + 1]).unwrap();
        letters.swap(at, at + 1);
        let typo: String = letters.into_iter().collect();
        let (text, line) = key.with(&typo, "1");
        let (found, _) = problems(&text);
        let one = found.iter().find(|it| it.line == line).unwrap();
        assert_eq!(one.code, codes::MANIFEST_UNKNOWN_KEY, "{typo}");
        assert_eq!(one.did_you_mean.as_deref(), Some(key.field.name), "{} {typo}", key.title);
    }
}

#[test]
fn a_required_key_that_is_missing_is_named_once_and_no_other_is_ever_asked_for() {
    for key in keys() {
        let text = key.without().join("\n");
        let (found, is_accepted) = problems(&text);
        let missing: Vec<&Problem> = found.iter().filter(|it| it.code == codes::MANIFEST_MISSING).collect();
        if key.field.required {
            let [one] = missing.as_slice() else { panic!("{} {}: {missing:?}", key.title, key.field.name) };
            assert!(one.message.ends_with(&format!("no `{}`", key.field.name)), "{}", one.message);
            assert!(!is_accepted && one.hint.is_some());
        } else if key.title != "[[component.check]]" {
            assert!(missing.is_empty(), "{} {}: {missing:?}", key.title, key.field.name);
        }
    }
}

#[test]
fn numbers_are_accepted_from_their_least_to_their_greatest_and_not_beyond() {
    let mut count = 0;
    for key in keys() {
        let Kind::Integer(min, max) = key.field.kind else { continue };
        count += 1;
        for inside in [min, max] {
            key.allows(&inside.to_string(), codes::MANIFEST_RANGE);
        }
        for outside in [min.checked_sub(1), max.checked_add(1), Some(i64::MIN)].into_iter().flatten() {
            key.refuses(&outside.to_string(), codes::MANIFEST_RANGE);
        }
    }
    assert!(count >= 25, "{count}");
}

#[test]
fn lengths_of_time_have_a_unit_and_a_least_length() {
    for key in keys() {
        let least = match key.field.kind {
            Kind::Duration => 1,
            Kind::Minutes => 60,
            _ => continue,
        };
        key.allows(&format!("\"{least}s\""), codes::MANIFEST_RANGE);
        key.refuses(&format!("\"{}s\"", least - 1), codes::MANIFEST_RANGE);
        for wrong in ["", "15", "15 m", "1.5h", "m", "5m1h", "36501d", "-5m"] {
            key.refuses(&format!("\"{wrong}\""), codes::MANIFEST_DURATION);
        }
        if least == 60 {
            key.allows("1", codes::MANIFEST_RANGE);
            for wrong in ["0", "-1", "52560001"] {
                key.refuses(wrong, codes::MANIFEST_RANGE);
            }
        }
    }
}

#[test]
fn a_choice_is_one_of_its_words_as_they_are_written() {
    for key in keys() {
        let Kind::Choice(words) = key.field.kind else { continue };
        for word in words {
            key.allows(&format!("\"{word}\""), codes::MANIFEST_CHOICE);
            key.refuses(&format!("\"{}\"", word.to_uppercase()), codes::MANIFEST_CHOICE);
        }
        for wrong in ["", " ", "something"] {
            key.refuses(&format!("\"{wrong}\""), codes::MANIFEST_CHOICE);
        }
    }
}

#[test]
fn a_key_of_another_kind_of_component_is_refused_whatever_its_value_is() {
    let mut count = 0;
    for key in keys().into_iter().filter(|key| !key.field.only_for.is_empty()) {
        for kind in ["postgres", "sqlite", "redis", "files"] {
            if key.field.only_for.contains(&kind) {
                continue;
            }
            count += 1;
            for value in ["5", "\"x\"", "{ mode = \"stream\" }"] {
                Key { kind, ..key }.refuses(value, codes::MANIFEST_CONFLICT);
            }
        }
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn names_are_letters_digits_and_lines_of_a_length_and_never_a_reserved_word() {
    let long = "x".repeat(63);
    for key in keys() {
        if !matches!(key.field.kind, Kind::Name) {
            continue;
        }
        for right in ["a", "0", "a-b_9", "latest1", &long] {
            key.allows(&format!("\"{right}\""), codes::MANIFEST_NAME);
        }
        let too_long = format!("{long}x");
        for wrong in ["", "A", "-a", "_a", "a b", "a.b", "a/b", "é", "a\\nb", &too_long] {
            key.refuses(&format!("\"{wrong}\""), codes::MANIFEST_NAME);
        }
        for reserved in ["all", "none", "latest", "manifest", "self", "service", "retoma", "repository"] {
            key.refuses(&format!("\"{reserved}\""), codes::MANIFEST_NAME);
        }
    }
}

#[test]
fn each_sort_of_text_refuses_what_is_none() {
    for key in keys() {
        let (code, wrong): (Code, &[&str]) = match key.field.kind {
            Kind::FilledText => (codes::MANIFEST_VALUE, &[""]),
            Kind::Path => (codes::MANIFEST_VALUE, &["", "~", "~/x", "a\\u0000b"]),
            Kind::RepositoryUrl => (codes::MANIFEST_URL, &["", "/x", "ftp://h/x", "file://x", "s3://"]),
            Kind::HttpUrl => {
                (codes::MANIFEST_URL, &["", "h", "ftp://h", "http://", "http://h:0", "http://h/a b"])
            }
            Kind::Receiver => (codes::MANIFEST_URL, &["", "h", "ftp://h", "http://", "envHOOK"]),
            Kind::ServerUrl => (codes::MANIFEST_URL, &["", "h", "http://h", "mysql://h"]),
            Kind::Listen => (codes::MANIFEST_VALUE, &["", "h:1", "127.0.0.1", ":9840", "127.0.0.1:65536"]),
            Kind::MailServer => (codes::MANIFEST_VALUE, &["", "h", "h:", "h:0", ":25", "h:65536"]),
            Kind::MailAddress => {
                (codes::MANIFEST_VALUE, &["", "a", "@b", "a@", "a@b\\n", "a b@c", "A <a@b>"])
            }
            Kind::Amount => (codes::MANIFEST_VALUE, &["", "1,5", "-1", "1.", ".5", "1e3", "1000001"]),
            Kind::PublicKey => (codes::MANIFEST_VALUE, &["", "AAAA", "é", &"A".repeat(44)]),
            Kind::SecretRef | Kind::KeyRef => (
                codes::MANIFEST_SECRET_VALUE,
                &["", "hunter2", "env:", "file:", "env:A-B", "ENV:A", "vault:x"],
            ),
            _ => continue,
        };
        for wrong in wrong {
            key.refuses(&format!("\"{wrong}\""), code);
        }
    }
}

#[test]
fn lists_refuse_what_is_empty_double_or_no_member() {
    for key in keys() {
        let wrong: &[(&str, Code)] = match key.field.kind {
            Kind::Names => &[
                ("[]", codes::MANIFEST_VALUE),
                ("[\"A\"]", codes::MANIFEST_NAME),
                ("[\"latest\"]", codes::MANIFEST_NAME),
            ],
            Kind::Command => &[
                ("[]", codes::MANIFEST_VALUE),
                ("[\"\"]", codes::MANIFEST_VALUE),
                ("[\"\", \"x\"]", codes::MANIFEST_VALUE),
                ("[\"x\", \"a\\u0000\"]", codes::MANIFEST_VALUE),
            ],
            Kind::Patterns => &[
                ("[\"\"]", codes::MANIFEST_VALUE),
                ("[\"/\"]", codes::MANIFEST_VALUE),
                ("[\"//\"]", codes::MANIFEST_VALUE),
                ("[\"*.tmp\", \"a\\u0000\"]", codes::MANIFEST_VALUE),
            ],
            Kind::DatabaseTables => &[
                ("[]", codes::MANIFEST_VALUE),
                ("[\"\"]", codes::MANIFEST_VALUE),
                ("[\"a\", \"a\"]", codes::MANIFEST_DUPLICATE),
            ],
            Kind::MailAddresses => &[
                ("[]", codes::MANIFEST_VALUE),
                ("[\"a\"]", codes::MANIFEST_VALUE),
                ("[\"a@b\", \"a@b\"]", codes::MANIFEST_DUPLICATE),
            ],
            _ => continue,
        };
        for (value, code) in wrong {
            key.refuses(value, *code);
        }
        let right = match key.field.kind {
            Kind::Command => "[\"x\", \"\"]",
            Kind::Patterns => "[]",
            _ => continue,
        };
        key.allows(right, codes::MANIFEST_VALUE);
    }
}

/// A password that somebody puts where it does not belong is refused and stays unsaid, wherever that is.
#[test]
fn a_secret_in_any_key_for_one_is_refused_and_not_repeated() {
    const CANARY: &str = "kW93xYq7Zv";
    let mut count = 0;
    for key in keys() {
        let value = match key.field.kind {
            Kind::SecretRef | Kind::KeyRef => CANARY.to_owned(),
            Kind::ServerUrl => format!("postgres://u:{CANARY}@h/d"),
            Kind::Receiver | Kind::HttpUrl => format!("http://u:{CANARY}@h/x"),
            Kind::RepositoryUrl => format!("sftp://u:{CANARY}@h/x"),
            _ => continue,
        };
        count += 1;
        let (text, line) = key.with(key.field.name, &format!("\"{value}\""));
        let (found, is_accepted) = problems(&text);
        let code = found.iter().find(|it| it.line == line).map(|it| it.code);
        let expected = if matches!(key.field.kind, Kind::SecretRef | Kind::KeyRef) {
            codes::MANIFEST_SECRET_VALUE
        } else {
            codes::MANIFEST_URL_SECRET
        };
        assert_eq!((code, is_accepted), (Some(expected), false), "{} {}", key.title, key.field.name);
        let shown = render(&found, "f") + &format!("{found:?}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
    assert!(count >= 12, "{count}");
}
