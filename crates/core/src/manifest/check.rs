//! The checks that need one key at a time: is it known, is it there, has it the right type, is its value well-formed.
//!
//! Everything comes from the table in `fields`. Whatever needs two keys is checked in `resolve`.

use super::address::{self, Fault};
use super::fields::{Field, Kind, Section};
use super::mail;
use super::problem::{Draft, one_of, quoted};
use super::raw::{Entry, Node, Value, find};
use super::secret_ref::SecretRef;
use super::suggest;
use crate::decide::cost::Amount;
use crate::error::codes;
use crate::units::Duration;
use base64::Engine as _;
use std::collections::BTreeSet;
use std::ops::Range;

/// The longest name, in characters: names become parts of object names and of names in DNS.
pub(super) const NAME_LIMIT: usize = 63;
/// Words with a meaning on the command line, in tags or in the repository.
pub(super) const RESERVED: [&str; 8] =
    ["all", "none", "latest", "manifest", "self", "service", "retoma", "repository"];

/// Checks `table` against `section`; `header` is where a missing key is reported.
pub(super) fn table(table: &[Entry], section: &Section, header: &Range<usize>, found: &mut Vec<Draft>) {
    let kind = find(table, "kind").and_then(|entry| text_of(&entry.node));
    for entry in table {
        match section.field(&entry.key) {
            None => found.push(unknown_key(entry, section)),
            Some(field) => {
                if let Some(kind) = kind.filter(|kind| !applies(field, kind) && is_kind(section, kind)) {
                    found.push(not_for_kind(entry, field, kind));
                } else {
                    value(&entry.node, field, kind, found);
                }
            }
        }
    }
    for field in section.fields.iter().filter(|field| field.required && find(table, field.name).is_none()) {
        let is_needed = field.only_for.is_empty() || kind.is_some_and(|kind| applies(field, kind));
        if is_needed {
            let place =
                if header.is_empty() { "the manifest".into() } else { format!("`{}`", section.title) };
            let message = format!("{place} has no `{}`", field.name);
            found.push(Draft::error(codes::MANIFEST_MISSING, header, message).hint(example(field)));
        }
    }
}

fn applies(field: &Field, kind: &str) -> bool {
    field.only_for.is_empty() || field.only_for.contains(&kind)
}

