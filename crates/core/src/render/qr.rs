//! QR codes as SVG in a page, black on white, with the quiet zone that readers need.

use super::html::Html;
use qrcode::{Color, EcLevel, QrCode};

/// Modules of white around a code.
const QUIET: usize = 4;

/// Draws `text`; nothing when it is too long for a code. A quarter of it may be stained or torn.
pub(super) fn svg(html: &mut Html, text: &str) {
    let Ok(code) = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::Q) else { return };
    let (width, side) = (code.width(), code.width() + 2 * QUIET);
    html.raw(
        "<svg class=\"qr\" role=\"img\" aria-label=\"QR\" shape-rendering=\"crispEdges\" viewBox=\"0 0 ",
    );
    html.number(side)
        .raw(" ")
        .number(side)
        .raw("\"><path fill=\"#fff\" d=\"M0 0h")
        .number(side)
        .raw("v")
        .number(side);
    html.raw("H0z\"/><path fill=\"#000\" d=\"");
    for (y, row) in code.to_colors().chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run.first() == Some(&Color::Dark) {
                html.raw("M").number(x + QUIET).raw(" ").number(y + QUIET).raw("h").number(run.len());
                html.raw("v1h-").number(run.len()).raw("z");
            }
            x += run.len();
        }
    }
    html.raw("\"/></svg>\n");
}
