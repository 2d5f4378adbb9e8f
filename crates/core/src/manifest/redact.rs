//! Finds what must not be printed: values of secrets, passwords in addresses, and what looks like one of them.
//!
//! It rather hides too much: an excerpt that shows `…` is still useful, a printed password has to be changed. It does
//! not decide what is allowed in a manifest; `check` does.

use super::check;
use super::fields::{Field, Kind, Section, is_plain_key};
use super::raw::{Entry, Node, Value};
use super::secret_ref::SecretRef;
use std::ops::Range;

/// Parts of names (in lower case) whose values are taken for secrets.
const SUSPICIOUS: [&str; 11] = [
    "pass",
    "pasw",
    "pswd",
    "pwd",
    "secret",
    "token",
    "credential",
    "signing_key",
    "private",
    "api_key",
    "access_key",
];

/// Names of query parameters that carry secrets.
const SECRET_PARAMETERS: [&str; 8] =
    ["password", "passwd", "pwd", "sslpassword", "secret", "token", "sig", "signature"];

/// Whether values under this name are taken for secrets.
pub(super) fn is_suspicious(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SUSPICIOUS.iter().any(|part| name.contains(part))
}

/// All byte ranges of `text` that hold secrets, known from the document's structure.
pub(super) fn in_document(text: &str, root: &[Entry], section: &Section) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    in_table(text, root, Some(section), &mut found);
    found
}

fn in_table(text: &str, table: &[Entry], section: Option<&Section>, found: &mut Vec<Range<usize>>) {
    for entry in table {
        let field = section.and_then(|section| section.field(&entry.key));
        in_node(text, &entry.key, &entry.node, field, found);
    }
}

fn in_node(text: &str, key: &str, node: &Node, field: Option<&Field>, found: &mut Vec<Range<usize>>) {
    let section = field.and_then(|field| match field.kind {
        Kind::Table(section) | Kind::Tables(section) => Some(section),
        _ => None,
    });
    match &node.value {
        Value::Table(table) => in_table(text, table, section.or(field.and_then(Field::per_tier)), found),
        Value::Array(items) => items.iter().for_each(|item| in_node(text, key, item, field, found)),
        Value::String(value) => {
            let is_secret = field.is_none_or(|field| field.secret) || is_suspicious(key);
            let is_bad_key = field.is_some_and(|field| matches!(field.kind, Kind::PublicKey))
                && check::public_key(value).is_none(); // Perhaps the private one.
            let is_bad_secret = is_secret && SecretRef::parse(value).is_err() && !value.is_empty();
            if is_bad_key || is_bad_secret {
                found.push(content(text, &node.span));
            } else {
                in_string(text, node, value, found);
            }
        }
        _ if field.is_none_or(|field| field.secret) => found.push(node.span.clone()),
        _ => {}
    }
}

/// Hides passwords inside a text that is not a secret as a whole.
fn in_string(text: &str, node: &Node, value: &str, found: &mut Vec<Range<usize>>) {
    let parts = in_text(value);
    if parts.is_empty() {
        return;
    }
    let raw = text.get(node.span.clone()).unwrap_or_default();
    match raw.find(value) {
        Some(at) => found.extend(parts.into_iter().map(|part| shift(&part, node.span.start + at))),
        None => found.push(content(text, &node.span)), // Written with escapes: hide all of it.
    }
}

/// The range of a string's value without its quotes.
fn content(text: &str, span: &Range<usize>) -> Range<usize> {
    let raw = text.get(span.clone()).unwrap_or_default();
    let quoted = raw.len() >= 2 && (raw.starts_with('"') || raw.starts_with('\''));
    if quoted { span.start + 1..span.end - 1 } else { span.clone() }
}

fn shift(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// Byte ranges of passwords in an address or a command: `scheme://user:HERE@host`, `password=HERE`.
pub(super) fn in_text(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    // A password may hold `/`, `?`, `@`, quotes and spaces, so everything up to the last `@` counts.
    let last = text.rfind('@').unwrap_or(0);
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let rest = &text[start..];
        from = start;
        let Some(colon) = rest.find(':').map(|colon| start + colon + 1) else { break };
        if colon <= last {
            found.push(colon..last);
            from = last;
        } else if !rest.starts_with('[') && !starts_with_port(&text[colon..]) {
            // What follows the host and is no port may be a password whose `@` was forgotten.
            let end = text[colon..].find(char::is_whitespace).map_or(text.len(), |end| colon + end);
            found.push(colon..end);
            from = end;
        }
    }
    found.extend(parameters(text));
    found.retain(|range| !range.is_empty());
    found
}

