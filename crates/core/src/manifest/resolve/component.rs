//! Components: what of them needs more than one key.

use super::Context;
use super::schedule;
use super::view::View;
use crate::decide::mass_change::Limits;
use crate::error::codes;
use crate::manifest::backup_way::BackupWay;
use crate::manifest::component_kind as kind;
use crate::manifest::model::{Check, Component, Retention, ServerUrl, Source, SqlExpectation};
use crate::manifest::paths;
use crate::manifest::problem::{Draft, one_of, quoted};
use crate::manifest::secret_ref::SecretRef;
use crate::manifest::suggest;
use crate::manifest::tier::Tier;
use crate::manifest::wal::{SlotPolicy, WalMode, WalSettings};
use std::path::Path;

/// One `[[component]]`. `None` when something of it is wrong, which is in `found` then.
pub(super) fn component(view: View<'_>, context: &Context<'_>, found: &mut Vec<Draft>) -> Option<Component> {
    // Look at everything before the first `?`, so that one run finds all problems.
    let name = view.text("name");
    let tier = view.text("tier").and_then(Tier::from_name);
    let source = source(view, &context.origin.dir);
    let repositories = repositories(view, context, found);
    let is_filled = |source: &str| repositories.iter().flatten().any(|name| name == source);
    let copies = context.copies.iter().filter(|(_, source)| is_filled(source));
    let copies: Vec<String> = copies.map(|(copy, _)| (*copy).to_owned()).collect();
    let objectives = tier.map(|tier| context.objectives(tier));
    let shown = name.unwrap_or("?");
    let wal = wal(view.table("wal"), found);
    let has_wal = view.text("kind").is_some_and(|name| kind::WITH_WAL.contains(&name));
    let schedule = tier.zip(objectives).and_then(|(tier, objectives)| {
        let shipped_within = if has_wal { schedule::shipped_within(&wal, objectives) } else { None };
        let of = schedule::Scheduled { name: shown, tier, objectives, has_wal, shipped_within };
        schedule::schedule(of, view.table("schedule"), context.schedule, found)
    });
    let retention = retention(view, context, found);
    let checks = view.tables("check").into_iter().map(|check| self::check(check, view.text("kind"), found));
    let checks: Vec<_> = checks.collect();
    overlaps(shown, view, source.as_ref(), context, found);
    let backup = view.text("backup").and_then(BackupWay::from_name).unwrap_or_default();
    if backup == BackupWay::Logical && view.has("wal") {
        found.push(
            Draft::error(codes::MANIFEST_CONFLICT, view.span_of("backup"), "WAL leads nowhere from dumps")
                .hint("remove `[component.wal]`, or set `backup = \"stream\"`"),
        );
    }
    Some(Component {
        name: name?.to_owned(),
        source: source?,
        tier: tier?,
        objectives: objectives?,
        repositories: repositories?,
        copies,
        schedule: schedule?,
        retention,
        backup,
        has_marks: has_wal && view.text("marks") != Some("off"),
        wal,
        mass_change: mass_change(view.table("mass_change")),
        checks: checks.into_iter().collect::<Option<_>>()?,
    })
}

fn source(view: View<'_>, dir: &Path) -> Option<Source> {
    let path = || view.text("path").map(|path| paths::resolve(dir, Path::new(path)));
    let url = || {
        let text = view.text("url")?;
        Some(match SecretRef::parse(text) {
            Ok(reference) => ServerUrl::Reference(reference.resolved(dir)),
            Err(_) => ServerUrl::Literal(text.to_owned()),
        })
    };
    Some(match view.text("kind")? {
        "postgres" => Source::Postgres { url: url()? },
        "sqlite" => {
            let tables = view.texts("may_be_empty").unwrap_or_default();
            Source::Sqlite {
                path: path()?,
                may_be_empty: tables.into_iter().map(|(text, _)| text.to_owned()).collect(),
            }
        }
        "redis" => Source::Redis { url: url()? },
        "files" => {
            let exclude = view.texts("exclude").unwrap_or_default();
            Source::Files {
                path: path()?,
                exclude: exclude.into_iter().map(|(text, _)| text.to_owned()).collect(),
            }
        }
        _ => return None,
    })
}

/// What is absent or wrong (and reported) has its default.
fn mass_change(view: Option<View<'_>>) -> Limits {
    let usual = Limits::default();
    let number = |key: &str, usual: u64| view.and_then(|view| view.number(key)).unwrap_or(usual);
    Limits {
        min_files: number("min_files", usual.min_files),
        changed_percent: number("changed_percent", usual.changed_percent),
        gone_percent: number("gone_percent", usual.gone_percent),
        encrypted_percent: number("encrypted_percent", usual.encrypted_percent),
    }
}

/// What is absent or wrong (and reported) has its default.
fn wal(view: Option<View<'_>>, found: &mut Vec<Draft>) -> WalSettings {
    let defaults = WalSettings::default();
    let Some(view) = view else { return defaults };
    let mode = view.text("mode").and_then(WalMode::from_name).unwrap_or_default();
    if view.has("archive_timeout") && mode != WalMode::Archive {
        let message = format!("`archive_timeout` has no effect with `mode = \"{}\"`", mode.as_str());
        found.push(
            Draft::warning(codes::MANIFEST_UNUSED, view.span_of("archive_timeout"), message)
                .hint("remove it: WAL is shipped before its segment is full"),
        );
    }
    WalSettings {
        mode,
        archive_timeout: view.duration("archive_timeout"),
        slot_limit_bytes: view
            .number("slot_limit_mib")
            .map_or(defaults.slot_limit_bytes, |mib: u64| mib << 20),
        at_slot_limit: view.text("at_slot_limit").and_then(SlotPolicy::from_name).unwrap_or_default(),
    }
}