/// Whether `kind` is one of the kinds of `section`; with any other one, nothing is known about which keys apply.
fn is_kind(section: &Section, kind: &str) -> bool {
    section
        .field("kind")
        .is_some_and(|field| matches!(field.kind, Kind::Choice(words) if words.contains(&kind)))
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn unknown_key(entry: &Entry, section: &Section) -> Draft {
    let names = section.names();
    let place =
        if section.title.starts_with('[') { format!("`{}`", section.title) } else { section.title.into() };
    let message = format!("unknown key {} in {place}", quoted(&entry.key));
    Draft::error(codes::MANIFEST_UNKNOWN_KEY, &entry.key_span, message)
        .did_you_mean(suggest::nearest(&entry.key, names.iter().copied()))
        .hint(format!("the keys are {}", one_of(&names).replace(" or ", " and ")))
}

fn not_for_kind(entry: &Entry, field: &Field, kind: &str) -> Draft {
    let message = format!("`{}` does not apply to a component of kind `{kind}`", field.name);
    Draft::error(codes::MANIFEST_CONFLICT, &entry.key_span, message)
        .hint(format!("remove it; it is for {}", one_of(field.only_for).replace(" or ", " and ")))
}

/// How a missing key is written.
fn example(field: &Field) -> String {
    let name = field.name;
    match field.kind {
        Kind::Version => "add `version = 1` as the first line".into(),
        Kind::Choice(words) => format!("add `{name}` with {}", one_of(words)),
        Kind::Table(section) | Kind::Tables(section) => {
            format!("add a table `{}`: {}", section.title, lower(field.doc))
        }
        Kind::SecretRef | Kind::KeyRef => format!("add `{name} = \"file:/path\"` or `{name} = \"env:NAME\"`"),
        _ => format!("add `{name}`: {}", lower(field.doc)),
    }
}

/// A sentence as the end of another one.
fn lower(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut chars = sentence.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Checks one value. `kind` is the component's, for addresses of servers.
fn value(node: &Node, field: &Field, kind: Option<&str>, found: &mut Vec<Draft>) {
    match (field.kind, &node.value) {
        (Kind::Table(section), Value::Table(inner)) => table(inner, section, &node.span, found),
        (Kind::PerTier(_), Value::Table(inner)) => {
            if let Some(section) = field.per_tier() {
                table(inner, section, &node.span, found);
            }
        }
        (Kind::Tables(section), Value::Array(items)) => tables(items, field, section, node, found),
        (Kind::Version, Value::Integer(version)) => {
            if *version != 1 {
                let message = format!("version `{version}` of the manifest is not known");
                let hint = "this program reads version 1; a newer manifest needs a newer Retoma";
                found.push(Draft::error(codes::MANIFEST_VERSION, &node.span, message).hint(hint));
            }
        }
        (Kind::Integer(min, max), Value::Integer(number)) if !(min..=max).contains(number) => {
            found.push(out_of_range(node, field, &format!("is {number}"), min, max));
        }
        (Kind::Minutes, Value::Integer(minutes)) => {
            let max = i64::try_from(Duration::MAX.as_seconds() / 60).unwrap_or(i64::MAX);
            if !(1..=max).contains(minutes) {
                found.push(out_of_range(node, field, &format!("is {minutes} minutes"), 1, max));
            }
        }
        (Kind::Integer(..), Value::Integer(_)) => {}
        (
            Kind::Command | Kind::Patterns | Kind::DatabaseTables | Kind::Names | Kind::MailAddresses,
            Value::Array(items),
        ) => list(items, node, field, found),
        (
            Kind::Version
            | Kind::Integer(..)
            | Kind::Command
            | Kind::Patterns
            | Kind::DatabaseTables
            | Kind::Names
            | Kind::MailAddresses
            | Kind::Table(_)
            | Kind::Tables(_)
            | Kind::PerTier(_),
            _,
        ) => found.push(wrong_type(node, field)),
        (_, Value::String(content)) => found.extend(text(content, node, field, kind)),
        _ => found.push(wrong_type(node, field)),
    }
}

fn tables(items: &[Node], field: &Field, section: &Section, node: &Node, found: &mut Vec<Draft>) {
    if items.is_empty() && field.required {
        let message = format!("`{}` is empty", field.name);
        found.push(Draft::error(codes::MANIFEST_MISSING, &node.span, message).hint(example(field)));
    }
    for item in items {
        match &item.value {
            Value::Table(inner) => table(inner, section, &item.span, found),
            _ => found.push(wrong_type(item, field)),
        }
    }
}

fn wrong_type(node: &Node, field: &Field) -> Draft {
    let message =
        format!("`{}` must be {}, not {}", field.name, field.kind.in_words(), node.value.type_name());
    let draft = Draft::error(codes::MANIFEST_TYPE, &node.span, message);
    match (field.kind, &node.value) {
        (Kind::Tables(section) | Kind::Table(section) | Kind::PerTier(section), _) => {
            draft.hint(format!("write `{}` above its keys", section.title))
        }
        (Kind::Command, Value::String(_)) => draft
            .hint("no shell is involved: write each argument by itself, as in `[\"program\", \"--flag\"]`"),
        (Kind::Names | Kind::Patterns | Kind::DatabaseTables | Kind::MailAddresses, Value::String(_)) => {
            draft.hint("write it in brackets, as in `[\"one\"]`")
        }
        (Kind::Duration, Value::Integer(_)) => draft.hint("write the unit, as in `\"15m\"` or `\"90s\"`"),
        (Kind::Integer(..) | Kind::Version, Value::String(_)) => {
            draft.hint("write the number without quotes")
        }
        (Kind::Amount, Value::Float | Value::Integer(_)) => {
            draft.hint("write it in quotes, as in `\"0.023\"`: it is taken exactly as it stands")
        }
        (Kind::SecretRef | Kind::KeyRef, _) => {
            draft.hint("write `env:NAME` or `file:PATH`; if the secret itself stood here, change it")
        }
        _ => draft,
    }
}

fn out_of_range(node: &Node, field: &Field, what: &str, min: i64, max: i64) -> Draft {
    let bounds = if max == i64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
    Draft::error(codes::MANIFEST_RANGE, &node.span, format!("`{}` {what}", field.name))
        .hint(format!("it must be {bounds}"))
}

fn list(items: &[Node], node: &Node, field: &Field, found: &mut Vec<Draft>) {
    if items.is_empty() && !matches!(field.kind, Kind::Patterns) {
        let message = format!("`{}` is an empty list", field.name);
        let hint = match field.kind {
            Kind::Command => "the program comes first, then its arguments",
            _ => "name at least one, or remove the key",
        };
        found.push(Draft::error(codes::MANIFEST_VALUE, &node.span, message).hint(hint));
    }
    let mut seen = BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        let Some(content) = text_of(item) else {
            let message = format!("`{}` holds {} where a string belongs", field.name, item.value.type_name());
            found.push(Draft::error(codes::MANIFEST_TYPE, &item.span, message));
            continue;
        };
        let is_program = at == 0 && matches!(field.kind, Kind::Command);
        match field.kind {
            Kind::DatabaseTables if content.is_empty() => {
                found.push(malformed(item, field, "has an empty name", "name a table of the database"));
            }
            Kind::Names | Kind::DatabaseTables | Kind::MailAddresses => {
                match field.kind {
                    Kind::Names => found.extend(name(content, item, field)),
                    Kind::MailAddresses => found.extend(mail_address(content, item, field)),
                    _ => {}
                }
                if !seen.insert(content) {
                    let message = format!("`{}` holds {} twice", field.name, quoted(content));
                    found.push(Draft::error(codes::MANIFEST_DUPLICATE, &item.span, message));
                }
            }
            Kind::Patterns if content.trim_end_matches('/').is_empty() => {
                found.push(malformed(
                    item,
                    field,
                    "has an empty pattern",
                    "name what is left out, as in `*.tmp` or `/cache`",
                ));
            }
            _ if content.is_empty() && is_program => {
                found.push(malformed(
                    item,
                    field,
                    "has an empty program",
                    "the program comes first, then its arguments",
                ));
            }
            _ if content.contains('\0') => {
                found.push(malformed(item, field, "has a NUL character", "remove it"));
            }
            _ => {}
        }
    }
}

fn malformed(node: &Node, field: &Field, what: &str, hint: &str) -> Draft {
    Draft::error(codes::MANIFEST_VALUE, &node.span, format!("`{}` {what}", field.name)).hint(hint)
}

/// Checks a value that is a text.
fn text(content: &str, node: &Node, field: &Field, kind: Option<&str>) -> Option<Draft> {
    match field.kind {
        Kind::FilledText if content.is_empty() => Some(malformed(
            node,
            field,
            "is empty",
            "a check that cannot fail proves nothing; say what is expected",
        )),
        Kind::Duration | Kind::Minutes => duration(content, node, field),
        Kind::Choice(words) if !words.contains(&content) => {
            let message = format!("`{}` is {}, which is not known", field.name, quoted(content));
            let draft = Draft::error(codes::MANIFEST_CHOICE, &node.span, message);
            let meant = suggest::nearest(content, words.iter().copied());
            Some(draft.did_you_mean(meant).hint(format!("it must be {}", one_of(words))))
        }
        Kind::Name => name(content, node, field),
        Kind::Path => path(content, node, field),
        Kind::SecretRef => SecretRef::parse(content).err().map(|reason| {
            let message = format!("`{}` is no reference to a secret: {reason}", field.name);
            Draft::error(codes::MANIFEST_SECRET_VALUE, &node.span, message)
                .hint("write `env:NAME` or `file:PATH`; if the secret itself stood here, change it")
        }),
        Kind::KeyRef => SecretRef::parse_key(content).err().map(|reason| {
            let message = format!("`{}` is no reference to a key: {reason}", field.name);
            Draft::error(codes::MANIFEST_SECRET_VALUE, &node.span, message).hint(
                "write `env:NAME`, `file:PATH` or `transit:https://…`; if the secret itself stood here, change it",
            )
        }),
        Kind::RepositoryUrl => {
            address::repository(content).err().map(|fault| bad_address(node, field, &fault))
        }
        Kind::HttpUrl => address::http(content).err().map(|fault| bad_address(node, field, &fault)),
        Kind::ServerUrl => server(content, node, field, kind),
        Kind::Receiver => receiver(content, node, field),
        Kind::Listen => {
            let is_address = content.parse::<core::net::SocketAddr>().is_ok();
            let hint = "write an IP address and a port, as in `127.0.0.1:9840` or `[::1]:9840`";
            (!is_address).then(|| malformed(node, field, "is no address to listen on", hint))
        }
        Kind::MailAddress => mail_address(content, node, field),
        Kind::MailServer => {
            let hint = "write the server's name and port, as in `smtp.example.org:587`";
            mail::server(content).is_none().then(|| malformed(node, field, "is no server and port", hint))
        }
        Kind::Amount => {
            let hint = "write digits and a point, as in `\"0.023\"`: at most nine digits behind it, and a million";
            content.parse::<Amount>().is_err().then(|| malformed(node, field, "is no amount of money", hint))
        }
        Kind::PublicKey => {
            let is_key = public_key(content).is_some();
            let hint = "it is what `retoma evidence new-key FILE` prints: 44 characters that end with `=`";
            (!is_key).then(|| malformed(node, field, "is not 32 bytes in base64", hint))
        }
        _ => None,
    }
}

fn mail_address(content: &str, node: &Node, field: &Field) -> Option<Draft> {
    let hint = "write it as `name@domain`, without a name before it and without quotes";
    let draft =
        || malformed(node, field, &format!("has {}, which is no e-mail address", quoted(content)), hint);
    (!mail::is_address(content)).then(draft)
}

fn duration(content: &str, node: &Node, field: &Field) -> Option<Draft> {
    let least = if matches!(field.kind, Kind::Minutes) { 60 } else { 1 };
    match content.parse::<Duration>() {
        Err(reason) => {
            let message = format!("`{}` is {}, which is no length of time", field.name, quoted(content));
            Some(Draft::error(codes::MANIFEST_DURATION, &node.span, message).hint(reason.to_string()))
        }
        Ok(duration) if duration.as_seconds() < least => {
            let message = format!("`{}` is {duration}", field.name);
            let least = Duration::from_seconds(least);
            Some(
                Draft::error(codes::MANIFEST_RANGE, &node.span, message)
                    .hint(format!("it must be at least `{least}`")),
            )
        }
        Ok(_) => None,
    }
}

fn name(content: &str, node: &Node, field: &Field) -> Option<Draft> {
    let reason = if is_name(content) {
        RESERVED.contains(&content).then_some("which is reserved")?
    } else {
        "which is no name"
    };
    let message = format!("`{}` is {}, {reason}", field.name, quoted(content));
    let hint = if is_name(content) {
        format!(
            "choose another one; {} have a meaning of their own",
            one_of(&RESERVED).replace(" or ", " and ")
        )
    } else {
        "names have small letters a to z, digits, `_` and `-`, start with a letter or digit, and have at most 63 characters"
            .to_owned()
    };
    Some(Draft::error(codes::MANIFEST_NAME, &node.span, message).hint(hint))
}

/// Whether `text` has the form of a name; it may still be reserved.
pub(super) fn is_name(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= NAME_LIMIT
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || b == b'_' || b == b'-')
}

