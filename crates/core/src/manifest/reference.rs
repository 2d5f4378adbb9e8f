//! The reference of all keys, as a part of `docs/manifest.md`.

use super::fields::{Field, Kind, ROOT, Section};
use super::problem::one_of;
use super::tier::Tier;

/// The line before the generated part of `docs/manifest.md`.
const BEGIN: &str = "<!-- generated from the table of fields: begin -->\n";
/// The line after it.
const END: &str = "<!-- generated from the table of fields: end -->\n";

/// Tiers and all keys as Markdown, without the markers around them.
pub fn reference_markdown() -> String {
    let mut text = String::from("## Tiers\n\n| tier | RTO | RPO | default `every` |\n|---|---|---|---|\n");
    for tier in Tier::ALL {
        let objectives = tier.default_objectives();
        let every = super::resolve::default_schedule(objectives).every;
        push(&mut text, format_args!("| `{tier}` | {} | {} | {every} |\n", objectives.rto, objectives.rpo));
    }
    text.push_str("\n## Keys\n");
    section(&mut text, &ROOT);
    text
}

/// `page` with a new generated part; `None` when it has not both markers, in order.
pub fn with_reference(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", reference_markdown()))
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&line.to_string());
}

fn section(text: &mut String, section: &Section) {
    let title =
        if section.title.starts_with('[') { format!("`{}`", section.title) } else { "At the top".into() };
    push(text, format_args!("\n### {title}\n\n{}\n\n", section.doc));
    text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for field in section.fields {
        let default = match (field.required, field.default) {
            (true, _) => "required",
            (false, Some(default)) => default,
            (false, None) => "none",
        };
        let only_for = match field.only_for {
            [] => String::new(),
            kinds => format!(" For {}.", one_of(kinds).replace(" or ", " and ")),
        };
        let meaning = format!("{}{only_for}", field.doc);
        push(text, format_args!("| `{}` | {} | {default} | {meaning} |\n", field.name, type_of(field)));
    }
    for field in section.fields {
        match field.kind {
            Kind::Table(inner) | Kind::Tables(inner) | Kind::PerTier(inner) => self::section(text, inner),
            _ => {}
        }
    }
}

fn type_of(field: &Field) -> String {
    match field.kind {
        Kind::Version => "`1`".into(),
        Kind::Integer(min, i64::MAX) => format!("integer, at least {min}"),
        Kind::Integer(min, max) => format!("integer, {min} to {max}"),
        Kind::Choice(words) => one_of(words),
        Kind::Name => "name".into(),
        Kind::Names => "array of names".into(),
        Kind::Path => "path".into(),
        Kind::Command => "array: program, arguments".into(),
        Kind::DatabaseTables => "array of names of tables".into(),
        Kind::Patterns => "array of patterns".into(),
        Kind::SecretRef => "`env:NAME` or `file:PATH`".into(),
        Kind::KeyRef => "`env:NAME`, `file:PATH` or `transit:URL`".into(),
        Kind::RepositoryUrl | Kind::HttpUrl => "address".into(),
        Kind::Listen => "address and port".into(),
        Kind::MailServer => "host and port".into(),
        Kind::MailAddress => "e-mail address".into(),
        Kind::MailAddresses => "array of e-mail addresses".into(),
        Kind::ServerUrl | Kind::Receiver => "address or reference".into(),
        Kind::Amount => "amount as text".into(),
        Kind::PublicKey => "base64".into(),
        Kind::Table(inner) | Kind::Tables(inner) | Kind::PerTier(inner) => format!("`{}`", inner.title),
        Kind::Text | Kind::FilledText => "text".into(),
        Kind::Duration | Kind::Minutes => field.kind.in_words().trim_start_matches("a ").into(),
    }
}
