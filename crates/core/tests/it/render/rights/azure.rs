//! Roles and conditions of Azure.

use super::{PLACES, Wish, bucket_of, files, for_each_wish, json};
use std::collections::BTreeMap;

/// A request as Azure's conditions see it.
struct Request<'a> {
    /// `read`, `add/action`, `delete` …
    action: &'a str,
    is_listing: bool,
    path: &'a str,
}

/// Conditions as Azure reads them: `!`, `NOT`, `AND`, `OR` and brackets around what is compared.
struct Condition<'a> {
    rest: &'a str,
    request: &'a Request<'a>,
}

impl Condition<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        let after = rest.strip_prefix(token);
        self.rest = after.unwrap_or(rest);
        after.is_some()
    }

    /// What stands in quotes next.
    fn text(&mut self) -> &str {
        let (_, rest) = self.rest.split_once('\'').unwrap();
        let (text, rest) = rest.split_once('\'').unwrap();
        self.rest = rest;
        text
    }

    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.eat("OR") {
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.eat("AND") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.eat("!") || self.eat("NOT") {
            return !self.one();
        }
        if self.eat("(") {
            let holds = self.any();
            assert!(self.eat(")"), "{}", self.rest);
            return holds;
        }
        let request = self.request;
        if self.eat("ActionMatches{") {
            let holds = self.text().ends_with(&format!("/containers/blobs/{}", request.action));
            assert!(self.eat("}"));
            return holds;
        }
        if self.eat("SubOperationMatches{") {
            assert_eq!(self.text(), "Blob.List");
            assert!(self.eat("}"));
            return request.is_listing;
        }
        let is_object = self.eat("@Resource[");
        assert!(is_object || self.eat("@Request["), "{}", self.rest);
        let attribute = if is_object { ":path] StringStartsWith" } else { ":prefix] StringStartsWith" };
        assert!(self.rest.contains(attribute), "{}", self.rest);
        let beginning = self.text().to_owned();
        // A listing is of no blob, and a blob's request has no prefix.
        is_object != request.is_listing && request.path.starts_with(&beginning)
    }
}

#[test]
fn in_azure_each_role_may_do_what_it_needs_and_nobody_replaces_a_blob() {
    for more in ["", "lock_days = 14\n"] {
        azure_rights(&files("az", more), !more.is_empty());
    }
}

fn azure_rights(files: &BTreeMap<String, String>, has_locks: bool) {
    let is_allowed = |name: &str, role: &str, wish: Wish, place: &str| {
        let bucket = bucket_of(name);
        let definition = json(files, &format!("az-{bucket}-{name}-{role}.json"));
        let (action, is_listing) = match wish {
            Wish::Read => ("read", false),
            Wish::List => ("read", true),
            Wish::Add => ("add/action", false),
            Wish::Replace => ("write", false),
            Wish::Delete => ("delete", false),
        };
        let actions = definition["DataActions"].as_array().unwrap();
        let has_right = actions.iter().any(|it| it.as_str().unwrap().ends_with(&format!("/blobs/{action}")));
        let request = Request { action, is_listing, path: place };
        let holds = files.get(&format!("az-{bucket}-{name}-{role}-condition.txt")).is_none_or(|text| {
            let mut condition = Condition { rest: text, request: &request };
            let holds = condition.any();
            assert_eq!(condition.rest.trim(), "", "all of it was read");
            holds
        });
        has_right && holds
    };
    for_each_wish(true, is_allowed);
    // Policies of blobs: who writes sets them, below its prefix, and only where the manifest locks.
    let locks = |name: &str, role: &str, place: &str| {
        let bucket = bucket_of(name);
        let actions = json(files, &format!("az-{bucket}-{name}-{role}.json"))["DataActions"].to_string();
        let request =
            Request { action: "immutableStorage/runAsSuperUser/action", is_listing: false, path: place };
        let bound = files.get(&format!("az-{bucket}-{name}-{role}-condition.txt"));
        actions.contains("/blobs/immutableStorage/runAsSuperUser/action")
            && bound.is_none_or(|text| Condition { rest: text, request: &request }.any())
    };
    for (name, role) in
        ["a", "c", "w"].into_iter().flat_map(|it| ["writer", "reader", "pruner"].map(|role| (it, role)))
    {
        for place in PLACES {
            let expected = has_locks && name == "a" && role != "reader" && place.starts_with("x/");
            assert_eq!(locks(name, role, place), expected, "{name} {role} {place}");
        }
    }
    for place in PLACES {
        for role in ["writer", "reader", "pruner"] {
            assert!(!is_allowed("a", role, Wish::Replace, place), "{role} replaces {place}");
        }
    }
}
