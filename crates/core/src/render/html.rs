//! A page under construction. Only text that is part of this program goes in as it is; everything else is escaped.

use crate::render::text::clean;
use std::fmt::Write as _;

/// HTML so far.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own. `&'static` keeps data out.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Data, as text or as the value of an attribute in double quotes.
    pub(super) fn text(&mut self, data: &str) -> &mut Self {
        for c in clean(data).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A share from 0 to 1 as a percentage for an attribute.
    pub(super) fn percent(&mut self, share: f64) -> &mut Self {
        // Writing to a `String` cannot fail.
        let _ignored = write!(self.0, "{:.2}%", share.clamp(0.0, 1.0) * 100.0);
        self
    }

    /// A whole number for an attribute.
    pub(super) fn number(&mut self, value: usize) -> &mut Self {
        let _ignored = write!(self.0, "{value}");
        self
    }

    /// `<tag>data</tag>`.
    pub(super) fn element(&mut self, tag: &'static str, data: &str) -> &mut Self {
        self.raw("<").raw(tag).raw(">").text(data).raw("</").raw(tag).raw(">")
    }

    /// A table's heads, from `<thead>` to `<tbody>`.
    pub(super) fn heads(&mut self, heads: &[&'static str]) -> &mut Self {
        self.raw("<thead><tr>");
        for head in heads {
            self.raw("<th scope=\"col\">").text(head).raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n")
    }

    /// A table's cell. On a narrow screen its head stands before it.
    pub(super) fn cell(&mut self, head: &'static str, data: &str) -> &mut Self {
        self.raw("<td data-head=\"").text(head).raw("\">").text(data).raw("</td>")
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}
