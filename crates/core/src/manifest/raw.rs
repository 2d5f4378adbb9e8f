//! TOML text as a tree in which every key and value knows where it stands.
//!
//! Nothing is interpreted here. Tables written as `[a]`, `a.b = 1` and `a = { … }` look the same, and so do `[[a]]` and
//! `a = [{ … }]`, so that the checks need one form only.

use super::problem::Draft;
use crate::error::codes;
use std::ops::Range;
use toml_edit::{Document, Item, TableLike};

/// A value with its place in the text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// For a table in brackets: its header.
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

/// What a key holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float,
    Boolean,
    Datetime,
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) node: Node,
}

impl Value {
    /// The type in words, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float => "a number with a fraction",
            Self::Boolean => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// Looks up `key`.
pub(super) fn find<'a>(table: &'a [Entry], key: &str) -> Option<&'a Entry> {
    table.iter().find(|entry| entry.key == key)
}

/// Reads `text`; the keys of the root table, or the first error of syntax.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Draft> {
    let document = Document::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(text.len()..text.len());
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        let hint = if message.contains("duplicate") {
            "keep one of them"
        } else if message.contains("quoted") {
            "write texts in quotes, as in `name = \"web\"`"
        } else {
            "write `key = value` on a line, texts in quotes, and `[table]` above the keys of a table"
        };
        Draft::error(codes::MANIFEST_SYNTAX, &span, format!("this is not TOML: {message}"))
            .hint(format!("{hint}; nothing was checked beyond this"))
    })?;
    Ok(entries(document.as_table(), &(0..0)))
}

fn entries(table: &dyn TableLike, around: &Range<usize>) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(table.len());
    for (name, item) in table.iter() {
        let key = table.get_key_value(name).and_then(|(key, _)| key.span());
        let key_span = key.unwrap_or_else(|| around.clone());
        let node = node(item, &key_span);
        entries.push(Entry { key: name.to_owned(), key_span, node });
    }
    entries
}

fn node(item: &Item, key_span: &Range<usize>) -> Node {
    let span = item.span().unwrap_or_else(|| key_span.clone());
    let value = match item {
        Item::None => Value::Table(Vec::new()),
        Item::Table(table) => Value::Table(entries(table, &span)),
        Item::ArrayOfTables(tables) => Value::Array(
            tables
                .iter()
                .map(|table| {
                    let span = table.span().unwrap_or_else(|| span.clone());
                    Node { value: Value::Table(entries(table, &span)), span }
                })
                .collect(),
        ),
        Item::Value(value) => return value_node(value, &span),
    };
    Node { span, value }
}

fn value_node(value: &toml_edit::Value, around: &Range<usize>) -> Node {
    let span = value.span().unwrap_or_else(|| around.clone());
    let value = match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
        toml_edit::Value::Float(_) => Value::Float,
        toml_edit::Value::Boolean(_) => Value::Boolean,
        toml_edit::Value::Datetime(_) => Value::Datetime,
        toml_edit::Value::Array(items) => {
            Value::Array(items.iter().map(|item| value_node(item, &span)).collect())
        }
        toml_edit::Value::InlineTable(table) => Value::Table(entries(table, &span)),
    };
    Node { span, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_place() {
        let text = "a = 1\n[b]\nc = \"x\"\n[[d]]\ne.f = [true]\n";
        let root = parse(text).unwrap();
        let slice = |span: &Range<usize>| &text[span.clone()];
        assert_eq!(slice(&root[0].node.span), "1");
        assert_eq!(slice(&root[1].key_span), "b");
        assert_eq!(slice(&root[1].node.span), "[b]");
        let Value::Table(b) = &root[1].node.value else { panic!("{root:?}") };
        assert_eq!((slice(&b[0].key_span), slice(&b[0].node.span)), ("c", "\"x\""));
        let Value::Array(d) = &root[2].node.value else { panic!("{root:?}") };
        assert_eq!(slice(&d[0].span), "[[d]]");
        let Value::Table(d) = &d[0].value else { panic!("{root:?}") };
        assert_eq!(slice(&d[0].key_span), "e");
    }

    #[test]
    fn a_syntax_error_has_a_place() {
        let draft = parse("a = 1\nb = x y\n").unwrap_err();
        assert!(draft.is_error());
        assert!(format!("{draft:?}").contains("span: 10"), "{draft:?}");
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
        let nested = format!("a = {}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(parse(&nested).is_err());
        assert!(parse(&format!("{}=1", vec!["a"; 5000].join("."))).is_err());
    }
}
