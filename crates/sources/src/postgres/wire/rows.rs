//! What a query gives: rows of texts, read by the names of their columns.

use super::error::answer;
use bytes::Bytes;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};
use retoma_core::Result;
use retoma_core::postgres::Lsn;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

/// One row: a text or NULL in each column.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    bytes: Bytes,
    values: Vec<Option<Range<usize>>>,
}

/// The names of the columns that follow.
pub(super) fn columns(body: &RowDescriptionBody) -> std::io::Result<Arc<[String]>> {
    body.fields().map(|field| Ok(field.name().to_owned())).collect::<Vec<_>>().map(Into::into)
}

impl Row {
    /// Reads a row; it must have as many values as there are columns.
    pub(super) fn read(columns: &Arc<[String]>, body: &DataRowBody) -> Option<Self> {
        let values: Vec<_> = body.ranges().collect().ok()?;
        (values.len() == columns.len()).then(|| Self {
            columns: columns.clone(),
            bytes: body.buffer_bytes().clone(),
            values,
        })
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How much memory the row's values take, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The value of `column` as it came; `None` for NULL.
    ///
    /// # Errors
    /// `R0417` when there is no such column.
    pub fn bytes(&self, column: &str) -> Result<Option<&[u8]>> {
        let at = self.columns.iter().position(|name| name == column);
        let at = at.ok_or_else(|| answer(format!("there is no column `{}`", column.escape_debug())))?;
        Ok(self.values.get(at).cloned().flatten().and_then(|range| self.bytes.get(range)))
    }

    /// The value of `column`; `None` for NULL.
    ///
    /// # Errors
    /// `R0417` when there is no such column, or it is no text.
    pub fn get(&self, column: &str) -> Result<Option<&str>> {
        let Some(bytes) = self.bytes(column)? else { return Ok(None) };
        let text =
            std::str::from_utf8(bytes).map_err(|_| answer(format!("`{column}` is no text in UTF-8")))?;
        Ok(Some(text))
    }

    /// The value of `column`, which is not NULL.
    ///
    /// # Errors
    /// `R0417` as with [`Row::get`], and for NULL.
    pub fn text(&self, column: &str) -> Result<&str> {
        self.get(column)?.ok_or_else(|| answer(format!("`{column}` is NULL")))
    }

    /// The value of `column` as what its text means: a number, an [`Lsn`], a timeline.
    ///
    /// # Errors
    /// `R0417` as with [`Row::text`], and when it means no such thing.
    pub fn value<T: FromStr>(&self, column: &str) -> Result<T> {
        let text = self.text(column)?;
        text.parse().map_err(|_| {
            let shown = super::error::shown(text.as_bytes());
            let wanted = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
            answer(format!("`{column}` is `{shown}`, which is no {wanted}"))
        })
    }

    /// As [`Row::value`]; `None` for NULL.
    pub fn optional<T: FromStr>(&self, column: &str) -> Result<Option<T>> {
        if self.bytes(column)?.is_none() { Ok(None) } else { self.value(column).map(Some) }
    }

    /// The value of `column`, a `boolean`.
    pub fn boolean(&self, column: &str) -> Result<bool> {
        match self.text(column)? {
            "t" => Ok(true),
            "f" => Ok(false),
            other => Err(answer(format!(
                "`{column}` is `{}`, which is no boolean",
                super::error::shown(other.as_bytes())
            ))),
        }
    }

    /// The value of `column`, a `pg_lsn`.
    pub fn lsn(&self, column: &str) -> Result<Lsn> {
        self.value(column)
    }
}

/// All rows of a query.
#[derive(Debug, Clone, Default)]
pub struct Rows(pub(super) Vec<Row>);

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.0.iter()
    }

    /// The only row.
    ///
    /// # Errors
    /// `R0417` when there is none, or more than one.
    pub fn one(&self) -> Result<&Row> {
        match self.0.as_slice() {
            [row] => Ok(row),
            rows => Err(answer(format!("{} rows instead of one", rows.len()))),
        }
    }

    /// The only row, or `None`.
    ///
    /// # Errors
    /// `R0417` when there is more than one.
    pub fn at_most_one(&self) -> Result<Option<&Row>> {
        if self.0.is_empty() { Ok(None) } else { self.one().map(Some) }
    }

    /// The text in a row, counted from 0, and column.
    ///
    /// # Errors
    /// `R0417` when there is no such row or column, or it is NULL.
    pub fn text(&self, row: usize, column: &str) -> Result<&str> {
        self.0.get(row).ok_or_else(|| answer(format!("there is no row {row}")))?.text(column)
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::error::codes;

    fn row(values: &[(&str, Option<&[u8]>)]) -> Row {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        for (_, value) in values {
            ranges.push(value.map(|value| bytes.len()..bytes.len() + value.len()));
            bytes.extend_from_slice(value.unwrap_or_default());
        }
        let columns: Vec<_> = values.iter().map(|(name, _)| (*name).to_owned()).collect();
        Row { columns: columns.into(), bytes: bytes.into(), values: ranges }
    }

    #[test]
    fn values_are_read_by_name_and_type() {
        let row = row(&[
            ("n", Some(b"42")),
            ("nothing", None),
            ("empty", Some(b"")),
            ("yes", Some(b"t")),
            ("lsn", Some(b"0/1F")),
            ("odd", Some(b"\xff")),
        ]);
        assert_eq!(row.value::<u64>("n").unwrap(), 42);
        assert_eq!(row.get("nothing").unwrap(), None);
        assert_eq!(row.optional::<u64>("nothing").unwrap(), None);
        assert_eq!(row.text("empty").unwrap(), "");
        assert!(row.boolean("yes").unwrap());
        assert_eq!(row.lsn("lsn").unwrap(), Lsn(31));
        assert_eq!(row.bytes("odd").unwrap(), Some(&b"\xff"[..]));
        let messages = [
            row.text("missing").unwrap_err(),
            row.text("nothing").unwrap_err(),
            row.text("odd").unwrap_err(),
            row.value::<u64>("lsn").unwrap_err(),
            row.boolean("n").unwrap_err(),
            row.lsn("n").unwrap_err(),
        ]
        .map(|error| {
            assert_eq!(error.code(), codes::POSTGRES_ANSWER);
            error.to_string()
        });
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn one_row_is_one_row() {
        let one = row(&[("n", Some(b"1"))]);
        assert!(Rows::default().one().is_err());
        assert!(Rows::default().at_most_one().unwrap().is_none());
        assert_eq!(Rows(vec![one.clone()]).one().unwrap().text("n").unwrap(), "1");
        assert!(Rows(vec![one.clone(), one.clone()]).one().is_err());
        assert!(Rows(vec![one]).text(1, "n").is_err());
    }
}
