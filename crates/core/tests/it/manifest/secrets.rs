//! A secret that stands in the manifest is never printed, however broken the manifest is; and nothing ever panics.

use super::{SMALL, origin, refuse};
use proptest::prelude::*;
use retoma_core::manifest::{parse, render};

const SECRET: &str = "Xq7ZkW93vLpT";

/// Manifests with the secret at a place where people put one.
const LEAKS: [&str; 14] = [
    "password = \"SECRET\"",
    "pasword = \"SECRET\"",
    "Password = 'SECRET' # note",
    "password = \"\"\"\nSECRET\"\"\"",
    "password = [\"SECRET\"]",
    "password = { value = \"SECRET\" }",
    "secret = \"SECRET\"",
    "colour = \"SECRET\"",
    "url = \"sftp://user:SECRET@host/x\"\ncolour = 1",
    "url = \"sftp://user:SECRET/@host/x\"",
    "url = \"az://box/x?sig=SECRET\"",
    "teir = 1 # password = \"SECRET\"",
    "teir = 1 # postgres://app:SECRET@db/app",
    "x = { password = \"SECRET\", name = 1 }",
];

fn shown(text: &str) -> String {
    match parse(text, &origin()) {
        Ok(manifest) => render(&manifest.warnings, "retoma.toml") + &format!("{manifest:?}"),
        Err(problems) => render(&problems, "retoma.toml") + &format!("{problems:?}"),
    }
}

fn leaking(line: &str) -> String {
    SMALL.replace("password = \"file:/etc/retoma/password\"", &line.replace("SECRET", SECRET))
}

#[test]
fn secrets_are_not_printed() {
    for line in LEAKS {
        let problems = refuse(&leaking(line));
        let shown = render(&problems, "retoma.toml");
        assert!(!shown.contains(SECRET), "{line}\n{shown}");
    }
}

#[test]
fn a_blanked_line_still_shows_where() {
    insta::assert_snapshot!(render(&refuse(&leaking("password = \"SECRET\" # old")), "retoma.toml"));
}

#[test]
fn a_broken_line_with_a_secret_is_blanked_too() {
    for line in [
        "password = \"SECRET",
        "password = SECRET",
        "password: SECRET",
        "password = \"\"\"\nSECRET\n",
        "url = sftp://u:SECRET@h",
    ] {
        let problems = refuse(&leaking(line));
        assert_eq!(problems[0].code.as_str(), "R0103");
        let shown = render(&problems, "retoma.toml");
        assert!(!shown.contains(SECRET), "{line}\n{shown}");
    }
}

#[test]
fn large_hostile_texts_come_to_an_end() {
    let fill =
        |head: &str, piece: &str, tail: &str| format!("{head}{}{tail}", piece.repeat(200_000 / piece.len()));
    let problems = [
        fill("version = \"", "://", "\""),
        fill("version = \"", "x://y:z", "\""),
        fill("version = \"", "pwd=", "\""),
        fill("component = [", "{name='x'},", "]"),
        fill("component = [{repositories=[", "'x',", "]}]"),
        fill("", "[[component]]\nname=1\n", ""),
        fill("", "[[repository]]\npassword='x'\n", ""),
        fill("", "a.", "b = 1"),
        fill("a = ", "[", ""),
        fill("a = ", "{b=", ""),
    ]
    .map(|text| refuse(&text).len());
    assert!(problems.iter().all(|count| *count > 0), "{problems:?}");
    let too_large = refuse(&" ".repeat(300_000));
    assert_eq!(too_large[0].code.as_str(), "R0103");
}

/// Whether a part of the secret that is long enough to be of use is in `text`.
fn leaks(text: &str) -> bool {
    (0..=SECRET.len() - 8).any(|at| text.contains(&SECRET[at..at + 8]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_does_not_uncover_a_secret(
        leak in prop::sample::select(LEAKS.to_vec()),
        at in any::<prop::sample::Index>(),
        insert in prop::sample::select(vec!["", "\"", "\"\"\"", "'", "[", "]", "{", "=", "\n", "\r", "#", "\\", " x", "\u{e9}", "\0"]),
        length in 0usize..3,
    ) {
        // Outside of the words that give a secret away: nobody can know that `passSECRET` is one.
        let text = leaking(leak);
        let line = text.find(SECRET).unwrap_or(0);
        let mut at = at.index(text.len());
        if (line.saturating_sub(24)..line).contains(&at) {
            at = line + SECRET.len();
        }
        let boundary = |mut at: usize| { while !text.is_char_boundary(at) { at += 1 } at };
        let (from, to) = (boundary(at), boundary((at + length).min(text.len())));
        let damaged = format!("{}{insert}{}", &text[..from], &text[to..]);
        let shown = shown(&damaged);
        prop_assert!(!leaks(&shown), "{damaged}\n{shown}");
    }

    #[test]
    fn any_text_is_accepted_or_refused_with_a_reason(text in "\\PC{0,200}|[\\x00-\\x7f]{0,200}|(.|\n){0,200}") {
        match parse(&text, &origin()) {
            Ok(_) => {}
            Err(problems) => prop_assert!(render(&problems, "f").contains("error[R01")),
        }
    }

    #[test]
    fn any_pieces_of_toml_are_accepted_or_refused_with_a_reason(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\"", "'", "\"\"\"", "'''", "\n", "\r\n", "\t", "#", "version",
            "component", "service", "tier", "schedule", "repository", "retention", "name", "url", "kind", "files", "1",
            "-9223372036854775808", "1e999", "1979-05-27T07:32:00Z", "true", "\\u00", "é", "\u{202e}", "\u{feff}", "every",
        ]), 0..60),
    ) {
        if let Err(problems) = parse(&pieces.concat(), &origin()) {
            prop_assert!(render(&problems, "f").contains("error[R01"));
        }
    }

    #[test]
    fn any_damage_to_a_manifest_is_survived(at in any::<prop::sample::Index>(), insert in "(.|\n){0,4}", length in 0usize..30) {
        let at = at.index(SMALL.len());
        let damaged = format!("{}{insert}{}", &SMALL[..at], &SMALL[(at + length).min(SMALL.len())..]);
        prop_assert!(!shown(&damaged).is_empty());
    }
}
