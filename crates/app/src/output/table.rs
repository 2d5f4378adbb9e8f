//! Plain tables: columns as wide as their widest cell.

/// Rows of cells with a heading; numbers are right-aligned where the heading starts with `>`.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = headings.iter().map(|heading| heading.starts_with('>')).collect();
    let headings: Vec<String> =
        headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
    // As wide as they are printed.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain([&headings[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rule = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ");
    let mut lines = vec![line(&headings), rule];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

/// Names come from disk and repository: control characters must not reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// A path's bytes for people.
pub(crate) fn path(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_shown() {
        let rows = [vec!["a\u{1b}[2J".to_owned(), "5".to_owned()], vec!["bb".to_owned(), "500".to_owned()]];
        let text = table(&["name", ">size"], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "a\\u{1b}[2J     5");
        assert_eq!(lines[3], "bb           500");
        assert!(!text.contains('\u{1b}'));
    }
}
