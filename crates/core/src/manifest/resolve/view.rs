//! Typed access to a table that `check` has looked at. What is absent or wrong gives `None`; the problem is known.

use crate::manifest::model::Command;
use crate::manifest::raw::{Entry, Node, Value, find};
use crate::units::Duration;
use std::ops::Range;

/// A table and the place where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    entries: &'a [Entry],
    pub(super) span: &'a Range<usize>,
}

impl<'a> View<'a> {
    pub(super) fn new(entries: &'a [Entry], span: &'a Range<usize>) -> Self {
        Self { entries, span }
    }

    fn of(node: &'a Node) -> Option<Self> {
        match &node.value {
            Value::Table(entries) => Some(Self::new(entries, &node.span)),
            _ => None,
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        find(self.entries, key).is_some()
    }

    /// Where the value of `key` stands; where the table begins without one.
    pub(super) fn span_of(&self, key: &str) -> &'a Range<usize> {
        find(self.entries, key).map_or(self.span, |entry| &entry.node.span)
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        find(self.entries, key).map(|entry| &entry.node.value)
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative and fits.
    pub(super) fn number<N: TryFrom<i64>>(&self, key: &str) -> Option<N> {
        match self.value(key)? {
            Value::Integer(number) => N::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        self.text(key)?.parse().ok().filter(|duration: &Duration| !duration.is_zero())
    }

    /// A length of time, or a number of minutes; at least one minute.
    pub(super) fn minutes(&self, key: &str) -> Option<Duration> {
        let duration = self.number(key).map(Duration::from_minutes).or_else(|| self.duration(key))?;
        (duration.as_seconds() >= 60).then_some(duration)
    }

    /// The texts of a list with their places; `None` for an absent or empty list.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<(&'a str, &'a Range<usize>)>> {
        let Value::Array(items) = self.value(key)? else { return None };
        let text = |node: &'a Node| match &node.value {
            Value::String(text) => Some((text.as_str(), &node.span)),
            _ => None,
        };
        let texts: Vec<_> = items.iter().filter_map(text).collect();
        (!texts.is_empty()).then_some(texts)
    }

    pub(super) fn command(&self, key: &str) -> Option<Command> {
        let mut words = self.texts(key)?.into_iter().map(|(word, _)| word.to_owned());
        Some(Command { program: words.next()?, arguments: words.collect() })
    }

    pub(super) fn table(&self, key: &str) -> Option<View<'a>> {
        find(self.entries, key).and_then(|entry| Self::of(&entry.node))
    }

    pub(super) fn tables(&self, key: &str) -> Vec<View<'a>> {
        match self.value(key) {
            Some(Value::Array(items)) => items.iter().filter_map(Self::of).collect(),
            _ => Vec::new(),
        }
    }
}
