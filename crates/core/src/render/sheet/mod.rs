//! The recovery sheet: what a person who has nothing but a blank machine, this page and the password does, on paper.
//!
//! It is printed while all is well, so it holds no secret: it says which ones are needed and leaves lines for where they are
//! kept. What it says of the service comes from the manifest, what it says of the past from snapshots and records.

mod steps;
mod texts;

use super::Language;
use super::html::Html;
use super::language::fill;
use crate::drill::Seconds;
use crate::manifest::{Component, ComponentKind, Manifest, Repository};
use crate::units::ByteSize;
use jiff::Timestamp;
use texts::Texts;

/// What a sheet says beside the manifest.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The version of this program.
    pub version: String,
    /// By the names of the manifest's components; one that is missing was never backed up.
    pub components: Vec<ComponentFacts>,
}

/// What is known about a component.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ComponentFacts {
    /// Its name.
    pub component: String,
    /// The time of the newest complete snapshot.
    pub snapshot: Option<Timestamp>,
    /// How large its data were when it was backed up last, in bytes.
    pub data_bytes: Option<u64>,
    /// The last time that it was brought back in a drill.
    pub measured: Option<Measured>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// When.
    pub time: Timestamp,
    /// From the loss to the service.
    pub rto: Seconds,
}

/// The page, from `<!doctype html>` to `</html>`. The first repository of the manifest is the one that it begins with.
pub fn page(manifest: &Manifest, facts: &Facts, language: Language) -> String {
    let texts = texts::of(language);
    let service = manifest.service.name.as_str();
    let title = fill(texts.title, &[("service", service)]);
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"")
        .raw(language.tag())
        .raw("\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    html.element("title", &title)
        .raw("\n<style>\n")
        .raw(include_str!("style.css"))
        .raw("</style>\n</head>\n");
    html.raw("<body>\n<main>\n").element("h1", &title).raw("\n");
    html.element("p", &fill(texts.intro, &[("service", service)])).raw("\n");
    needs(&mut html, manifest, facts, texts);
    steps::all(&mut html, manifest, texts);
    components(&mut html, manifest, facts, (language, texts));
    copies(&mut html, manifest, texts);
    people(&mut html, texts);
    let footer = [("version", facts.version.as_str()), ("hash", manifest.hash())];
    html.raw("<footer>")
        .element("p", &fill(texts.footer, &footer))
        .raw("</footer>\n</main>\n</body>\n</html>\n");
    html.finish()
}

/// A repository's address as one word of a command.
pub(super) fn quoted_address(repository: &Repository) -> String {
    steps::quoted(&steps::address(repository))
}

/// The manifest's components in the order in which they come back.
fn in_order(manifest: &Manifest) -> Vec<&Component> {
    let mut components: Vec<&Component> = manifest.components.iter().collect();
    components.sort_by_key(|component| component.tier);
    components
}

/// A line for the pen.
fn blank(html: &mut Html, label: &str) {
    html.raw("<p class=\"blank\"><span>").text(label).raw("</span><i></i></p>\n");
}

fn needs(html: &mut Html, manifest: &Manifest, facts: &Facts, texts: &Texts) {
    html.element("h2", texts.needs_title).raw("\n<ul>\n");
    let mut item = |text: &str| {
        html.element("li", text).raw("\n");
    };
    let bytes: u64 = facts.components.iter().filter_map(|it| it.data_bytes).fold(0, u64::saturating_add);
    let size = ByteSize(bytes.saturating_mul(2)).to_string();
    item(&if bytes == 0 {
        texts.needs_machine.to_owned()
    } else {
        fill(texts.needs_machine_size, &[("size", &size)])
    });
    item(&fill(texts.needs_program, &[("version", &facts.version)]));
    let has = |kind: ComponentKind| manifest.components.iter().any(|component| component.kind() == kind);
    if has(ComponentKind::Postgres) {
        item(texts.needs_postgres);
    }
    if has(ComponentKind::Redis) {
        item(texts.needs_redis);
    }
    item(texts.needs_password);
    if let Some(first) = manifest.repositories.first() {
        item(steps::credentials(first, texts));
    }
    html.raw("</ul>\n");
    for label in [texts.kept_program, texts.kept_password, texts.kept_password_again, texts.kept_credentials]
    {
        blank(html, label);
    }
}

fn components(html: &mut Html, manifest: &Manifest, facts: &Facts, (language, texts): (Language, &Texts)) {
    let heads = [
        texts.column_component,
        texts.column_kind,
        texts.column_snapshot,
        texts.column_size,
        texts.column_rto,
        texts.column_rpo,
        texts.column_measured,
    ];
    html.element("h2", texts.components_title)
        .raw("\n")
        .element("p", texts.components_intro)
        .raw("\n<table>\n");
    html.heads(&heads);
    for component in in_order(manifest) {
        let fact = facts.components.iter().find(|it| it.component == component.name);
        let snapshot = fact.and_then(|it| it.snapshot).map(day_and_time);
        let size = fact.and_then(|it| it.data_bytes).map(|bytes| ByteSize(bytes).to_string());
        let measured = fact.and_then(|it| it.measured).map(|it| {
            fill(texts.measured_on, &[("time", &language.duration(it.rto)), ("day", &day(it.time))])
        });
        let cells = [
            Some(component.name.clone()),
            Some(format!("{}, {}", component.kind().as_str(), component.tier.as_str())),
            snapshot.or_else(|| Some(texts.never.to_owned())),
            size,
            Some(component.objectives.rto.in_words()),
            Some(component.objectives.rpo.in_words()),
            measured.or_else(|| Some(texts.never.to_owned())),
        ];
        html.raw("<tr>");
        for (head, cell) in heads.iter().zip(cells) {
            html.cell(head, cell.as_deref().unwrap_or("–"));
        }
        html.raw("</tr>\n");
    }
    html.raw("</tbody></table>\n");
}

fn copies(html: &mut Html, manifest: &Manifest, texts: &Texts) {
    html.element("h2", texts.copies_title).raw("\n");
    let others: &[Repository] = manifest.repositories.get(1..).unwrap_or_default();
    if others.is_empty() {
        html.element("p", texts.copies_none).raw("\n");
        return;
    }
    html.element("p", texts.copies_intro).raw("\n<ul>\n");
    for other in others {
        html.raw("<li><b>").text(&other.name).raw("</b> <code>").text(&steps::address(other)).raw("</code> ");
        html.text(steps::credentials(other, texts)).raw("</li>\n");
    }
    html.raw("</ul>\n");
}

fn people(html: &mut Html, texts: &Texts) {
    html.element("h2", texts.people_title).raw("\n");
    for label in [texts.people_decides, texts.people_does, texts.people_told, texts.printed_on] {
        blank(html, label);
    }
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

fn day_and_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
