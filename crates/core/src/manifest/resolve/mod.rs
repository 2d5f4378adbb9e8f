//! From the checked tree to the [`Manifest`]: defaults, relative paths, and all rules about more than one key.
//!
//! It runs also when `check` found problems, so that one run reports everything; its result counts only without any.

mod agent;
mod component;
mod lock;
mod schedule;
mod view;

use super::Origin;
use super::address;
use super::check;
use super::component_kind::ComponentKind;
use super::model::{
    Component, DrillOptions, Evidence, HttpCheck, Manifest, Markers, Repository, Retention, Service,
};
use super::object_lock::{LockMode, ObjectLock};
use super::paths;
use super::problem::{Draft, one_of, quoted};
use super::raw::Entry;
use super::secret_ref::SecretRef;
use super::suggest;
use super::tier::{Objectives, Tier};
use crate::decide::cost::Prices;
use crate::error::codes;
pub(super) use schedule::default_schedule;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use view::View;

/// What components need to know of the rest.
#[derive(Debug)]
struct Context<'a> {
    origin: &'a Origin,
    repository_names: Vec<&'a str>,
    /// Name of each repository that is a copy, and of which.
    copies: Vec<(&'a str, &'a str)>,
    /// Name and folder of the repositories on this machine.
    repository_folders: Vec<(&'a str, PathBuf)>,
    schedule: Option<View<'a>>,
    retention: Retention,
    tiers: Option<View<'a>>,
}

impl<'a> Context<'a> {
    /// The repositories that backups are written into.
    fn direct(&self) -> Vec<&'a str> {
        let is_copy = |name: &str| self.copies.iter().any(|(copy, _)| *copy == name);
        self.repository_names.iter().copied().filter(|name| !is_copy(name)).collect()
    }

    /// The objectives of `tier` with the manifest's overrides.
    fn objectives(&self, tier: Tier) -> Objectives {
        let mut objectives = tier.default_objectives();
        if let Some(own) = self.tiers.and_then(|tiers| tiers.table(tier.as_str())) {
            objectives.rto = own.minutes("rto").unwrap_or(objectives.rto);
            objectives.rpo = own.minutes("rpo").unwrap_or(objectives.rpo);
        }
        objectives
    }
}

/// The manifest that `root` describes; `None` when something is wrong, which is in `found` then, or was before.
pub(super) fn manifest(
    root: &[Entry],
    origin: &Origin,
    hash: String,
    found: &mut Vec<Draft>,
) -> Option<Manifest> {
    let start = 0..0;
    let root = View::new(root, &start);
    duplicates("repository", &root.tables("repository"), found);
    duplicates("component", &root.tables("component"), found);
    let service = root.table("service");
    let repositories: Vec<_> =
        root.tables("repository").into_iter().map(|view| repository(view, &origin.dir)).collect();
    let context = context(root, origin, found);
    copies(&root.tables("repository"), &context, found);
    let components: Vec<_> = root
        .tables("component")
        .into_iter()
        .map(|view| component::component(view, &context, found))
        .collect();
    unused_tiers(root, &context, found);
    let service = service.and_then(|view| self::service(view, found));
    let repositories: Vec<Repository> = repositories.into_iter().collect::<Option<_>>()?;
    let components: Vec<Component> = components.into_iter().collect::<Option<_>>()?;
    lock::check(&root.tables("repository"), &components, found);
    let service = service?;
    let agent = agent::agent(root.table("agent"), &origin.dir, found);
    let alerts = agent::alerts(root.table("alerts"), &origin.dir, found);
    Some(Manifest {
        version: 1,
        evidence: evidence(root.table("evidence"), &service.name, &origin.dir)?,
        drill: drill(root.table("drill"), &origin.dir, &components, found),
        agent: agent?,
        alerts: alerts?,
        service,
        repositories,
        components,
        warnings: Vec::new(),
        dir: origin.dir.clone(),
        hash,
    })
}