fn path(content: &str, node: &Node, field: &Field) -> Option<Draft> {
    if content.is_empty() {
        return Some(malformed(node, field, "is empty", "write `.` for the manifest's own directory"));
    }
    if content == "~" || content.starts_with("~/") {
        return Some(malformed(node, field, "starts with `~`, which nobody expands", "write the whole path"));
    }
    content.contains('\0').then(|| malformed(node, field, "has a NUL character", "remove it"))
}

fn server(content: &str, node: &Node, field: &Field, kind: Option<&str>) -> Option<Draft> {
    if content.starts_with("env:") || content.starts_with("file:") {
        return SecretRef::parse(content).err().map(|reason| {
            let message = format!("`{}` is no reference: {reason}", field.name);
            Draft::error(codes::MANIFEST_SECRET_VALUE, &node.span, message)
                .hint("write `env:NAME` or `file:PATH`")
        });
    }
    let schemes = match kind {
        Some("postgres") => address::POSTGRES,
        Some("redis") => address::REDIS,
        _ => return None, // The kind is missing or wrong, which is reported.
    };
    address::server(content, schemes).err().map(|fault| {
        let draft = bad_address(node, field, &fault);
        let is_secret = fault.code == codes::MANIFEST_URL_SECRET;
        let hint = "take the password out (libpq finds it in `~/.pgpass`), or write `url = \"env:NAME\"` and keep the whole \
                    address in that variable";
        if is_secret { draft.hint(hint) } else { draft }
    })
}

