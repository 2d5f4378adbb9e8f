//! Which repositories a disaster takes with it, for drills. `docs/drill.md`, "Lost repositories".
//!
//! Where it is not known whether two lie together, they do: a drill that loses too much proves more than one that loses too
//! little.

use crate::error::{Error, ErrorKind, Result, codes};
use crate::manifest::{Repository, Scheme};

/// How far the disaster reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// One repository.
    Repository,
    /// All that lies where the first one does, or on this host.
    Region,
}

/// What is lost of several repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses<'a> {
    /// The names of those that are lost, in the order of the list.
    pub lost: Vec<&'a str>,
    /// Whether one of those that are left may lie in the lost region: nothing but the addresses tells that it does not.
    pub is_doubtful: bool,
}

/// What a disaster takes that begins with the repository `first`.
///
/// # Errors
/// `Invalid` with `R0713` when none would be left, or none is called `first`.
pub fn losses<'a>(repositories: &'a [Repository], first: &str, extent: Extent) -> Result<Losses<'a>> {
    let Some(origin) = repositories.iter().find(|it| it.name == first) else {
        return Err(unsuited(
            format!("the manifest has no repository `{first}`"),
            "name one of the manifest",
        ));
    };
    let (lost, left): (Vec<&Repository>, Vec<&Repository>) = repositories
        .iter()
        .partition(|it| it.name == first || (extent == Extent::Region && burns_with(it, origin)));
    if left.is_empty() {
        return Err(none_left(&lost, first));
    }
    let is_doubtful = extent == Extent::Region
        && (origin.region.is_none() || left.iter().any(|repository| repository.region.is_none()));
    Ok(Losses { lost: lost.into_iter().map(|it| it.name.as_str()).collect(), is_doubtful })
}

fn none_left(lost: &[&Repository], first: &str) -> Error {
    if lost.len() == 1 {
        return unsuited(
            format!("`{first}` is the only repository of the manifest, and nothing is left without it"),
            "add a second `[[repository]]` that lies elsewhere, fill it with `retoma copy`, and run the drill again",
        );
    }
    let names: Vec<String> = lost.iter().map(|it| format!("`{}`", it.name)).collect();
    unsuited(
        format!("every repository lies where `{first}` does or on this host: {}", names.join(", ")),
        "add a `[[repository]]` that lies elsewhere; where they do lie apart, say so with a `region = \"…\"` in each",
    )
}

fn unsuited(message: String, hint: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, codes::DRILL_UNSUITED, message).with_hint(hint)
}

/// Whether `one` is lost with the region that `origin` lies in. The host of the service is in it.
fn burns_with(one: &Repository, origin: &Repository) -> bool {
    match (&one.region, &origin.region) {
        (Some(region), Some(lost)) => region == lost,
        _ => site(one) == site(origin) || (one.region.is_none() && one.scheme == Scheme::File),
    }
}

/// What an address tells of a place: the machine, or no more than the provider.
#[derive(Debug, PartialEq, Eq)]
enum Site {
    ThisHost,
    Provider(Scheme),
    Host(String),
}

fn site(repository: &Repository) -> Site {
    match repository.scheme {
        Scheme::File => Site::ThisHost,
        Scheme::S3 | Scheme::Gs | Scheme::Az => Site::Provider(repository.scheme),
        Scheme::Sftp => Site::Host(host(&repository.url).to_ascii_lowercase()),
    }
}

/// The host of an address, without user and port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Origin, parse};

    /// Repositories `a`, `b`, `c` … at these addresses, with a region where it is not empty.
    fn repositories(all: &[(&str, &str)]) -> Vec<Repository> {
        let mut text =
            "version = 1\n[service]\nname = \"s\"\n[[component]]\nname = \"m\"\nkind = \"files\"\n\
                        tier = \"low\"\npath = \"/m\"\n"
                .to_owned();
        for ((url, region), name) in all.iter().zip('a'..) {
            text += &format!("[[repository]]\nname = \"{name}\"\nurl = \"{url}\"\npassword = \"env:P\"\n");
            if !region.is_empty() {
                text += &format!("region = \"{region}\"\n");
            }
        }
        parse(&text, &Origin { file_name: "m".to_owned(), dir: "/d".into() }).unwrap().repositories
    }

    fn lost(
        all: &[(&str, &str)],
        first: &str,
        extent: Extent,
    ) -> std::result::Result<(String, bool), String> {
        let all = repositories(all);
        let decided = losses(&all, first, extent).map_err(|error| {
            assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::DRILL_UNSUITED));
            assert!(error.hint().is_some());
            error.to_string()
        })?;
        Ok((decided.lost.concat(), decided.is_doubtful))
    }

    #[test]
    fn of_one_repository_that_one_alone_is_lost_wherever_the_others_lie() {
        let same = [("file:///x", "r"), ("file:///y", "r"), ("s3://b/x", "r")];
        for first in ["a", "b", "c"] {
            assert_eq!(lost(&same, first, Extent::Repository), Ok((first.to_owned(), false)));
        }
    }

    #[test]
    fn a_drill_that_would_leave_none_is_refused() {
        let one = [("s3://b/x", "")];
        for extent in [Extent::Repository, Extent::Region] {
            assert!(lost(&one, "a", extent).unwrap_err().contains("`a` is the only repository"));
            assert!(lost(&one, "z", extent).unwrap_err().contains("no repository `z`"));
        }
        let message = lost(&[("s3://b/x", "eu"), ("gs://c/y", "eu")], "b", Extent::Region).unwrap_err();
        assert!(message.contains("`a`, `b`"), "{message}");
        assert!(lost(&[("file:///x", ""), ("file:///y", "")], "a", Extent::Region).is_err(), "one host");
    }

    #[test]
    fn regions_decide_where_both_are_known() {
        let all = [("s3://b/x", "eu"), ("s3://b/y", "us"), ("gs://c/z", "eu"), ("file:///x", "us")];
        assert_eq!(lost(&all, "a", Extent::Region), Ok(("ac".to_owned(), false)));
        assert_eq!(
            lost(&all, "b", Extent::Region),
            Ok(("bd".to_owned(), false)),
            "a mounted folder lies where it says"
        );
    }

    #[test]
    fn addresses_decide_where_a_region_is_not_known_and_what_may_lie_together_does() {
        let all = [("s3://b/x", ""), ("s3://other/y", "us"), ("gs://c/z", ""), ("sftp://u@h/p", "")];
        assert_eq!(lost(&all, "a", Extent::Region), Ok(("ab".to_owned(), true)), "a bucket tells no region");
        assert_eq!(lost(&all, "b", Extent::Region), Ok(("ab".to_owned(), true)));
        assert_eq!(lost(&all, "d", Extent::Region), Ok(("d".to_owned(), true)));
        let hosts = [
            ("sftp://u@Host:22/p", ""),
            ("sftp://host/q", ""),
            ("sftp://[::1]:22/p", ""),
            ("sftp://v@[::1]/q", ""),
        ];
        assert_eq!(lost(&hosts, "a", Extent::Region), Ok(("ab".to_owned(), true)));
        assert_eq!(lost(&hosts, "d", Extent::Region), Ok(("cd".to_owned(), true)));
    }

    #[test]
    fn the_host_of_the_service_is_lost_with_its_region() {
        let all = [("s3://b/x", "eu"), ("file:///x", ""), ("gs://c/z", "us")];
        assert_eq!(lost(&all, "a", Extent::Region), Ok(("ab".to_owned(), false)));
        assert_eq!(lost(&all, "b", Extent::Region), Ok(("b".to_owned(), true)), "it may lie in either");
    }
}