fn context<'a>(root: View<'a>, origin: &'a Origin, found: &mut Vec<Draft>) -> Context<'a> {
    let repositories = root.tables("repository");
    let folder = |view: &View<'a>| {
        let path = view.text("url")?.strip_prefix("file://").filter(|path| path.starts_with('/'))?;
        Some((view.text("name")?, paths::resolve(Path::new("/"), Path::new(path))))
    };
    let own = root.table("retention");
    let mut retention = schedule::retention(own, found).unwrap_or_else(Retention::default_rules);
    retention.holds = schedule::holds(own);
    let mut seen = BTreeSet::new();
    let mut repository_names: Vec<_> = repositories.iter().filter_map(|view| view.text("name")).collect();
    repository_names.retain(|name| seen.insert(*name));
    Context {
        origin,
        copies: repositories.iter().filter_map(|it| it.text("name").zip(it.text("copy_of"))).collect(),
        repository_names,
        repository_folders: repositories.iter().filter_map(folder).collect(),
        schedule: root.table("schedule"),
        retention,
        tiers: root.table("tier"),
    }
}

/// A copy is one of a repository that backups are written into.
fn copies(views: &[View<'_>], context: &Context<'_>, found: &mut Vec<Draft>) {
    for view in views {
        let Some(source) = view.text("copy_of") else { continue };
        let direct = context.direct();
        if direct.contains(&source) {
            continue;
        }
        let (code, message) = if context.repository_names.contains(&source) {
            let message = format!("{} is itself a copy", quoted(source));
            (codes::MANIFEST_CONFLICT, message)
        } else {
            (codes::MANIFEST_REFERENCE, format!("there is no repository {}", quoted(source)))
        };
        let hint = if direct.is_empty() {
            "at least one repository must be without `copy_of`: backups go into it".to_owned()
        } else {
            format!("name one that backups go into: {}", one_of(&direct))
        };
        let near = suggest::nearest(source, direct.iter().copied());
        found.push(Draft::error(code, view.span_of("copy_of"), message).did_you_mean(near).hint(hint));
    }
}

/// Names of one sort must differ.
fn duplicates(what: &str, views: &[View<'_>], found: &mut Vec<Draft>) {
    let mut seen = BTreeSet::new();
    for view in views {
        let Some(name) = view.text("name") else { continue };
        if !seen.insert(name) {
            let message = format!("there is another {what} {}", quoted(name));
            found.push(
                Draft::error(codes::MANIFEST_DUPLICATE, view.span_of("name"), message)
                    .hint("give each a name of its own; snapshots are found by it"),
            );
        }
    }
}

fn unused_tiers(root: View<'_>, context: &Context<'_>, found: &mut Vec<Draft>) {
    let used: Vec<_> = root.tables("component").iter().filter_map(|view| view.text("tier")).collect();
    for tier in Tier::NAMES.into_iter().filter(|tier| !used.contains(tier)) {
        if let Some(view) = context.tiers.and_then(|tiers| tiers.table(tier)) {
            let message = format!("no component has the tier `{tier}`");
            found.push(
                Draft::warning(codes::MANIFEST_UNUSED, view.span, message)
                    .hint("remove this table, or give a component that tier"),
            );
        }
    }
}

fn service(view: View<'_>, found: &mut Vec<Draft>) -> Option<Service> {
    let checks = view.tables("check");
    if view.has("start") && !view.has("health") && checks.is_empty() {
        found.push(
            Draft::warning(codes::MANIFEST_UNCHECKED, view.span_of("start"), "nothing tells whether the started service works")
                .hint("add `health = \"http://…\"` or a `[[service.check]]`; without one a drill only knows that it runs"),
        );
    }
    if view.has("stop") && !view.has("start") {
        found.push(
            Draft::warning(
                codes::MANIFEST_UNUSED,
                view.span_of("stop"),
                "`stop` without `start` is never run",
            )
            .hint("add `start`, or remove `stop`"),
        );
    }
    let http_check = |view: View<'_>| {
        Some(HttpCheck {
            url: view.text("url")?.to_owned(),
            expect_status: view.number("expect_status").unwrap_or(200),
            expect_body: view.text("expect_body").map(str::to_owned),
        })
    };
    Some(Service {
        name: view.text("name")?.to_owned(),
        health: view.text("health").map(str::to_owned),
        start: view.command("start"),
        stop: view.command("stop"),
        ready_seconds: view.number("ready_seconds").unwrap_or(30),
        checks: checks.into_iter().map(http_check).collect::<Option<_>>()?,
    })
}

fn repository(view: View<'_>, dir: &Path) -> Option<Repository> {
    let url = view.text("url")?;
    Some(Repository {
        name: view.text("name")?.to_owned(),
        url: url.to_owned(),
        scheme: address::repository(url).ok()?,
        password: SecretRef::parse_key(view.text("password")?).ok()?.resolved(dir),
        copy_of: view.text("copy_of").map(str::to_owned),
        region: view.text("region").map(str::to_owned),
        lock: view.number("lock_days").map(|days| ObjectLock {
            days,
            mode: view.text("lock_mode").and_then(LockMode::from_name).unwrap_or_default(),
        }),
        price: view.table("price").map(prices),
    })
}

/// What is absent or wrong (and reported) costs nothing.
fn prices(view: View<'_>) -> Prices {
    let amount = |key: &str| view.text(key).and_then(|text| text.parse().ok()).unwrap_or_default();
    Prices {
        currency: view.text("currency").unwrap_or("USD").to_owned(),
        gb_month: amount("gb_month"),
        writes_1000: amount("writes_1000"),
        reads_1000: amount("reads_1000"),
    }
}

fn evidence(view: Option<View<'_>>, service: &str, dir: &Path) -> Option<Evidence> {
    let Some(view) = view else {
        return Some(Evidence { signing_key: None, public_key: None, writer: service.to_owned() });
    };
    let signing_key = match view.text("signing_key") {
        Some(text) => Some(SecretRef::parse(text).ok()?.resolved(dir)),
        None => None,
    };
    Some(Evidence {
        signing_key,
        public_key: view.text("public_key").and_then(check::public_key),
        writer: view.text("writer").unwrap_or(service).to_owned(),
    })
}

fn drill(
    view: Option<View<'_>>,
    dir: &Path,
    components: &[Component],
    found: &mut Vec<Draft>,
) -> DrillOptions {
    let scratch_dir = view.and_then(|view| view.text("scratch_dir"));
    DrillOptions {
        scratch_dir: scratch_dir.map(|path| paths::resolve(dir, Path::new(path))),
        timeout_seconds: view.and_then(|view| view.number("timeout_seconds")).unwrap_or(3600),
        markers: view.and_then(|view| markers(view, components, found)),
    }
}

fn markers(view: View<'_>, components: &[Component], found: &mut Vec<Draft>) -> Option<Markers> {
    let Some(write_url) = view.text("marker_url") else {
        for key in ["markers_url", "marker_component"].into_iter().filter(|key| view.has(key)) {
            let message = format!("`{key}` without `marker_url` has no effect");
            found.push(
                Draft::warning(codes::MANIFEST_UNUSED, view.span_of(key), message)
                    .hint("add `marker_url`, or remove it"),
            );
        }
        return None;
    };
    let named = view.text("marker_component");
    if let Some(name) = named.filter(|name| !components.iter().any(|component| component.name == *name)) {
        let message = format!("there is no component {}", quoted(name));
        let known: Vec<&str> = components.iter().map(|component| component.name.as_str()).collect();
        found.push(
            Draft::error(codes::MANIFEST_REFERENCE, view.span_of("marker_component"), message)
                .did_you_mean(suggest::nearest(name, known.iter().copied()))
                .hint("name the component that holds what is written to `marker_url`"),
        );
        return None;
    }
    let first_database = components
        .iter()
        .find(|component| component.kind() == ComponentKind::Sqlite)
        .map(|it| it.name.clone());
    Some(Markers {
        write_url: write_url.to_owned(),
        read_url: view.text("markers_url").map_or_else(|| format!("{write_url}s"), str::to_owned),
        component: named.map(str::to_owned).or(first_database),
    })
}