fn receiver(content: &str, node: &Node, field: &Field) -> Option<Draft> {
    if content.starts_with("env:") || content.starts_with("file:") {
        return SecretRef::parse(content).err().map(|reason| {
            let message = format!("`{}` is no reference: {reason}", field.name);
            Draft::error(codes::MANIFEST_SECRET_VALUE, &node.span, message)
                .hint("write `env:NAME` or `file:PATH`")
        });
    }
    address::http(content).err().map(|fault| {
        let draft = bad_address(node, field, &fault);
        let hint = "write `env:NAME` or `file:PATH`, and keep the whole address there";
        if fault.code == codes::MANIFEST_URL_SECRET { draft.hint(hint) } else { draft }
    })
}

fn bad_address(node: &Node, field: &Field, fault: &Fault) -> Draft {
    let message = format!("the address in `{}` {}", field.name, fault.reason);
    Draft::error(fault.code, &node.span, message).hint(fault.hint)
}

/// The 32 bytes of a public key in standard base64.
pub(super) fn public_key(text: &str) -> Option<[u8; 32]> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok()
}

impl Kind {
    /// The type with its article, for messages and the reference.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Version | Self::Integer(..) => "an integer",
            Self::Duration => "a length of time",
            Self::Minutes => "minutes or a length of time",
            Self::Names | Self::Patterns | Self::DatabaseTables | Self::Command | Self::MailAddresses => {
                "an array of strings"
            }
            Self::Table(_) | Self::PerTier(_) => "a table",
            Self::Tables(_) => "a list of tables",
            _ => "a string",
        }
    }
}

#[cfg(test)]
mod tests;
