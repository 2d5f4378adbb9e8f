//! From the manifest to copies: which components are copied from which repository into which. `docs/copy.md`.

use crate::open::{self, Opened};
use retoma_core::manifest::{self, Component, Manifest};
use retoma_core::{Result, Secret, error::codes};
use retoma_repo::Repository;
use retoma_repo::store::{BlockingStore, ObjectStore};
use std::sync::Arc;

/// One copy: from a repository into another one, by their names in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The source.
    pub from: String,
    /// The target.
    pub to: String,
    /// The components whose snapshots are copied.
    pub components: Vec<String>,
}

/// The copies that bring `components` from `from` into `to`, in the order of the components; empty where there is nowhere to go.
/// Where no source is named: from the repository that the target is a copy of, and from the component's first into one that is
/// none. Where no target is named: into all others of the component.
#[must_use]
pub fn routes(
    manifest: &Manifest,
    components: &[&Component],
    from: Option<&str>,
    to: Option<&str>,
) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for component in components {
        let targets: Vec<&str> = match to {
            Some(target) => vec![target],
            None => component.repositories.iter().chain(&component.copies).map(String::as_str).collect(),
        };
        for target in targets {
            let copied = manifest.repository(target).and_then(|target| target.copy_of.as_deref());
            let usual = copied.or_else(|| component.repositories.first().map(String::as_str));
            let Some(source) = from.or(usual).filter(|source| *source != target) else { continue };
            match routes.iter_mut().find(|route| route.from == source && route.to == target) {
                Some(route) => route.components.push(component.name.clone()),
                None => routes.push(Route {
                    from: source.to_owned(),
                    to: target.to_owned(),
                    components: vec![component.name.clone()],
                }),
            }
        }
    }
    routes
}

/// Opens the target of a copy, and makes it where there is none. With `dry_run` nothing is made: an empty repository in
/// memory stands for it, which the flag tells as well.
///
/// # Errors
/// As [`open::open_repository`].
pub fn open_target(described: &manifest::Repository, dry_run: bool) -> Result<Opened> {
    match open::open_repository(described, !dry_run) {
        Err(error) if dry_run && error.code() == codes::NO_REPOSITORY => {
            let store = BlockingStore::new(Arc::new(ObjectStore::memory()))?;
            let repository =
                Repository::init(store, &Secret::new("stands for what is not there".to_owned()))?;
            Ok(Opened { repository, created: true })
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::manifest::{Origin, parse};

    fn routes_of(from: Option<&str>, to: Option<&str>) -> Vec<(String, String, String)> {
        routes_with("", from, to)
    }

    /// With `more` in a fourth repository.
    fn routes_with(more: &str, from: Option<&str>, to: Option<&str>) -> Vec<(String, String, String)> {
        let mut text = "version = 1\n[service]\nname = \"s\"\n".to_owned();
        for (name, more) in [("a", ""), ("b", ""), ("c", ""), ("d", more)] {
            text += &format!(
                "[[repository]]\nname = \"{name}\"\nurl = \"file:///{name}\"\npassword = \"env:P\"\n{more}"
            );
        }
        for (name, repositories) in
            [("one", r#"["a", "b", "c"]"#), ("two", r#"["b", "a"]"#), ("three", r#"["a", "c"]"#)]
        {
            text += &format!(
                "[[component]]\nname = \"{name}\"\nkind = \"files\"\ntier = \"high\"\npath = \"/{name}\"\nrepositories = {repositories}\n"
            );
        }
        let manifest = parse(&text, &Origin { file_name: "m".to_owned(), dir: "/m".into() }).unwrap();
        let components: Vec<&Component> = manifest.components.iter().collect();
        let routes = routes(&manifest, &components, from, to).into_iter();
        routes.map(|route| (route.from, route.to, route.components.join(" "))).collect()
    }

    fn expected(routes: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        routes
            .iter()
            .map(|(from, to, what)| ((*from).to_owned(), (*to).to_owned(), (*what).to_owned()))
            .collect()
    }

    #[test]
    fn by_default_from_the_first_repository_to_all_others() {
        assert_eq!(
            routes_of(None, None),
            expected(&[("a", "b", "one"), ("a", "c", "one three"), ("b", "a", "two")])
        );
    }

    #[test]
    fn named_repositories_count_for_every_component() {
        assert_eq!(
            routes_of(Some("c"), None),
            expected(&[("c", "a", "one two three"), ("c", "b", "one two")])
        );
        assert_eq!(routes_of(None, Some("c")), expected(&[("a", "c", "one three"), ("b", "c", "two")]));
        assert_eq!(routes_of(Some("c"), Some("b")), expected(&[("c", "b", "one two three")]));
        assert_eq!(routes_of(Some("c"), Some("c")), []);
    }

    #[test]
    fn a_copy_is_filled_from_its_own_source() {
        let of = |from, to| routes_with("copy_of = \"b\"\n", from, to);
        assert_eq!(
            of(None, None),
            expected(&[("a", "b", "one"), ("a", "c", "one three"), ("b", "d", "one two"), ("b", "a", "two")])
        );
        assert_eq!(of(None, Some("d")), expected(&[("b", "d", "one two three")]));
        assert_eq!(of(Some("a"), Some("d")), expected(&[("a", "d", "one two three")]));
    }
}
