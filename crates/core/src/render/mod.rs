//! Values into text: pages, terminal output. Deterministic; whatever comes from data is taken as hostile.

mod html;
pub mod language;
pub mod metrics;
pub mod monitoring;
pub mod policies;
mod qr;
pub mod report;
pub mod share;
pub mod sheet;
pub mod systemd;
pub mod terminal;
mod text;
mod waterfall;

pub use language::Language;