fn starts_with_port(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len() && !rest.starts_with(char::is_alphanumeric)
}

/// Byte ranges of the values of secret parameters, `name=VALUE`.
pub(super) fn parameters(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices('=') {
        if found.last().is_some_and(|range| range.contains(&at)) {
            continue;
        }
        let name = text[..at].trim_end();
        let word = name
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
        let word = name[word..].to_ascii_lowercase();
        if SECRET_PARAMETERS.contains(&word.as_str()) || is_suspicious(&word) {
            let length = text[at + 1..].find(['&', ' ', '"', '\'', ';', '\n']);
            found.push(at + 1..length.map_or(text.len(), |length| at + 1 + length));
        }
    }
    found
}

/// Byte ranges of `line` that look secret, whatever its structure: comments and lines that are no TOML come here too.
pub(super) fn in_line(line: &str) -> Vec<Range<usize>> {
    let mut found = in_text(line);
    for (at, _) in line.match_indices(['=', ':']) {
        let name = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let word_start = name
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
        if !is_suspicious(&name[word_start..]) {
            continue;
        }
        let value = line[at + 1..].trim_start();
        if !starts_with_reference(value) {
            found.push(line.len() - value.len()..line.len());
        }
    }
    found
}

/// What to hide of the line at which a text stops being TOML: nobody knows what belongs together there, so only keys
/// that are known to hold no secret are shown, with what follows them.
pub(super) fn in_broken_line(line: &str) -> Option<Range<usize>> {
    let is_key_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_header =
        line.trim_start().starts_with('[') && line.chars().all(|c| is_key_part(c) || "[] \t".contains(c));
    let is_plain = |key: &str| key.rsplit('.').next().is_some_and(is_plain_key);
    let first = line.trim_start();
    let first = &first[..first.find(|c| !is_key_part(c)).unwrap_or(first.len())];
    if !is_header && !is_plain(first) {
        return Some(0..line.len());
    }
    let is_unknown = |at: &usize| {
        let before = line[..*at].trim_end().trim_end_matches(['"', '\'']);
        let start = before
            .rfind(|c| !is_key_part(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        !is_plain(&before[start..])
    };
    line.match_indices('=').map(|(at, _)| at).find(is_unknown).map(|at| at + 1..line.len())
}

/// Whether a value begins with a quoted, well-formed reference, so that showing it gives no secret away.
fn starts_with_reference(value: &str) -> bool {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return false;
    };
    value[1..].split_once(quote).is_some_and(|(inside, _)| SecretRef::parse(inside).is_ok())
}

/// Whether `before` ends inside a multi-line string, whose lines show nothing of what they belong to.
pub(super) fn is_inside_multiline_string(before: &str) -> bool {
    let is_open = |quotes: &str| before.matches(quotes).count() % 2 == 1;
    is_open("\"\"\"") || is_open("'''")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(line: &str, ranges: &[Range<usize>]) -> String {
        let keep = |(at, _): &(usize, char)| !ranges.iter().any(|range| range.contains(at));
        line.char_indices().filter(keep).map(|(_, c)| c).collect()
    }

    #[test]
    fn passwords_in_addresses_are_found() {
        for (text, rest) in [
            ("postgres://app:pw@db/x", "postgres://app:@db/x"),
            ("postgres://app:p/w?@x@db/x", "postgres://app:@db/x"),
            ("postgres://db/x?password=pw&sslmode=off", "postgres://db/x?password=&sslmode=off"),
            ("az://box/x?sv=1&sig=pw", "az://box/x?sv=1&sig="),
            ("postgres://app:pwdb/x", "postgres://app:"),
            ("run --db-password=pw --port 1", "run --db-password= --port 1"),
            ("http://127.0.0.1:8080/healthz", "http://127.0.0.1:8080/healthz"),
        ] {
            assert_eq!(hidden(text, &in_text(text)), rest);
        }
    }

    #[test]
    fn lines_that_look_secret_lose_their_value() {
        for (line, rest) in [
            ("password = \"pw", "password = "),
            ("x = 1 # old PassWord: pw", "x = 1 # old PassWord: "),
            ("\"pasword\"='pw'", "\"pasword\"="),
            ("password = \"env:NAME\" x", "password = \"env:NAME\" x"),
            ("name = \"pw\"", "name = \"pw\""),
        ] {
            assert_eq!(hidden(line, &in_line(line)), rest);
        }
    }

    #[test]
    fn broken_lines_show_plain_keys_only() {
        for (line, rest) in [
            ("  tier = critical # x", "  tier = critical # x"),
            ("tier critical", "tier critical"),
            ("service.name = x y", "service.name = x y"),
            ("[[component]", "[[component]"),
            ("[\"pw\"", ""),
            ("colour = pw", ""),
            ("password = pw", ""),
            ("pw=", ""),
            ("repository = [{ name = 1, thing = pw", "repository = [{ name = 1, thing ="),
        ] {
            assert_eq!(hidden(line, in_broken_line(line).as_slice()), rest);
        }
    }

    #[test]
    fn open_multiline_strings_are_noticed() {
        assert!(is_inside_multiline_string("a = 1\nb = \"\"\"\nx"));
        assert!(!is_inside_multiline_string("b = \"\"\"\nx\"\"\"\n"));
    }

    proptest! {
        /// Whatever a password is made of, nothing of it is shown where one is expected.
        #[test]
        fn no_password_is_shown(
            password in "[ -~é]{1,20}",
            user in "[a-z]{1,4}",
            scheme in prop::sample::select(vec!["postgres", "sftp", "http", "x"]),
        ) {
            let secret = format!("\u{1}{password}\u{1}");
            for (text, shown) in [
                (format!("{scheme}://{user}:{secret}@h/x"), format!("{scheme}://{user}:@h/x")),
                (format!("see {scheme}://{user}:{secret}@h"), format!("see {scheme}://{user}:@h")),
            ] {
                let rest = hidden(&text, &in_text(&text));
                prop_assert!(!rest.contains('\u{1}'), "{:?}", rest);
                prop_assert!(shown.starts_with(&rest) || rest == shown, "{:?}", rest);
            }
            for key in ["password", "db_password", "Token", "AWS_SECRET_ACCESS_KEY", "api-key"] {
                for line in [format!("{key} = {secret}"), format!("# {key}: {secret}"), format!("'{key}'='{secret}'")] {
                    let rest = hidden(&line, &in_line(&line));
                    prop_assert!(!rest.contains('\u{1}'), "{:?}", rest);
                }
            }
        }

        /// Ranges are inside the text, at characters, and nothing panics.
        #[test]
        fn any_text_has_ranges_that_fit(text in "[a-c:/@?=&\\[ .\"'é0-9]{0,30}") {
            let broken = in_broken_line(&text);
            for range in in_text(&text).into_iter().chain(in_line(&text)).chain(parameters(&text)).chain(broken) {
                prop_assert!(text.get(range.clone()).is_some(), "{:?} of {:?}", range, text);
            }
        }
    }

    #[test]
    fn parameters_end_where_the_next_begins_and_only_secret_ones_are_hidden() {
        for (text, rest) in [
            ("x?sig=a&sv=1&sig=b", "x?sig=&sv=1&sig="),
            ("x?sig=a;b", "x?sig=;b"),
            ("x?design=a&signature=b", "x?design=a&signature="),
            ("SSLPassword=a b", "SSLPassword= b"),
            ("password=a=b&c=d", "password=&c=d"),
            ("design=a", "design=a"),
        ] {
            assert_eq!(hidden(text, &parameters(text)), rest);
        }
    }

    #[test]
    fn ports_are_no_passwords_and_words_after_a_colon_may_be() {
        for (text, rest) in [
            ("http://h:80", "http://h:80"),
            ("http://h:80/x:y", "http://h:80/x:y"),
            ("http://[::1]:80/x", "http://[::1]:80/x"),
            ("http://h:80a", "http://h:"),
            ("http://h:", "http://h:"),
            ("http://u:1234@h", "http://u:@h"),
            ("a://u:x@h b://v:y@i", "a://u:@i"),
        ] {
            assert_eq!(hidden(text, &in_text(text)), rest);
        }
    }
}