fn repositories(view: View<'_>, context: &Context<'_>, found: &mut Vec<Draft>) -> Option<Vec<String>> {
    let known = &context.repository_names;
    if !view.has("repositories") {
        return Some(context.direct().into_iter().map(str::to_owned).collect());
    }
    let named = view.texts("repositories")?;
    for (name, span) in named.iter().filter(|(name, _)| !known.contains(name)) {
        let message = format!("there is no repository {}", quoted(name));
        let draft = Draft::error(codes::MANIFEST_REFERENCE, span, message);
        let hint = if known.is_empty() {
            "declare one with `[[repository]]`".to_owned()
        } else {
            format!("the repositories are {}", one_of(known).replace(" or ", " and "))
        };
        found.push(draft.did_you_mean(suggest::nearest(name, known.iter().copied())).hint(hint));
    }
    for (name, span) in &named {
        if let Some((_, source)) = context.copies.iter().find(|(copy, _)| copy == name) {
            let message = format!("{} is a copy: no backup is written into it", quoted(name));
            let hint = format!("remove it here: what goes into {} is copied there", quoted(source));
            found.push(Draft::error(codes::MANIFEST_CONFLICT, span, message).hint(hint));
        }
    }
    Some(named.into_iter().map(|(name, _)| name.to_owned()).collect())
}

/// The component's rules or else the global ones or else the default; holds of both.
fn retention(view: View<'_>, context: &Context<'_>, found: &mut Vec<Draft>) -> Retention {
    let own = view.table("retention");
    let mut rules = schedule::retention(own, found).unwrap_or_else(|| context.retention.clone());
    for tag in schedule::holds(own) {
        if !rules.holds.contains(&tag) {
            rules.holds.push(tag);
        }
    }
    // Rules of its own drop the global rules, never the global holds.
    for tag in &context.retention.holds {
        if !rules.holds.contains(tag) {
            rules.holds.push(tag.clone());
        }
    }
    rules.holds.sort();
    rules
}

fn check(view: View<'_>, component_kind: Option<&str>, found: &mut Vec<Draft>) -> Option<Check> {
    let conflict = |span, message: &str| Draft::error(codes::MANIFEST_CONFLICT, span, message);
    let expectations = ["expect", "min_rows"].into_iter().filter(|key| view.has(key)).collect::<Vec<_>>();
    match (view.has("sql"), view.has("command"), expectations.as_slice()) {
        (true, true, _) => found.push(
            conflict(view.span_of("command"), "a check has either `sql` or `command`, not both")
                .hint("make two `[[component.check]]` of it"),
        ),
        (false, false, _) => found.push(
            Draft::error(codes::MANIFEST_MISSING, view.span, "this check has neither `sql` nor `command`")
                .hint("add `sql = \"…\"` with `expect` or `min_rows`, or `command = [\"…\"]`"),
        ),
        (true, false, []) => found.push(
            Draft::error(
                codes::MANIFEST_MISSING,
                view.span,
                "this check does not say what its query must give",
            )
            .hint("add `expect = \"…\"` or `min_rows = 1`; a check that cannot fail proves nothing"),
        ),
        (true, false, [_, second, ..]) => found.push(
            conflict(view.span_of(second), "a check has either `expect` or `min_rows`, not both")
                .hint("keep one of them"),
        ),
        (false, true, [key, ..]) => found.push(
            conflict(view.span_of(key), &format!("`{key}` goes with `sql`, not with `command`"))
                .hint("remove it; a command passes when it ends with 0"),
        ),
        _ => {}
    }
    if let Some(kind) = component_kind
        .filter(|kind| view.has("sql") && kind::NAMES.contains(kind) && !kind::WITH_SQL.contains(kind))
    {
        let message = format!("a component of kind `{kind}` cannot be asked with `sql`");
        found.push(conflict(view.span_of("sql"), &message).hint("use `command = [\"…\"]`"));
    }
    if let Some(command) = view.command("command") {
        return Some(Check::Command(command));
    }
    let expectation = match view.number("min_rows") {
        Some(rows) => SqlExpectation::MinRows(rows),
        None => SqlExpectation::Text(view.text("expect")?.to_owned()),
    };
    Some(Check::Sql { sql: view.text("sql")?.to_owned(), expectation })
}

/// A repository inside a folder that is backed up into it would hold itself, and double with each backup.
fn overlaps(
    name: &str,
    view: View<'_>,
    source: Option<&Source>,
    context: &Context<'_>,
    found: &mut Vec<Draft>,
) {
    let Some(Source::Files { path, exclude }) = source else { return };
    for (repository, folder) in &context.repository_folders {
        let Some(rest) = paths::below(path, folder) else { continue };
        let pattern = paths::anchored_pattern(&rest);
        if rest.is_empty() || !exclude.contains(&pattern) {
            let message =
                format!("the repository {} lies inside the component {}", quoted(repository), quoted(name));
            let hint = if rest.is_empty() {
                "move the repository elsewhere, best to another disk".to_owned()
            } else {
                format!(
                    "move the repository elsewhere, best to another disk, or add `exclude = ['{pattern}']`"
                )
            };
            found.push(Draft::error(codes::MANIFEST_OVERLAP, view.span_of("path"), message).hint(hint));
        }
    }
}
