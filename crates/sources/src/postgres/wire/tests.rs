//! Quoting, read back by a lexer of its own: a name or text from a server never becomes SQL.

use super::*;
use proptest::prelude::*;

/// The text of a string constant that is all of `sql`, as a server reads it whose `standard_conforming_strings` is this.
fn read_literal(sql: &str, standard: bool) -> Option<String> {
    let rest = sql.trim_start_matches(' ');
    let (rest, escapes) = match rest.strip_prefix('E').or_else(|| rest.strip_prefix('e')) {
        Some(rest) => (rest, true),
        None => (rest, !standard),
    };
    let mut letters = rest.strip_prefix('\'')?.chars();
    let mut text = String::new();
    loop {
        match letters.next()? {
            '\'' => match letters.next() {
                None => return Some(text),
                Some('\'') => text.push('\''),
                Some(_) => return None,
            },
            // Only a doubled one is its own text: all others mean something else.
            '\\' if escapes => match letters.next()? {
                '\\' => text.push('\\'),
                _ => return None,
            },
            letter => text.push(letter),
        }
    }
}

fn read_identifier(sql: &str) -> Option<String> {
    let mut letters = sql.strip_prefix('"')?.chars();
    let mut text = String::new();
    loop {
        match letters.next()? {
            '"' => match letters.next() {
                None => return Some(text),
                Some('"') => text.push('"'),
                Some(_) => return None,
            },
            letter => text.push(letter),
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_one_constant_and_comes_back(text in "(['\"\\\\; E$\n-]|[^\0]){0,20}") {
        let quoted = quote_literal(&text);
        for standard in [true, false] {
            prop_assert_eq!(read_literal(&quoted, standard), Some(text.clone()), "{} {}", quoted, standard);
        }
    }

    #[test]
    fn any_name_is_one_identifier_and_comes_back(name in "(['\"\\\\; .]|[^\0]){1,20}") {
        prop_assert_eq!(read_identifier(&quote_identifier(&name)), Some(name));
    }
}

#[test]
fn what_people_try_stays_a_text() {
    for text in ["'; DROP TABLE a; --", "\\'; DROP TABLE a; --", "\\", "''", "$$", "E'", "\u{2019}", ""] {
        let quoted = quote_literal(text);
        assert_eq!(read_literal(&quoted, true).as_deref(), Some(text), "{quoted}");
        assert_eq!(read_literal(&quoted, false).as_deref(), Some(text), "{quoted}");
    }
    assert_eq!(quote_identifier("Shop"), "\"Shop\"", "upper case stays upper case");
    assert_eq!(quote_identifier("a\"; DROP"), "\"a\"\"; DROP\"");
}
